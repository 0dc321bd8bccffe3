"""Cost of running a pair, counted from its configs alone, without weights or network.

Operations are counted exactly, by running each model on meta tensors. Seconds are a rough estimate: the operations
divided by the measured speed of a typical decoder block on this machine.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from steerlens.decoders import DecodeOptions
from steerlens.devices import choose_device, decoder_dtype, encoder_dtype, parse_dtype
from steerlens.errors import ModelError, UsageError
from steerlens.zoo.architecture import Configs, encoder_config, folder_configs, on_meta, package_configs
from steerlens.zoo.encoder_locating import locate_encoder
from steerlens.zoo.indexes import found_index
from steerlens.zoo.locating import locate_pair
from steerlens.zoo.sources import card_of

_COUNTED = "kandinsky-2.2"
"""The family of decoders whose passes are counted."""

_LAYERS_HELD = 8
"""Full-resolution layers in the MoVQ's memory at once: inputs, outputs and spatial norms of one residual block."""


@dataclass(frozen=True)
class Cost:
    """Cost of a pair.

    Attributes:
        encoder_flops: operations of one encoder pass, for one picture.
        unet_flops: operations of one pass of the UNet, for one latent; guidance takes two passes a step.
        movq_flops: operations of decoding one latent into a picture.
        parameters: parameters of each component.
        bytes: memory of the weights in the precision of loading.
        size: height and width of the pictures, in pixels.
        n_layers: L of the encoder.
        n_heads: H of the encoder.
        scale: pixels for each latent pixel, along one side.
        channels: channels of the MoVQ at full resolution, where decoding takes most memory.
    """

    encoder_flops: int
    unet_flops: int
    movq_flops: int
    parameters: Mapping[str, int]
    bytes: int
    size: tuple[int, int]
    n_layers: int
    n_heads: int
    scale: int
    channels: int

    def working_bytes(self, batch: int, size: tuple[int, int], itemsize: int) -> int:
        """Estimates the memory of decoding a batch besides the weights: a few full-resolution layers of the MoVQ."""
        return batch * size[0] * size[1] * self.channels * itemsize * _LAYERS_HELD

    def picture_flops(self, options: DecodeOptions) -> int:
        """Counts the operations of one decoded picture: denoising, decoding, and embedding the result again."""
        movq = 0 if options.preview else self.movq_flops
        return options.passes * self.unet_flops + movq + self.encoder_flops


def cost_of(
    source: str | Path,
    *,
    size: tuple[int, int] | None = None,
    device: str | torch.device | None = None,
    dtype: str | torch.dtype | None = None,
    local: str | Path | None = None,
    encoder: str | Path | None = None,
    local_files_only: bool = False,
) -> Cost:
    """Computes the cost of a card or a folder; arguments as in `load`.

    Args:
        source: a card's name or a folder.
        size: height and width of the pictures; by default those of the card or the decoder.
        device: device of the models.
        dtype: precision of the models.
        local: a folder that replaces the hub.
        encoder: a folder, hub id or card that replaces the pair's own encoder; only its config is fetched.
        local_files_only: never use the network.

    Raises:
        UsageError: if there is no such model, device or precision, or its decoder is of a family that is not counted.
        ModelError: if a config is missing or broken.
    """
    known, chosen, precision = card_of(source), choose_device(device), parse_dtype(dtype)
    if known is not None and known.family != _COUNTED:
        raise UsageError(_uncounted(known.name))
    if known is not None and known.configs is not None and local is None:
        configs = package_configs(known)
    else:
        if (Path(source) / "neighbours.json").is_file() or found_index(source) is not None:
            raise UsageError(_uncounted(str(source)))
        located = locate_pair(source, local=local, local_files_only=local_files_only)
        if located.family != _COUNTED:
            raise UsageError(_uncounted(str(source)))
        configs = folder_configs(located)
    if encoder is not None:
        located_encoder = locate_encoder(encoder, local_files_only=local_files_only, config_only=True)
        configs = {**configs, "image_encoder": encoder_config(located_encoder.folder)}
    return count(configs, size or (known.defaults.size if known else None), chosen, precision)


