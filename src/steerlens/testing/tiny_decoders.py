"""Tiny pipelines with random weights, of diffusers' real classes: the families of decoders beside Kandinsky 2.2.

Each is what the family's own pipeline class takes, so that a decoder can be held against `pipe(...)`, and is saved as
the hub holds it.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, cast

import torch
from torch import Tensor, nn

from steerlens.testing.tiny import tiny_movq, tiny_processor, tiny_vision_model
from steerlens.zoo.weights import quiet_libraries

EMBEDDING_SIZE, WIDTH, TEXT_WIDTH = 12, 16, 16
"""E and D of the tiny vision tower, and the width of the tiny text encoders."""

_SD_SCHEDULE: Mapping[str, Any] = {
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "steps_offset": 1,
}


def tiny_pipeline(family: str, seed: int = 0) -> Any:
    """A pipeline of a family, with random weights.

    Args:
        family: `kandinsky-2.1`, `stable-unclip-2.1`, `karlo`, `sd-image-variations`, `ip-adapter-sd15`,
            `ip-adapter-plus-sd15`, `ip-adapter-sdxl`, `rae-dinov2` or `rae-mae` (an autoencoder, no pipeline).
        seed: of the weights.
    """
    build = _BUILDERS.get(family)
    with torch.random.fork_rng(devices=[]), quiet_libraries():
        torch.manual_seed(seed)
        made = tiny_rae(family.removeprefix("rae-")) if build is None else build()
    if hasattr(made, "set_progress_bar_config"):
        made.set_progress_bar_config(disable=True)
    return made


def save_tiny_decoder(family: str, folder: Path | str, seed: int = 0) -> Path:
    """Saves a tiny pipeline as the hub holds it, image encoder and adapter beside it, and returns the folder."""
    folder, base = Path(folder), _BASES.get(family)
    with quiet_libraries():
        # What is saved is the pipeline before an adapter is put into it, and the adapter beside it, as on the hub.
        made = tiny_pipeline(family, seed) if base is None else base(seed)
        if base is not None:
            save_adapter(adapter_weights(family, made), folder / "ip-adapter_tiny.safetensors")
        made.save_pretrained(folder, safe_serialization=True)
    return folder


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
    return _shaken(kind(config), 0.2)


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
    return _shaken(UNet2DConditionModel(**given), 0.05)


def tiny_vae() -> Any:
    """Stable Diffusion's autoencoder, twice as fine as its latents."""
    from diffusers import AutoencoderKL

    make: Any = AutoencoderKL  # its signature declares tuples of one
    vae = make(
        block_out_channels=(8, 16),
        down_block_types=("DownEncoderBlock2D", "DownEncoderBlock2D"),
        up_block_types=("UpDecoderBlock2D", "UpDecoderBlock2D"),
        latent_channels=4,
        norm_num_groups=4,
        sample_size=16,
        scaling_factor=0.18215,
    )
    return _shaken(vae, 0.05)


def tiny_rae(kind: str) -> Any:
    """A representation autoencoder of a kind of encoder, with latents that are normalised.

    Raises:
        AttributeError: for `siglip2`, where diffusers looks for a part that transformers no longer has.
    """
    from diffusers import AutoencoderRAE

    grid, width = 2, 64  # every encoder is built with heads of 64
    patch = 112 if kind == "mae" else 8  # its position embeddings are those of pictures of 224 x 224
    generator = torch.Generator().manual_seed(7)
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
        model.decoder.decoder_pred.weight.mul_(4)  # some pixels leave [0,1], as those of the real ones do
    return _shaken(model, 0.2)


