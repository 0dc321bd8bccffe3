"""Tiny pairs with random weights, of the real classes and in the real folder layouts: built in well under a second.

They are untrained, so their pictures are noise; every shape, file name and code path is that of a real pair. Biases and
norms are random too, because zeros would hide a missing part.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, cast

import torch
from torch import nn
from transformers import (
    CLIPImageProcessorPil,
    CLIPTextConfig,
    CLIPTextModelWithProjection,
    CLIPVisionConfig,
    CLIPVisionModelWithProjection,
)

from steerlens.encoders.clip import CLIPEncoder
from steerlens.storage import quiet_libraries

SCHEDULERS: Mapping[str, Mapping[str, Any]] = {
    "kandinsky-2.2": {
        "beta_schedule": "linear",
        "clip_sample": False,
        "thresholding": False,
        "set_alpha_to_one": False,
        "steps_offset": 1,
        "prediction_type": "epsilon",
    },
    "resaved": {"beta_schedule": "linear", "clip_sample": True, "prediction_type": "epsilon"},
    "kandinsky-2.1": {
        "beta_schedule": "linear",
        "clip_sample": False,
        "thresholding": True,
        "dynamic_thresholding_ratio": 0.995,
        "sample_max_value": 2.0,
        "variance_type": "learned_range",
        "prediction_type": "epsilon",
    },
    "emoji": {
        "beta_schedule": "scaled_linear",
        "clip_sample": False,
        "variance_type": "fixed_small",
        "prediction_type": "v_prediction",
    },
}
"""Scheduler configs of Kandinsky folders; all have 1000 steps and betas from 0.00085 to 0.012."""

Layout = Literal["pair", "hub"]


def tiny_vision_model(
    seed: int = 0,
    *,
    layers: int = 3,
    heads: int = 2,
    width: int = 16,
    embedding_size: int = 12,
    image_size: int = 16,
    patch_size: int = 8,
    dtype: torch.dtype = torch.float32,
) -> CLIPVisionModelWithProjection:
    """A CLIP vision tower with random weights, biases and norms included."""
    config = CLIPVisionConfig(
        hidden_size=width,
        intermediate_size=2 * width,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        image_size=image_size,
        patch_size=patch_size,
        projection_dim=embedding_size,
        hidden_act="gelu",
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = CLIPVisionModelWithProjection(config)
        _shake(model, 0.2)
    return cast(Any, model).to(dtype).eval()


def tiny_processor(image_size: int = 16) -> CLIPImageProcessorPil:
    """The image processor of a tiny vision tower: resize, crop, mean and standard deviation 0.5."""
    return CLIPImageProcessorPil(
        size={"shortest_edge": image_size},
        crop_size={"height": image_size, "width": image_size},
        image_mean=[0.5, 0.5, 0.5],
        image_std=[0.5, 0.5, 0.5],
    )


def tiny_encoder(
    seed: int = 0,
    *,
    layers: int = 3,
    heads: int = 2,
    width: int = 16,
    embedding_size: int = 12,
    image_size: int = 16,
    patch_size: int = 8,
    dtype: torch.dtype = torch.float32,
) -> CLIPEncoder:
    """An encoder with random weights.

    Args:
        seed: seed of the weights.
        layers: L.
        heads: H.
        width: D, a multiple of H.
        embedding_size: E.
        image_size: height and width of a picture, in pixels.
        patch_size: height and width of a patch, in pixels.
        dtype: precision of the weights.
    """
    model = tiny_vision_model(
        seed,
        layers=layers,
        heads=heads,
        width=width,
        embedding_size=embedding_size,
        image_size=image_size,
        patch_size=patch_size,
        dtype=dtype,
    )
    return CLIPEncoder(model, tiny_processor(image_size), name=f"tiny-{seed}")


def tiny_unet(seed: int = 0, *, embedding_size: int = 12, sample_size: int = 8) -> Any:
    """A `UNet2DConditionModel` of Kandinsky 2.2's block types, conditioned on image embeddings; predicts 8 channels."""
    from diffusers import UNet2DConditionModel

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        unet = UNet2DConditionModel(
            sample_size=sample_size,
            in_channels=4,
            out_channels=8,
            block_out_channels=(8, 16),
            layers_per_block=1,
            down_block_types=("ResnetDownsampleBlock2D", "SimpleCrossAttnDownBlock2D"),
            mid_block_type="UNetMidBlock2DSimpleCrossAttn",
            up_block_types=("SimpleCrossAttnUpBlock2D", "ResnetUpsampleBlock2D"),
            attention_head_dim=8,
            cross_attention_dim=16,
            encoder_hid_dim=embedding_size,
            encoder_hid_dim_type="image_proj",
            addition_embed_type="image",
            resnet_time_scale_shift="scale_shift",
            norm_num_groups=4,
        )
        _shake(unet, 0.05)
    return unet.eval()


