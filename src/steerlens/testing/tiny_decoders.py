"""Tiny pipelines with random weights, of diffusers' real classes: the families of decoders beside Kandinsky 2.2.

Each is an instance of the family's own pipeline class, so that a decoder can be compared with `pipe(...)`, and is saved
in the layout of the hub.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, cast

import torch

from steerlens.storage import quiet_libraries
from steerlens.testing.tiny import tiny_movq, tiny_processor, tiny_vision_model
from steerlens.testing.tiny_adapters import adapter_weights, save_adapter
from steerlens.testing.tiny_families import save_tiny_processor, tiny_model
from steerlens.testing.tiny_parts import (
    EMBEDDING_SIZE,
    TEXT_WIDTH,
    shaken,
    tiny_rae,
    tiny_sd_unet,
    tiny_text_encoder,
    tiny_tokenizer,
    tiny_vae,
)
from steerlens.testing.tiny_vit_mae import save_tiny_vit_mae

_SD_SCHEDULE: Mapping[str, Any] = {
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "steps_offset": 1,
}


def tiny_pipeline(family: str, seed: int = 0) -> Any:
    """Builds a pipeline of a family, with random weights.

    Args:
        family: `kandinsky-2.1`, `stable-unclip-2.1`, `karlo`, `sd-image-variations`, `ip-adapter-sd15`,
            `ip-adapter-plus-sd15`, `ip-adapter-sdxl`, `flux-redux`, or `rae-dinov2`, `rae-siglip2`, `rae-mae` (an
            autoencoder, no pipeline).
        seed: seed of the weights.
    """
    build = _BUILDERS.get(family)
    with torch.random.fork_rng(devices=[]), quiet_libraries():
        torch.manual_seed(seed)
        pipeline = tiny_rae(family.removeprefix("rae-")) if build is None else build()
    if hasattr(pipeline, "set_progress_bar_config"):
        pipeline.set_progress_bar_config(disable=True)
    return pipeline


def save_tiny_decoder(family: str, folder: Path | str, seed: int = 0) -> Path:
    """Saves a tiny pipeline in the layout of the hub, with image encoder and adapter, and returns the folder."""
    if family == "vit-mae":
        return save_tiny_vit_mae(folder, seed=seed)
    folder, base = Path(folder), _BASES.get(family)
    with quiet_libraries():
        # As on the hub, the pipeline is saved without the adapter, and the adapter beside it.
        pipeline = tiny_pipeline(family, seed) if base is None else base(seed)
        if base is not None:
            save_adapter(adapter_weights(family, pipeline), folder / "ip-adapter_tiny.safetensors")
        pipeline.save_pretrained(folder, safe_serialization=True)
        if family == "flux-redux":
            tiny_model("SiglipVisionModel").save_pretrained(folder / "image_encoder")
            (folder / "feature_extractor").mkdir()
            save_tiny_processor("SiglipVisionModel", folder / "feature_extractor")
            tiny_redux().save_pretrained(folder / "image_embedder", safe_serialization=True)
    return folder


def _flux() -> Any:
    from diffusers import FlowMatchEulerDiscreteScheduler, FluxPipeline, FluxTransformer2DModel

    transformer = FluxTransformer2DModel(
        in_channels=16,
        num_layers=1,
        num_single_layers=1,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=TEXT_WIDTH,
        pooled_projection_dim=8,
        guidance_embeds=True,
        axes_dims_rope=(4, 4, 8),
    )
    return FluxPipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True, shift=3.0),
        vae=tiny_vae(shift_factor=0.1),
        text_encoder=cast(Any, None),
        tokenizer=cast(Any, None),
        text_encoder_2=cast(Any, None),
        tokenizer_2=cast(Any, None),
        transformer=shaken(transformer, 0.05),
    )


def tiny_redux() -> Any:
    """Builds Redux for the tiny `flux-redux`, with random weights."""
    from diffusers.pipelines.flux.modeling_flux import ReduxImageEncoder

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        return shaken(ReduxImageEncoder(32, TEXT_WIDTH), 0.2)


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
    return KandinskyPipeline(text.eval(), tokenizer, shaken(unet, 0.05), scheduler, movq)


def _stable_unclip() -> Any:
    from diffusers import DDPMScheduler, PNDMScheduler, StableUnCLIPImg2ImgPipeline
    from diffusers.pipelines.stable_diffusion.stable_unclip_image_normalizer import StableUnCLIPImageNormalizer

    normalizer = shaken(StableUnCLIPImageNormalizer(embedding_dim=EMBEDDING_SIZE), 0.0)
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
        return shaken(
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
        decoder=shaken(decoder, 0.05),
        text_encoder=tiny_text_encoder(projection=EMBEDDING_SIZE, width=EMBEDDING_SIZE),
        tokenizer=tiny_tokenizer(),
        text_proj=shaken(text_proj, 0.2),
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
    def built(seed: int) -> Any:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return build()

    return built


def _with_adapter(family: str, build: Callable[[], Any]) -> Callable[[], Any]:
    def built() -> Any:
        pipeline = build()
        pipeline.unet._load_ip_adapter_weights([adapter_weights(family, pipeline)], low_cpu_mem_usage=False)
        return pipeline

    return built


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
    "flux-redux": _flux,
    "ip-adapter-sd15": _with_adapter("ip-adapter-sd15", _stable_diffusion),
    "ip-adapter-plus-sd15": _with_adapter("ip-adapter-plus-sd15", _stable_diffusion),
    "ip-adapter-sdxl": _with_adapter("ip-adapter-sdxl", _stable_diffusion_xl),
}