def adapter_weights(family: str, pipeline: Any, seed: int = 0) -> dict[str, dict[str, Tensor]]:
    """Random weights of an IP-Adapter for a pipeline's UNet, named as the hub's files name them."""
    from diffusers.models.embeddings import ImageProjection, IPAdapterPlusImageProjection

    unet = pipeline.unet
    size = unet.config.cross_attention_dim
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed + 1)
        if family == "ip-adapter-plus-sd15":
            plus = IPAdapterPlusImageProjection(
                embed_dims=WIDTH, output_dims=size, hidden_dims=16, heads=1, num_queries=4
            )
            image = _plus_names(_shaken(plus, 0.2).state_dict())
        else:
            plain = ImageProjection(image_embed_dim=EMBEDDING_SIZE, cross_attention_dim=size, num_image_text_embeds=4)
            image = {key.replace("image_embeds", "proj"): value for key, value in plain.state_dict().items()}
        attention: dict[str, Tensor] = {}
        crossing = [name for name in unet.attn_processors if not name.endswith("attn1.processor")]
        for index, name in enumerate(crossing):
            width = _hidden_size(name, unet.config.block_out_channels)
            for part in ("to_k_ip", "to_v_ip"):
                attention[f"{2 * index + 1}.{part}.weight"] = nn.Linear(size, width, bias=False).weight.detach()
    return {"image_proj": dict(image), "ip_adapter": attention}


def save_adapter(weights: Mapping[str, Mapping[str, Tensor]], file: Path) -> None:
    """Saves an adapter's weights in one file, as the hub's."""
    from safetensors.torch import save_file

    file.parent.mkdir(parents=True, exist_ok=True)
    flat = {f"{group}.{key}": value.contiguous() for group, held in weights.items() for key, value in held.items()}
    save_file(flat, file)


_LENGTH = 8
"""Tokens of a tiny text."""


def _vocabulary() -> dict[str, int]:
    letters = [chr(code) for code in range(ord("!"), ord("~") + 1)]
    tokens = [*letters, *(f"{letter}</w>" for letter in letters), "ap", "<|startoftext|>", "<|endoftext|>"]
    return {token: index for index, token in enumerate(tokens)}


def _vision() -> dict[str, Any]:
    return {"image_encoder": tiny_vision_model(), "feature_extractor": tiny_processor()}


def _kandinsky21() -> Any:
    from diffusers import DDIMScheduler, KandinskyPipeline, UNet2DConditionModel
    from diffusers.pipelines.kandinsky.text_encoder import MCLIPConfig, MultilingualCLIP
    from transformers import XLMRobertaTokenizer

    specials = ["<s>", "<pad>", "</s>", "<unk>"]
    pieces = [*((piece, 0.0) for piece in specials), *((f"▁{letter}", -2.0) for letter in "abc"), ("<mask>", 0.0)]
    tokenizer = XLMRobertaTokenizer(vocab=cast(Any, pieces))
    config: Any = MCLIPConfig(
        transformerDimSize=TEXT_WIDTH,
        imageDimSize=EMBEDDING_SIZE,
        vocab_size=len(pieces),
        hidden_size=TEXT_WIDTH,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=90,
    )
    text: Any = MultilingualCLIP(config)
    unet = UNet2DConditionModel(
        sample_size=8,
        in_channels=4,
        out_channels=8,
        block_out_channels=(8, 16),
        layers_per_block=1,
        down_block_types=("ResnetDownsampleBlock2D", "SimpleCrossAttnDownBlock2D"),
        mid_block_type="UNetMidBlock2DSimpleCrossAttn",
        up_block_types=("SimpleCrossAttnUpBlock2D", "ResnetUpsampleBlock2D"),
        attention_head_dim=4,
        cross_attention_dim=EMBEDDING_SIZE,
        encoder_hid_dim=TEXT_WIDTH,
        encoder_hid_dim_type="text_image_proj",
        addition_embed_type="text_image",
        addition_embed_type_num_heads=2,
        resnet_time_scale_shift="scale_shift",
        norm_num_groups=4,
    )
    scheduler = DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="linear",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
        thresholding=False,
    )
    movq = tiny_movq()
    with torch.no_grad():
        movq.decoder.conv_out.weight.mul_(0.2)  # pictures of random weights saturate
    return KandinskyPipeline(text.eval(), tokenizer, _shaken(unet, 0.05), scheduler, movq)