def tiny_movq(seed: int = 0, *, sample_size: int = 16) -> Any:
    """A `VQModel` with spatial norms, twice as fine as its latents."""
    from diffusers import VQModel

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        movq = VQModel(
            sample_size=sample_size,
            # Spatial norms always have 32 groups, so no channel count can be smaller.
            block_out_channels=(32, 32),
            down_block_types=("DownEncoderBlock2D", "AttnDownEncoderBlock2D"),
            up_block_types=("AttnUpDecoderBlock2D", "UpDecoderBlock2D"),
            layers_per_block=1,
            latent_channels=4,
            num_vq_embeddings=8,
            vq_embed_dim=4,
            norm_type="spatial",
        )
        _shake(movq, 0.05)
    return movq.eval()


def tiny_text_model(seed: int = 0, *, embedding_size: int = 12) -> CLIPTextModelWithProjection:
    """A CLIP text tower for the tiny tokenizer, with random weights."""
    size = len(_token_files()[0])
    config = CLIPTextConfig(
        vocab_size=size,
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=77,
        projection_dim=embedding_size,
        bos_token_id=size - 2,
        eos_token_id=size - 1,
        pad_token_id=size - 1,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = CLIPTextModelWithProjection(config)
        _shake(model, 0.2)
    return cast(Any, model).eval()


def save_tiny_pair(
    folder: Path | str,
    *,
    seed: int = 0,
    layout: Layout = "pair",
    scheduler: Mapping[str, Any] | str = "kandinsky-2.2",
    embedding_size: int = 12,
    decoder_embedding_size: int | None = None,
    layers: int = 3,
    heads: int = 2,
    width: int = 16,
    vocabulary: bool = True,
) -> Path:
    """Saves a random encoder and decoder in the layout of a real pair, and returns the folder.

    Args:
        folder: created if needed.
        seed: seed of all weights.
        layout: `pair` is one folder (`image_encoder`, `image_processor`, `decoder`, a vocabulary); `hub` holds
            `kandinsky-2-2-prior` and `kandinsky-2-2-decoder`, as the Hugging Face hub does, text encoder included.
        scheduler: a name in `SCHEDULERS`, or the entries of a config.
        embedding_size: E of the encoder.
        decoder_embedding_size: E that the decoder reads; by default the encoder's.
        layers: L of the encoder.
        heads: H of the encoder.
        width: D of the encoder.
        vocabulary: whether a `pair` gets a vocabulary of five names.
    """
    folder = Path(folder)
    first = folder if layout == "pair" else folder / "kandinsky-2-2-prior"
    decoder = folder / ("decoder" if layout == "pair" else "kandinsky-2-2-decoder")
    model = tiny_vision_model(seed, layers=layers, heads=heads, width=width, embedding_size=embedding_size)
    with quiet_libraries():
        model.save_pretrained(first / "image_encoder")
    # Written by hand: files on the hub name the processor without the backend that transformers now appends.
    _write_json(first / "image_processor" / "preprocessor_config.json", _PROCESSOR)
    size = embedding_size if decoder_embedding_size is None else decoder_embedding_size
    with quiet_libraries():
        tiny_unet(seed, embedding_size=size).save_pretrained(decoder / "unet")
        tiny_movq(seed).save_pretrained(decoder / "movq")
    entries = SCHEDULERS[scheduler] if isinstance(scheduler, str) else scheduler
    _write_json(decoder / "scheduler" / "scheduler_config.json", {**_SCHEDULE, **entries})
    _write_json(decoder / "model_index.json", _DECODER_INDEX)
    if layout == "hub":
        _write_json(first / "model_index.json", _PRIOR_INDEX)
        with quiet_libraries():
            tiny_text_model(seed, embedding_size=embedding_size).save_pretrained(first / "text_encoder")
        _save_tokenizer(first / "tokenizer")
    elif vocabulary:
        _save_vocabulary(folder, seed, embedding_size)
    return folder


_PROCESSOR = {
    "crop_size": {"height": 16, "width": 16},
    "do_center_crop": True,
    "do_convert_rgb": True,
    "do_normalize": True,
    "do_rescale": True,
    "do_resize": True,
    "image_mean": [0.48145466, 0.4578275, 0.40821073],
    "image_processor_type": "CLIPImageProcessor",
    "image_std": [0.26862954, 0.26130258, 0.27577711],
    "resample": 3,
    "rescale_factor": 1 / 255,
    "size": {"shortest_edge": 16},
}

_SCHEDULE = {
    "_class_name": "DDPMScheduler",
    "_diffusers_version": "0.42.1",
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "num_train_timesteps": 1000,
}

_DECODER_INDEX = {
    "_class_name": "KandinskyV22Pipeline",
    "_diffusers_version": "0.42.1",
    "movq": ["diffusers", "VQModel"],
    "scheduler": ["diffusers", "DDPMScheduler"],
    "unet": ["diffusers", "UNet2DConditionModel"],
}

_PRIOR_INDEX = {
    "_class_name": "KandinskyV22PriorPipeline",
    "_diffusers_version": "0.42.1",
    "image_encoder": ["transformers", "CLIPVisionModelWithProjection"],
    "image_processor": ["transformers", "CLIPImageProcessor"],
    "text_encoder": ["transformers", "CLIPTextModelWithProjection"],
    "tokenizer": ["transformers", "CLIPTokenizer"],
}

_NAMES = ("red apple", "green apple", "grinning cat", "sailing boat", "sun")


def _shake(model: nn.Module, size: float) -> None:
    """Adds noise to every vector of the model (biases, norms, the class token), which start at 0 or 1."""
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 1:
                parameter.add_(torch.randn_like(parameter) * size)


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def _token_files() -> tuple[dict[str, int], list[str]]:
    letters = [chr(code) for code in range(ord("!"), ord("~") + 1)]
    merges = ["a p", "r e", "c a"]
    tokens = [*letters, *(f"{letter}</w>" for letter in letters), *(merge.replace(" ", "") for merge in merges)]
    tokens += ["<|startoftext|>", "<|endoftext|>"]
    return {token: index for index, token in enumerate(tokens)}, merges


def _save_tokenizer(folder: Path) -> None:
    vocabulary, merges = _token_files()
    start, end = "<|startoftext|>", "<|endoftext|>"
    _write_json(folder / "vocab.json", vocabulary)
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *merges]) + "\n", encoding="utf-8")
    specials = {"bos_token": start, "eos_token": end, "pad_token": end, "unk_token": end}
    _write_json(folder / "special_tokens_map.json", specials)
    _write_json(
        folder / "tokenizer_config.json",
        {**specials, "model_max_length": 77, "tokenizer_class": "CLIPTokenizer", "do_lower_case": True},
    )


def _save_vocabulary(folder: Path, seed: int, embedding_size: int) -> None:
    from safetensors.torch import save_file

    generator = torch.Generator().manual_seed(seed)
    embeds = torch.randn(len(_NAMES), embedding_size, generator=generator)
    save_file({"text_embeds": embeds, "text_mean": embeds.mean(dim=0)}, folder / "vocabulary.safetensors")
    (folder / "vocabulary.json").write_text(
        json.dumps([{"name": name, "category": "Tiny", "unified": ""} for name in _NAMES], indent=0) + "\n",
        encoding="utf-8",
    )
