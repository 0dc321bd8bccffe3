"""A Vision Transformer from image tokens to pixels, of the kind of ViT-MAE's decoder, with a class token of its own.

    x_0 = [c; W z] + p      each token z of the encoder is projected, p are fixed positions (sines and cosines)
    x_L = pre-norm Transformer blocks of attention and MLP
    pixels of a patch = V LN(x_L), times a standard deviation plus a mean for each channel

Weights have the names that the published decoders give them, so that these can be saved again as they are.

References: K. He et al., "Masked Autoencoders Are Scalable Vision Learners", arXiv 2111.06377 (architecture);
B. Zheng et al., "Diffusion Transformers with Representation Autoencoders", arXiv 2510.11690 (as a decoder of tokens).
"""

import math
from collections.abc import Sequence

import torch
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional


class PixelTransformer(ModelMixin, ConfigMixin):
    """Draws pictures (N,3,G P,G P) from a grid of G x G image tokens (N,t,D), in patches of P x P pixels.

    Args:
        token_size: D of the encoder.
        grid: G, tokens along one side.
        patch_size: P.
        width: width of the blocks.
        depth: number of blocks.
        heads: attention heads of a block.
        mlp_size: hidden size of an MLP.
        epsilon: epsilon of every norm of the decoder.
        token_epsilon: epsilon of the norm of the encoder's tokens.
        token_affine: whether that norm has weights, which are then those of the encoder.
        layers: layers of the encoder whose normed tokens are averaged, counted from 0; None for the last layer.
        adds_mean: whether the mean over all tokens of the last of these layers is added to each token.
        pixel_mean: mean of each channel, for values in [0,1].
        pixel_std: standard deviation of each channel.
    """

    @register_to_config
    def __init__(
        self,
        token_size: int = 1152,
        grid: int = 16,
        patch_size: int = 14,
        width: int = 1152,
        depth: int = 28,
        heads: int = 16,
        mlp_size: int = 4096,
        epsilon: float = 1e-12,
        token_epsilon: float = 1e-6,
        token_affine: bool = False,
        layers: Sequence[int] | None = None,
        adds_mean: bool = False,
        pixel_mean: Sequence[float] = (0.5, 0.5, 0.5),
        pixel_std: Sequence[float] = (0.5, 0.5, 0.5),
    ) -> None:
        super().__init__()
        self.grid, self.patch_size = grid, patch_size
        self.token_norm = nn.LayerNorm(token_size, eps=token_epsilon, elementwise_affine=token_affine)
        self.decoder_embed = nn.Linear(token_size, width)
        self.trainable_cls_token = nn.Parameter(torch.zeros(1, 1, width))
        self.decoder_pos_embed = nn.Parameter(grid_positions(grid, width)[None], requires_grad=False)
        self.decoder_layers = nn.ModuleList(_Block(width, heads, mlp_size, epsilon) for _ in range(depth))
        self.decoder_norm = nn.LayerNorm(width, eps=epsilon)
        self.decoder_pred = nn.Linear(width, 3 * patch_size**2)
        self.channels = tuple(pixel_std), tuple(pixel_mean)

    def forward(self, tokens: Float[Tensor, "N t D"]) -> Float[Tensor, "N 3 height width"]:
        """Draws pictures, with values about in [0,1], not clamped."""
        patches = self.decoder_embed(tokens)
        hidden = torch.cat([self.trainable_cls_token.expand(len(patches), -1, -1), patches], dim=1)
        hidden = hidden + self.decoder_pos_embed
        for block in self.decoder_layers:
            hidden = block(hidden)
        pixels = self.decoder_pred(self.decoder_norm(hidden))[:, 1:]
        side = self.patch_size
        rows = pixels.unflatten(1, (self.grid, self.grid)).unflatten(3, (side, side, 3))
        pictures = rows.permute(0, 5, 1, 3, 2, 4).reshape(len(rows), 3, self.grid * side, self.grid * side)
        scale, shift = (pictures.new_tensor(values).view(1, 3, 1, 1) for values in self.channels)
        return pictures * scale + shift


class _Block(nn.Module):
    """A pre-norm block; dictionaries of modules give the weights their published names."""

    def __init__(self, width: int, heads: int, mlp_size: int, epsilon: float) -> None:
        super().__init__()
        self.heads = heads
        projections = nn.ModuleDict({name: nn.Linear(width, width) for name in ("query", "key", "value")})
        output = nn.ModuleDict({"dense": nn.Linear(width, width)})
        self.attention = nn.ModuleDict({"attention": projections, "output": output})
        self.intermediate = nn.ModuleDict({"dense": nn.Linear(width, mlp_size)})
        self.output = nn.ModuleDict({"dense": nn.Linear(mlp_size, width)})
        self.layernorm_before = nn.LayerNorm(width, eps=epsilon)
        self.layernorm_after = nn.LayerNorm(width, eps=epsilon)

    def forward(self, hidden: Float[Tensor, "N T W"]) -> Float[Tensor, "N T W"]:
        normed = self.layernorm_before(hidden)
        query, key, value = (
            self.get_submodule(f"attention.attention.{name}")(normed).unflatten(2, (self.heads, -1)).transpose(1, 2)
            for name in ("query", "key", "value")
        )
        attended = functional.scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2)
        hidden = hidden + self.get_submodule("attention.output.dense")(attended)
        inner = functional.gelu(self.intermediate["dense"](self.layernorm_after(hidden)))
        return hidden + self.output["dense"](inner)


def grid_positions(grid: int, width: int) -> Float[Tensor, "T W"]:
    """Computes positions of G x G tokens in rows, after zeros for the class token: sines and cosines of x, then of y.

    Frequencies are `10000^(-i / (W/4))`; the first half of the width belongs to the column, the second to the row.
    """
    steps, quarter = torch.arange(grid, dtype=torch.float64), width // 4
    angles = steps[:, None] * torch.exp(-math.log(10000) * torch.arange(quarter, dtype=torch.float64) / quarter)
    waves = torch.cat([angles.sin(), angles.cos()], dim=1)
    columns, rows = waves[None].expand(grid, -1, -1), waves[:, None].expand(-1, grid, -1)
    return torch.cat([torch.zeros(1, width), torch.cat([columns, rows], dim=2).flatten(0, 1).float()])
