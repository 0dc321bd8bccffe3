"""Tiny parts of diffusers' pipelines with random weights, of the real classes, for `tiny_decoders`."""

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

EMBEDDING_SIZE, WIDTH, TEXT_WIDTH = 12, 16, 16
"""E and D of the tiny vision tower, and the width of the tiny text encoders."""

_LENGTH = 8
"""Tokens of a tiny text."""


def _vocabulary() -> dict[str, int]:
    letters = [chr(code) for code in range(ord("!"), ord("~") + 1)]
    tokens = [*letters, *(f"{letter}</w>" for letter in letters), "ap", "<|startoftext|>", "<|endoftext|>"]
    return {token: index for index, token in enumerate(tokens)}


def tiny_text_encoder(*, projection: int | None = None, width: int = TEXT_WIDTH) -> Any:
    """A CLIP text encoder for the tiny tokenizer, with a projection if its size is given."""
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

    size = len(_vocabulary())
    config = CLIPTextConfig(
        vocab_size=size,
        hidden_size=width,
        intermediate_size=2 * width,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=_LENGTH,
        projection_dim=projection or width,
        bos_token_id=size - 2,
        eos_token_id=size - 1,
        pad_token_id=size - 1,
    )
    kind: Any = CLIPTextModel if projection is None else CLIPTextModelWithProjection
    return shaken(kind(config), 0.2)


def tiny_tokenizer() -> Any:
    """A CLIP tokenizer of single letters."""
    import json

    from transformers import CLIPTokenizer

    with TemporaryDirectory() as name:
        folder, end = Path(name), "<|endoftext|>"
        (folder / "vocab.json").write_text(json.dumps(_vocabulary()), encoding="utf-8")
        (folder / "merges.txt").write_text("#version: 0.2\na p\n", encoding="utf-8")
        specials = {"bos_token": "<|startoftext|>", "eos_token": end, "pad_token": end, "unk_token": end}
        settings = {**specials, "model_max_length": _LENGTH, "tokenizer_class": "CLIPTokenizer"}
        (folder / "tokenizer_config.json").write_text(json.dumps(settings), encoding="utf-8")
        return CLIPTokenizer.from_pretrained(folder, local_files_only=True)


def tiny_sd_unet(cross_attention_dim: int = TEXT_WIDTH, **config: Any) -> Any:
    """A UNet of Stable Diffusion's block types."""
    from diffusers import UNet2DConditionModel

    given: dict[str, Any] = {
        "sample_size": 8,
        "block_out_channels": (8, 16),
        "layers_per_block": 1,
        "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
        "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
        "attention_head_dim": 4,
        "norm_num_groups": 4,
        "cross_attention_dim": cross_attention_dim,
        **config,
    }
    return shaken(UNet2DConditionModel(**given), 0.05)


def tiny_vae(**config: Any) -> Any:
    """Stable Diffusion's autoencoder, twice as fine as its latents."""
    from diffusers import AutoencoderKL

    make: Any = AutoencoderKL  # its signature declares tuples of length 1
    vae = make(
        block_out_channels=(8, 16),
        down_block_types=("DownEncoderBlock2D", "DownEncoderBlock2D"),
        up_block_types=("UpDecoderBlock2D", "UpDecoderBlock2D"),
        latent_channels=4,
        norm_num_groups=4,
        sample_size=16,
        scaling_factor=0.18215,
        **config,
    )
    return shaken(vae, 0.05)


def tiny_rae(kind: str) -> Any:
    """A representation autoencoder of a kind of encoder, with latents that are normalised."""
    from diffusers import AutoencoderRAE

    from steerlens.decoders.rae.siglip import expected_tower

    grid, width = 2, 64  # every encoder is built with heads of 64
    # Position embeddings of MAE are those of pictures of 224 x 224, those of SigLIP 2 of 256 x 256.
    patch = {"mae": 112, "siglip2": 128}.get(kind, 8)
    generator = torch.Generator().manual_seed(7)
    with expected_tower():
        model = AutoencoderRAE(
            encoder_type=kind,
            encoder_hidden_size=width,
            encoder_patch_size=patch,
            encoder_num_hidden_layers=2,
            decoder_hidden_size=16,
            decoder_num_hidden_layers=1,
            decoder_num_attention_heads=2,
            decoder_intermediate_size=32,
            patch_size=8,
            encoder_input_size=patch * grid,
            latents_mean=torch.randn(1, width, grid, grid, generator=generator),
            latents_std=torch.rand(1, width, grid, grid, generator=generator) + 0.5,
            scaling_factor=0.7,
        )
    with torch.no_grad():
        model.decoder.decoder_pred.weight.mul_(4)  # some pixels leave [0,1], as in real autoencoders
    return shaken(model, 0.2)


def shaken(model: Any, size: float) -> Any:
    """Adds noise to every vector (biases, norms), which start at 0 or 1 and would hide a missing part."""
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 1:
                parameter.add_(torch.randn_like(parameter) * size)
    return model.eval()