def _stable_unclip() -> Any:
    from diffusers import DDPMScheduler, PNDMScheduler, StableUnCLIPImg2ImgPipeline
    from diffusers.pipelines.stable_diffusion.stable_unclip_image_normalizer import StableUnCLIPImageNormalizer

    normalizer = _shaken(StableUnCLIPImageNormalizer(embedding_dim=EMBEDDING_SIZE), 0.0)
    with torch.no_grad():
        normalizer.mean.normal_()
        normalizer.std.uniform_(0.5, 1.5)
    return StableUnCLIPImg2ImgPipeline(
        **_vision(),
        image_normalizer=normalizer,
        image_noising_scheduler=cast(Any, DDPMScheduler(beta_schedule="squaredcos_cap_v2")),
        tokenizer=tiny_tokenizer(),
        text_encoder=tiny_text_encoder(),
        unet=tiny_sd_unet(class_embed_type="projection", projection_class_embeddings_input_dim=2 * EMBEDDING_SIZE),
        scheduler=cast(Any, PNDMScheduler(**_SD_SCHEDULE, skip_prk_steps=True, prediction_type="v_prediction")),
        vae=tiny_vae(),
    )


def _karlo() -> Any:
    from diffusers import UnCLIPImageVariationPipeline, UnCLIPScheduler, UNet2DConditionModel, UNet2DModel
    from diffusers.pipelines.deprecated.unclip.text_proj import UnCLIPTextProjModel

    channels, size = (8, 16), 20
    decoder = UNet2DConditionModel(
        sample_size=8,
        in_channels=3,
        out_channels=6,
        block_out_channels=channels,
        layers_per_block=1,
        down_block_types=("ResnetDownsampleBlock2D", "SimpleCrossAttnDownBlock2D"),
        mid_block_type="UNetMidBlock2DSimpleCrossAttn",
        up_block_types=("SimpleCrossAttnUpBlock2D", "ResnetUpsampleBlock2D"),
        attention_head_dim=4,
        cross_attention_dim=size,
        resnet_time_scale_shift="scale_shift",
        class_embed_type="identity",
        norm_num_groups=4,
    )

    def super_resolution() -> Any:
        return _shaken(
            UNet2DModel(
                sample_size=16,
                in_channels=6,
                out_channels=3,
                block_out_channels=channels,
                layers_per_block=1,
                down_block_types=("ResnetDownsampleBlock2D", "ResnetDownsampleBlock2D"),
                up_block_types=("ResnetUpsampleBlock2D", "ResnetUpsampleBlock2D"),
                norm_num_groups=4,
                attention_head_dim=4,
            ),
            0.05,
        )

    text_proj = UnCLIPTextProjModel(
        clip_embeddings_dim=EMBEDDING_SIZE, time_embed_dim=4 * channels[0], cross_attention_dim=size
    )
    return UnCLIPImageVariationPipeline(
        **_vision(),
        decoder=_shaken(decoder, 0.05),
        text_encoder=tiny_text_encoder(projection=EMBEDDING_SIZE, width=EMBEDDING_SIZE),
        tokenizer=tiny_tokenizer(),
        text_proj=_shaken(text_proj, 0.2),
        super_res_first=super_resolution(),
        super_res_last=super_resolution(),
        decoder_scheduler=UnCLIPScheduler(variance_type="learned_range"),
        super_res_scheduler=UnCLIPScheduler(variance_type="fixed_small_log"),
    )


def _sd_image_variations() -> Any:
    from diffusers import PNDMScheduler, StableDiffusionImageVariationPipeline

    return StableDiffusionImageVariationPipeline(
        **_vision(),
        vae=tiny_vae(),
        unet=tiny_sd_unet(cross_attention_dim=EMBEDDING_SIZE),
        scheduler=cast(Any, PNDMScheduler(**_SD_SCHEDULE, skip_prk_steps=True)),
        safety_checker=cast(Any, None),
        requires_safety_checker=False,
    )


def _stable_diffusion() -> Any:
    from diffusers import PNDMScheduler, StableDiffusionPipeline

    return StableDiffusionPipeline(
        **_vision(),
        vae=tiny_vae(),
        text_encoder=tiny_text_encoder(),
        tokenizer=tiny_tokenizer(),
        unet=tiny_sd_unet(),
        scheduler=cast(Any, PNDMScheduler(**_SD_SCHEDULE, skip_prk_steps=True)),
        safety_checker=cast(Any, None),
        requires_safety_checker=False,
    )


