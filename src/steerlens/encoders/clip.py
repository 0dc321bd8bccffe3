"""CLIP vision towers of transformers: `CLIPVisionModelWithProjection`.

A pre-norm ViT: the class token's residual goes through `post_layernorm` and `visual_projection`, P(LN(x)).

References: A. Radford et al., "Learning Transferable Visual Models From Natural Language Supervision",
arXiv 2103.00020.
"""

from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any, cast

from jaxtyping import Float
from PIL import Image
from torch import Tensor, nn
from transformers import CLIPVisionModelWithProjection

from steerlens.encoders.attention import recorded_attention
from steerlens.encoders.base import EncoderSpec, Inputs
from steerlens.encoders.native import LayerModules, NativeEncoder, Recorded
from steerlens.errors import ModelError


class CLIPEncoder(NativeEncoder):
    """A CLIP vision tower with its projection, wrapped, never copied; the model is put into evaluation mode.

    Args:
        model: the native model.
        processor: the image processor that belongs to it (transformers, PIL backend).
        name: what to call it in reports.

    Raises:
        ModelError: if the model holds modules that this adapter does not know.
    """

    def __init__(self, model: CLIPVisionModelWithProjection, processor: Any, name: str = "") -> None:
        # Sizes in the config are declared as unions, and modules as attributes of any kind; both are checked by use.
        self.model = self._clip = cast(Any, model.eval())
        self.processor = processor
        _refuse_unknown(model)
        config = self._clip.config
        side = config.image_size // config.patch_size
        self.spec = EncoderSpec(
            name=name or config.name_or_path or "clip",
            family="clip",
            n_layers=config.num_hidden_layers,
            n_heads=config.num_attention_heads,
            width=config.hidden_size,
            embedding_size=config.projection_dim,
            image_size=(config.image_size, config.image_size),
            n_tokens=side * side + 1,
            patch_grid=(side, side),
            first_patch=1,
            readout_tokens=(0,),
            crops=bool(getattr(processor, "do_center_crop", False)),
        )

    @classmethod
    def accepts(cls, model: object) -> bool:
        """Whether this adapter is the one for a native model."""
        return isinstance(model, CLIPVisionModelWithProjection)

    def layers(self) -> Sequence[LayerModules]:
        """The native modules, layer by layer."""
        return [
            LayerModules(
                block=block,
                attn_out=block.self_attn,
                attn_proj=block.self_attn.out_proj,
                mlp_out=block.mlp,
                n_heads=self.spec.n_heads,
                out_weight=block.self_attn.out_proj.weight,
                out_bias=block.self_attn.out_proj.bias,
            )
            for block in self._clip.vision_model.encoder.layers
        ]

    def readout(self, residual: Float[Tensor, "N R D"]) -> Float[Tensor, "N E"]:
        """P(LN(x)) of the class token's residual."""
        normed = self._clip.vision_model.post_layernorm(residual[:, 0].to(self.dtype))
        return self._clip.visual_projection(normed)

    def native_forward(self, inputs: Inputs) -> Float[Tensor, "B E"]:
        """The projected class token of one native forward pass."""
        return self._clip(**inputs).image_embeds

    def preprocess(self, images: Sequence[Image.Image]) -> Inputs:
        """Resized, cropped and normalised pictures, (B,3,image_size,image_size)."""
        pixel_values = self.processor(images=list(images), return_tensors="pt")["pixel_values"]
        return {"pixel_values": pixel_values.to(self.device, self.dtype)}

    def recording_attention(self, tokens: Sequence[int]) -> AbstractContextManager[Recorded]:
        """While it is open, forward passes record patterns (of the given query tokens) and values, by layer."""
        blocks = self._clip.vision_model.encoder.layers
        return recorded_attention({block.self_attn: layer for layer, block in enumerate(blocks)}, tokens)


_KNOWN_CHILDREN = {
    "": {"vision_model", "visual_projection"},
    "vision_model": {"embeddings", "pre_layrnorm", "encoder", "post_layernorm"},
    "layer": {"self_attn", "layer_norm1", "mlp", "layer_norm2"},
    "self_attn": {"q_proj", "k_proj", "v_proj", "out_proj"},
}


def _refuse_unknown(model: CLIPVisionModelWithProjection) -> None:
    """An adapter that met a part it does not know could leave it out of the decomposition; so it stops there."""
    vision = model.vision_model
    blocks = cast(Any, vision.encoder.layers)
    parts: list[tuple[str, str, nn.Module]] = [("", "model", model), ("vision_model", "vision_model", vision)]
    for index, block in enumerate(blocks):
        parts.append(("layer", f"encoder.layers.{index}", block))
        parts.append(("self_attn", f"encoder.layers.{index}.self_attn", block.self_attn))
    for kind, name, module in parts:
        children = {child for child, _ in module.named_children()}
        surprising = sorted(children ^ _KNOWN_CHILDREN[kind])
        if surprising:
            raise ModelError(
                f"{name} is not built like a CLIP vision tower: {', '.join(surprising)} "
                f"{'is' if len(surprising) == 1 else 'are'} there unexpectedly or missing."
            )
