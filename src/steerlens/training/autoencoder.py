"""Stage 2: a small `VQModel` (spatial norms, not quantised) between 64 x 64 pictures and 16 x 16 x 4 latents.

Latents are standardised channel by channel after training. The affine map is folded into `quant_conv`,
`post_quant_conv` and every spatial norm, which all read the latents, because the Kandinsky pipeline has no scale.

References:
    Zheng et al., MoVQ: modulating quantized vectors for high-fidelity image generation, 2022, arXiv 2209.09002.
    Rombach et al., High-resolution image synthesis with latent diffusion models, 2021, arXiv 2112.10752.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from steerlens.progress import Progress
from steerlens.scenes import HELD_OUT, PLAIN, TRAIN, Augment, PictureSet, SceneMaker
from steerlens.training.checkpoint import load_checkpoint, save_checkpoint, start_from
from steerlens.training.stage import Budget, Optimisation, StageRecord, autocast, run_stage, workers_of_group

LATENT_CHANNELS = 4
SCENE_AUGMENT = Augment(hue=0.08, colour=0.3, colour_share=0.5, blend=0.25, flip=0.5)
"""Augmentation of the scenes of both decoder stages: without blurring or erasing."""


@dataclass(frozen=True)
class AutoencoderSettings:
    """Size and training of the autoencoder.

    Attributes:
        channels: channels of the blocks, multiples of 32 (the spatial norms' group count).
        batch: scenes per step, over all workers.
        noise: standard deviation of the noise on latents, which makes decoding robust to an imperfect UNet.
        optimisation: settings of the optimizers.
    """

    channels: tuple[int, ...] = (32, 64, 96)
    batch: int = 16
    noise: float = 0.06
    optimisation: Optimisation = field(
        default_factory=lambda: Optimisation(rate=2e-3, weight_decay=0.01, average=0.998)
    )


def make_autoencoder(settings: AutoencoderSettings) -> nn.Module:
    """Builds a `VQModel` with random weights."""
    from diffusers import VQModel

    depth = len(settings.channels)
    return VQModel(
        in_channels=3,
        out_channels=3,
        down_block_types=("DownEncoderBlock2D",) * depth,
        up_block_types=("UpDecoderBlock2D",) * depth,
        block_out_channels=settings.channels,
        layers_per_block=1,
        latent_channels=LATENT_CHANNELS,
        sample_size=64,
        num_vq_embeddings=16,
        norm_num_groups=32,
        vq_embed_dim=LATENT_CHANNELS,
        norm_type="spatial",
        mid_block_add_attention=False,
    )


def encode_latents(movq: Any, pictures: Tensor, batch: int = 256) -> Tensor:
    """Encodes pictures (N,3,64,64) in [0,1] as latents, float (N,4,16,16)."""
    device = next(movq.parameters()).device
    with torch.inference_mode(), autocast(device):
        parts = [movq.encode(chunk.to(device) * 2 - 1).latents.float() for chunk in pictures.split(batch)]
    return torch.cat(parts).clone()


def decode_latents(movq: Any, latents: Tensor, batch: int = 64) -> Tensor:
    """Decodes latents (N,4,16,16) to pictures, float (N,3,64,64) in [0,1]."""
    device = next(movq.parameters()).device
    with torch.inference_mode(), autocast(device):
        chunks = latents.split(batch)
        parts = [movq.decode(chunk.to(device), force_not_quantize=True).sample.float() for chunk in chunks]
    return (torch.cat(parts) / 2 + 0.5).clamp(0, 1).clone()


def _gradients(pictures: Tensor) -> list[Tensor]:
    """Differences of horizontal and vertical neighbours."""
    return [pictures[..., :, 1:] - pictures[..., :, :-1], pictures[..., 1:, :] - pictures[..., :-1, :]]


def edge_loss(decoded: Tensor, wanted: Tensor) -> Tensor:
    """L1 between the gradients of two batches of pictures, at full and at half size."""
    total = decoded.new_zeros(())
    for _ in range(2):
        for left, right in zip(_gradients(decoded), _gradients(wanted), strict=True):
            total = total + functional.l1_loss(left, right)
        decoded, wanted = functional.avg_pool2d(decoded, 2), functional.avg_pool2d(wanted, 2)
    return total


@torch.no_grad()
def fold_scale(movq: Any, mean: Tensor, deviation: Tensor) -> None:
    """Changes the latents to `(z - mean) / deviation` per channel, without changing the decoded pictures.

    Args:
        movq: the model, changed in place.
        mean: float (4), mean of the latents.
        deviation: float (4), standard deviation of the latents.
    """
    from diffusers.models.attention_processor import SpatialNorm

    movq.quant_conv.weight.div_(deviation[:, None, None, None])
    movq.quant_conv.bias.sub_(mean).div_(deviation)
    readers = [movq.post_quant_conv]
    for module in movq.modules():
        if isinstance(module, SpatialNorm):
            readers += [module.conv_y, module.conv_b]
    for conv in readers:  # all are 1 x 1, and nearest-neighbour resizing commutes with an affine map
        conv.bias.add_(conv.weight[:, :, 0, 0] @ mean)
        conv.weight.mul_(deviation[None, :, None, None])


def train_autoencoder(
    pictures: PictureSet,
    folder: Path,
    budget: Budget,
    settings: AutoencoderSettings | None = None,
    device: torch.device | str = "cpu",
    seed: int = 0,
    resume: bool = False,
    measure_seconds: float = 180.0,
) -> Iterator[Progress]:
    """Trains the autoencoder and standardises its latents; files are `autoencoder.*` in `folder`. See `run_stage`."""
    settings = settings or AutoencoderSettings()
    device, (rank, workers) = torch.device(device), workers_of_group()
    torch.manual_seed(seed)
    batch = max(1, settings.batch // workers)
    movq: Any = make_autoencoder(settings).to(device)
    # the codebook is unused, because the decoder reads unquantised latents
    movq.quantize.requires_grad_(False)
    maker = SceneMaker(pictures, pictures.rows(TRAIN), device, SCENE_AUGMENT)

    def step(step: int, share: float, generator: torch.Generator) -> dict[str, Tensor]:
        wanted = maker.draw(batch, generator, companions=0.5).pictures * 2 - 1
        with autocast(device):
            latents = movq.encode(wanted).latents
            noise = torch.randn(latents.shape, generator=generator)
            noisy = latents + settings.noise * noise.to(device)
            decoded = movq.decode(noisy, force_not_quantize=True).sample.float()
        latents = latents.float()
        mean, deviation = latents.mean(dim=(0, 2, 3)), latents.std(dim=(0, 2, 3))
        square, absolute = functional.mse_loss(decoded, wanted), functional.l1_loss(decoded, wanted)
        edges = edge_loss(decoded, wanted)
        unit = mean.square().mean() + deviation.clamp_min(1e-3).log().square().mean()
        return {
            "loss": 2 * square + absolute + edges + 0.05 * unit,
            "square": square,
            "absolute": absolute,
            "edges": edges,
            "unit": unit,
        }

    def measure() -> Mapping[str, float]:
        return autoencoder_metrics(movq, pictures)

    stage = run_stage(
        "autoencoder",
        movq,
        step,
        folder,
        budget,
        settings.optimisation,
        seed=seed + rank,
        resume=resume,
        measure=measure,
        measure_seconds=measure_seconds,
    )
    for event in stage:
        record = event.payload
        if isinstance(record, StageRecord) and record.done:
            standardise(movq, maker, seed)
            save_checkpoint(folder / "autoencoder.safetensors", movq.state_dict(), {"step": record.step})
        yield event


def standardise(movq: Any, maker: SceneMaker, seed: int, count: int = 1024) -> None:
    """Measures the latents' mean and deviation per channel on scenes, and folds them into the model."""
    generator = torch.Generator().manual_seed(seed + 1)
    latents = torch.cat([encode_latents(movq, maker.draw(64, generator).pictures) for _ in range(max(1, count // 64))])
    fold_scale(movq, latents.mean(dim=(0, 2, 3)), latents.std(dim=(0, 2, 3)))


def autoencoder_metrics(movq: Any, pictures: PictureSet) -> dict[str, float]:
    """Signal-to-noise ratio in dB of encoded and decoded scenes of held-out pictures, or else training pictures."""
    device = next(movq.parameters()).device
    rows = pictures.rows(HELD_OUT)
    rows = rows if rows.numel() > 1 else pictures.rows(TRAIN)
    scenes = SceneMaker(pictures, rows, device, PLAIN).draw(128, torch.Generator().manual_seed(78))
    decoded = decode_latents(movq, encode_latents(movq, scenes.pictures))
    error = (decoded - scenes.pictures).square().mean(dim=(1, 2, 3))
    return {"psnr": float((-10 * error.log10()).mean())}


def keep_autoencoder(init: Path, folder: Path, settings: AutoencoderSettings | None = None) -> None:
    """Copies the autoencoder of a pair unchanged, since the pair's UNet was trained on its latents."""
    movq = make_autoencoder(settings or AutoencoderSettings())
    start_from(movq, init / "decoder" / "movq" / "diffusion_pytorch_model.safetensors")
    save_checkpoint(folder / "autoencoder.safetensors", movq.state_dict(), {"step": 0})


def load_autoencoder(folder: Path, settings: AutoencoderSettings | None = None) -> nn.Module:
    """Loads the trained autoencoder of a run, in float32 and eval mode."""
    movq = make_autoencoder(settings or AutoencoderSettings())
    tensors, _ = load_checkpoint(folder / "autoencoder.safetensors")
    movq.load_state_dict(tensors)
    return movq.eval().requires_grad_(False)