def _uncounted(name: str) -> str:
    return (
        f"{name}: only pairs with a Kandinsky 2.2 decoder can be priced before they run; leave --dry-run out, "
        "or try few --sites first."
    )


@torch.no_grad()
def count(
    configs: Configs, size: tuple[int, int] | None, device: torch.device, dtype: torch.dtype | None = None
) -> Cost:
    """Counts on the meta device; arguments as in `cost_of`.

    Raises:
        ModelError: if the models do not run as a Kandinsky 2.2 decoder and a CLIP vision tower do.
    """
    models = {part: on_meta(part, configs[part]) for part in ("image_encoder", "unet", "movq")}
    parameters = {part: sum(p.numel() for p in model.parameters()) for part, model in models.items()}
    encoder, unet, movq = models.values()
    vision = getattr(encoder.config, "vision_config", encoder.config)
    scale = 2 ** (len(movq.config.block_out_channels) - 1)
    size = size or (unet.config.sample_size * scale, unet.config.sample_size * scale)
    with torch.device("meta"):
        pixels = torch.empty(1, 3, vision.image_size, vision.image_size)
        latents = torch.empty(1, unet.config.in_channels, size[0] // scale, size[1] // scale)
        condition = {"image_embeds": torch.empty(1, unet.config.encoder_hid_dim)}
        step = torch.empty(())
    try:
        flops = (
            _flops(lambda: encoder(pixel_values=pixels)),
            _flops(lambda: unet(latents, step, encoder_hidden_states=None, added_cond_kwargs=condition)),
            _flops(lambda: movq.decode(latents, force_not_quantize=True)),
        )
    except (TypeError, ValueError, RuntimeError, AttributeError) as error:
        raise ModelError(f"the cost of this pair cannot be counted: {error}.") from error
    first = encoder_dtype(device, parameters["image_encoder"], dtype)
    second = decoder_dtype(device, dtype)
    decoder_parameters = parameters["unet"] + parameters["movq"]
    memory = parameters["image_encoder"] * first.itemsize + decoder_parameters * second.itemsize
    layers, heads = vision.num_hidden_layers, vision.num_attention_heads
    return Cost(*flops, parameters, memory, size, layers, heads, scale, movq.config.block_out_channels[0])


def _flops(run: Callable[[], Any]) -> int:
    with FlopCounterMode(display=False) as counter:
        run()
    return counter.get_total_flops()


@torch.no_grad()
def probe_flops(
    device: torch.device | str | None = None, dtype: torch.dtype | None = None, seconds: float = 0.3
) -> float:
    """Measures the operations per second of a typical decoder block: group norm, SiLU, 3 x 3 convolution.

    Args:
        device: device to measure.
        dtype: precision; by default that of a decoder.
        seconds: duration of the measurement, besides the first passes.
    """
    device = choose_device(device)
    dtype = decoder_dtype(device, dtype)
    channels, side, batch = (640, 64, 8) if device.type == "cuda" else (128, 16, 32)
    layers = (torch.nn.GroupNorm(32, channels), torch.nn.SiLU(), torch.nn.Conv2d(channels, channels, 3, padding=1))
    block = torch.nn.Sequential(*layers).to(device, dtype)
    inputs = torch.zeros(batch, channels, side, side, device=device, dtype=dtype)
    each = 2 * 9 * channels * channels * side * side * batch

    def wait() -> None:
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    for _ in range(3):
        block(inputs)
    wait()
    passes, start = 0, time.perf_counter()
    while (elapsed := time.perf_counter() - start) < seconds or passes == 0:
        for _ in range(4):
            block(inputs)
        wait()
        passes += 4
    return passes * each / elapsed


def estimate_seconds(
    cost: Cost, flops_per_second: float, *, pictures: int, options: DecodeOptions, traces: float = 1
) -> float:
    """Estimates the duration of decoding within a factor of two or three.

    Args:
        cost: cost of the pair.
        flops_per_second: result of `probe_flops`.
        pictures: pictures to decode and embed again.
        options: options of decoding.
        traces: forward passes of the encoder on input pictures.
    """
    return (pictures * cost.picture_flops(options) + traces * cost.encoder_flops) / flops_per_second