def _stable_diffusion_xl() -> Any:
    from diffusers import EulerDiscreteScheduler, StableDiffusionXLPipeline

    return StableDiffusionXLPipeline(
        **_vision(),
        vae=tiny_vae(),
        text_encoder=tiny_text_encoder(),
        text_encoder_2=tiny_text_encoder(projection=10),
        tokenizer=tiny_tokenizer(),
        tokenizer_2=tiny_tokenizer(),
        unet=tiny_sd_unet(
            cross_attention_dim=2 * TEXT_WIDTH,
            addition_embed_type="text_time",
            addition_time_embed_dim=4,
            projection_class_embeddings_input_dim=10 + 6 * 4,
        ),
        scheduler=cast(Any, EulerDiscreteScheduler(**_SD_SCHEDULE, timestep_spacing="leading")),
        add_watermarker=False,
    )


def _seeded(build: Callable[[], Any]) -> Callable[[int], Any]:
    def made(seed: int) -> Any:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return build()

    return made


def _with_adapter(family: str, build: Callable[[], Any]) -> Callable[[], Any]:
    def made() -> Any:
        pipeline = build()
        pipeline.unet._load_ip_adapter_weights([adapter_weights(family, pipeline)], low_cpu_mem_usage=False)
        return pipeline

    return made


_BASES: Mapping[str, Callable[[int], Any]] = {
    "ip-adapter-sd15": _seeded(_stable_diffusion),
    "ip-adapter-plus-sd15": _seeded(_stable_diffusion),
    "ip-adapter-sdxl": _seeded(_stable_diffusion_xl),
}

_BUILDERS: Mapping[str, Callable[[], Any]] = {
    "kandinsky-2.1": _kandinsky21,
    "stable-unclip-2.1": _stable_unclip,
    "karlo": _karlo,
    "sd-image-variations": _sd_image_variations,
    "ip-adapter-sd15": _with_adapter("ip-adapter-sd15", _stable_diffusion),
    "ip-adapter-plus-sd15": _with_adapter("ip-adapter-plus-sd15", _stable_diffusion),
    "ip-adapter-sdxl": _with_adapter("ip-adapter-sdxl", _stable_diffusion_xl),
}


def _plus_names(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The names of the hub's files in place of diffusers' own."""
    named = {key: weights[key] for key in ("latents", "proj_in.weight", "proj_in.bias")}
    named |= {f"{part}.{kind}": weights[f"{part}.{kind}"] for part in ("proj_out", "norm_out") for kind in _KINDS}
    for index in range(sum(key.endswith("attn.to_q.weight") for key in weights)):
        old, new = f"layers.{index}.", f"layers.{index}."
        for norm, own in (("norm1", "ln0"), ("norm2", "ln1")):
            named |= {f"{new}0.{norm}.{kind}": weights[f"{old}{own}.{kind}"] for kind in _KINDS}
        named[f"{new}0.to_q.weight"] = weights[f"{old}attn.to_q.weight"]
        keys, values = (weights[f"{old}attn.{part}.weight"] for part in ("to_k", "to_v"))
        named[f"{new}0.to_kv.weight"] = torch.cat([keys, values])
        named[f"{new}0.to_out.weight"] = weights[f"{old}attn.to_out.0.weight"]
        named |= {f"{new}1.0.{kind}": weights[f"{old}ff.0.{kind}"] for kind in _KINDS}
        named[f"{new}1.1.weight"] = weights[f"{old}ff.1.net.0.proj.weight"]
        named[f"{new}1.3.weight"] = weights[f"{old}ff.1.net.2.weight"]
    return named


_KINDS = ("weight", "bias")


def _hidden_size(name: str, channels: tuple[int, ...]) -> int:
    if name.startswith("mid_block"):
        return channels[-1]
    block = int(name.split(".")[1])
    return (channels if name.startswith("down_blocks") else channels[::-1])[block]


def _shaken(model: Any, size: float) -> Any:
    """Noise on every vector (biases, norms), which start at 0 or 1 and would hide a part that was left out."""
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 1:
                parameter.add_(torch.randn_like(parameter) * size)
    return model.eval()
