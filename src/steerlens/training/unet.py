"""Stage 3: a small unCLIP UNet that denoises latents, conditioned on the image embedding alone.

v-prediction on the scaled-linear schedule; one embedding in ten is replaced by the unconditional one, for guidance.
The re-encoded picture is never part of the loss: a decoder trained through the encoder would learn pictures that
satisfy the encoder instead of pictures that show the content of an embedding.

References:
    Ramesh et al., Hierarchical text-conditional image generation with CLIP latents, 2022, arXiv 2204.06125.
    Razzhigaev et al., Kandinsky, 2023, arXiv 2310.03502.
    Salimans and Ho, Progressive distillation for fast sampling (v-prediction), 2022, arXiv 2202.00512.
    Ho and Salimans, Classifier-free diffusion guidance, 2022, arXiv 2207.12598.
    Lu et al., DPM-Solver++, 2022, arXiv 2211.01095.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from steerlens.errors import UsageError
from steerlens.progress import Progress
from steerlens.training.autoencoder import AutoencoderSettings, decode_latents, load_autoencoder
from steerlens.training.cache import SceneCache, load_cache
from steerlens.training.checkpoint import load_checkpoint, read_weights
from steerlens.training.embedder import Embedder
from steerlens.training.grid import save_pairs
from steerlens.training.stage import Budget, Optimisation, autocast, run_stage, workers_of_group


@dataclass(frozen=True)
class UnetSettings:
    """Size and training of the UNet.

    Attributes:
        channels: channels of the three resolutions (16, 8, 4).
        layers: residual layers per block.
        batch: latents per step, over all workers.
        drop: share of embeddings replaced by the unconditional one.
        optimisation: settings of the optimizers.
    """

    channels: tuple[int, int, int] = (64, 128, 192)
    layers: int = 1
    batch: int = 96
    drop: float = 0.1
    optimisation: Optimisation = field(
        default_factory=lambda: Optimisation(rate=1e-3, weight_decay=0.01, average=0.998)
    )


def make_unet(settings: UnetSettings, projection: int) -> nn.Module:
    """Builds a `UNet2DConditionModel` with random weights, in the classes of Kandinsky 2.2."""
    from diffusers import UNet2DConditionModel

    unet: Any = UNet2DConditionModel(
        sample_size=16,
        in_channels=4,
        out_channels=8,
        down_block_types=("ResnetDownsampleBlock2D", "SimpleCrossAttnDownBlock2D", "SimpleCrossAttnDownBlock2D"),
        mid_block_type="UNetMidBlock2DSimpleCrossAttn",
        up_block_types=("SimpleCrossAttnUpBlock2D", "SimpleCrossAttnUpBlock2D", "ResnetUpsampleBlock2D"),
        block_out_channels=settings.channels,
        layers_per_block=settings.layers,
        attention_head_dim=32,
        cross_attention_dim=settings.channels[-1],
        encoder_hid_dim=projection,
        encoder_hid_dim_type="image_proj",
        addition_embed_type="image",
        resnet_time_scale_shift="scale_shift",
    )
    with torch.no_grad():  # the second half is the variance, which the pipeline splits off; it remains zero
        unet.conv_out.weight[4:].zero_()
        unet.conv_out.bias[4:].zero_()
    return unet


def make_scheduler() -> Any:
    """Makes the `DDPMScheduler` that is saved with the pair."""
    from diffusers import DDPMScheduler

    return DDPMScheduler(
        num_train_timesteps=1000,
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        prediction_type="v_prediction",
        clip_sample=False,
    )


def predict(unet: Any, noisy: Tensor, time: Tensor, embeds: Tensor) -> Tensor:
    """Predicts the velocity, float (B,4,16,16)."""
    output = unet(noisy, time, encoder_hidden_states=None, added_cond_kwargs={"image_embeds": embeds}).sample
    return output[:, :4].float()


def sample_latents(
    unet: Any, embeds: Tensor, zero: Tensor, *, steps: int = 15, guidance: float = 3.0, seed: int = 0
) -> Tensor:
    """Samples latents, float (B,4,16,16), for embeddings (B,E) with DPM-Solver++; every item has its own generator."""
    from diffusers import DPMSolverMultistepScheduler

    scheduler: Any = DPMSolverMultistepScheduler.from_config(make_scheduler().config)
    scheduler.set_timesteps(steps)
    device = embeds.device
    generators = [torch.Generator().manual_seed(seed + item) for item in range(len(embeds))]
    latents = torch.stack([torch.randn(4, 16, 16, generator=generator) for generator in generators]).to(device)
    both = torch.cat([zero.to(device).expand_as(embeds), embeds])
    with torch.inference_mode(), autocast(device):
        for time in scheduler.timesteps:
            without, with_ = predict(unet, torch.cat([latents, latents]), time.to(device), both).chunk(2)
            latents = scheduler.step(without + guidance * (with_ - without), time, latents).prev_sample.float()
    return latents.clone()


def train_unet(
    folder: Path,
    projection: int,
    budget: Budget,
    settings: UnetSettings,
    open_embedder: Callable[[], Embedder],
    autoencoder: AutoencoderSettings,
    device: str = "cpu",
    seed: int = 0,
    resume: bool = False,
    measure_seconds: float = 420.0,
    init: Path | None = None,
) -> Iterator[Progress]:
    """Trains the UNet on the cached scenes of `folder`; its files are `unet.*`. See `run_stage`.

    With `init`, the weights of a UNet of the same architecture, training starts from them; see `start_unet`.

    In a process group every worker calls this with the same arguments and takes its share of each batch.
    `open_embedder` opens the embedder that re-encodes decoded pictures for the held-out metrics.
    """
    from diffusers.models.attention_processor import AttnAddedKVProcessor

    where, (rank, workers) = torch.device(device), workers_of_group()
    torch.manual_seed(seed)
    cache = load_cache(folder)
    unet: Any = make_unet(settings, projection).to(where)
    if where.type == "cpu":  # the fused attention's backward pass is slow: a step would take a fifth longer
        unet.set_attn_processor(AttnAddedKVProcessor())
    if init is not None:
        start_unet(unet, init)
    embeds, latents, zero = cache.embeds.to(where), cache.latents.to(where), cache.zero.to(where)
    alphas = make_scheduler().alphas_cumprod.to(where)
    batch = max(1, settings.batch // workers)

    def step(step: int, share: float, generator: torch.Generator) -> dict[str, Tensor]:
        rows = torch.randint(len(embeds), (batch,), generator=generator).to(where)
        # stratified times: each batch covers the whole schedule, which makes its gradient less noisy
        spread = (torch.arange(batch) + torch.rand(batch, generator=generator)) / batch
        time = (spread * len(alphas)).long().clamp_max(len(alphas) - 1).to(where)
        noise = torch.randn(batch, 4, 16, 16, generator=generator).to(where)
        dropped = (torch.rand(batch, generator=generator) < settings.drop).to(where)[:, None]
        clean, condition = latents[rows].float(), embeds[rows].float()
        signal, level = alphas[time].sqrt()[:, None, None, None], (1 - alphas[time]).sqrt()[:, None, None, None]
        with autocast(where):
            predicted = predict(unet, signal * clean + level * noise, time, torch.where(dropped, zero, condition))
        return {"loss": functional.mse_loss(predicted, signal * noise - level * clean)}

    measured = 0

    def measure() -> Mapping[str, float]:
        nonlocal measured
        measured += 1
        return unet_metrics(unet, cache, folder, open_embedder(), autoencoder, f"unet-{measured:03d}.png")

    yield from run_stage(
        "unet",
        unet,
        step,
        folder,
        budget,
        settings.optimisation,
        seed=seed + rank,
        resume=resume,
        measure=measure,
        measure_seconds=measure_seconds,
    )


def unet_metrics(
    unet: Any, cache: SceneCache, folder: Path, embedder: Embedder, autoencoder: AutoencoderSettings, name: str
) -> dict[str, float]:
    """Decodes held-out scenes, saves a grid, and re-encodes: mean cosine, plain and centred, and retrieval.

    The centred cosine subtracts the mean embedding of the cached scenes from both sides.
    """
    device = next(unet.parameters()).device
    embeds = cache.held_embeds[:64].to(device)
    movq = load_autoencoder(folder, autoencoder).to(device)
    decoded = decode_latents(movq, sample_latents(unet, embeds, cache.zero))
    save_pairs(folder / "grids" / name, cache.held_pictures[:64].float() / 255, decoded.cpu())
    again, mean = embedder.embed(decoded).to(device), cache.embeds[:4096].float().mean(dim=0).to(device)
    cosine = functional.cosine_similarity(again, embeds, dim=-1)
    table = functional.normalize(again - mean, dim=-1) @ functional.normalize(embeds - mean, dim=-1).T
    hits = table.argmax(dim=1) == torch.arange(len(table), device=device)
    return {
        "cosine": float(cosine.mean()),
        "centred": float(table.diagonal().mean()),
        "retrieval64": float(hits.float().mean()),
    }


CONDITION_LAYERS = ("encoder_hid_proj.image_embeds.", "add_embedding.image_proj.")
"""Layers that read the embedding, the only layers whose size depends on the encoder."""


def start_unet(unet: nn.Module, weights: Path) -> None:
    """Loads the weights of another UNet; layers that read an embedding of another size keep their random weights.

    Raises:
        UsageError: if there is no such file, or the UNets differ elsewhere.
    """
    if not weights.is_file():
        raise UsageError(f"there are no weights to continue from: {weights} is missing.")
    loaded, random = read_weights(weights), unet.state_dict()
    resized = [name for name in loaded if name.startswith(CONDITION_LAYERS) and name in random]
    loaded |= {name: random[name] for name in resized if loaded[name].shape != random[name].shape}
    try:
        unet.load_state_dict(loaded)
    except RuntimeError as error:
        raise UsageError(f"{weights} is of another architecture: {str(error).splitlines()[-1].strip()}") from error


def unet_file(pair: Path) -> Path:
    """File of the UNet's weights in a pair's folder."""
    return pair / "decoder" / "unet" / "diffusion_pytorch_model.safetensors"


def load_unet(folder: Path, projection: int, settings: UnetSettings | None = None) -> nn.Module:
    """Loads the trained UNet of a run, in float32 and eval mode."""
    unet = make_unet(settings or UnetSettings(), projection)
    tensors, _ = load_checkpoint(folder / "unet.safetensors")
    unet.load_state_dict(tensors)
    return unet.eval().requires_grad_(False)
