"""Cost of running a pair, counted from its configs alone, without weights or network.

Operations are counted exactly, by running each model on meta tensors. Seconds are a rough estimate: the operations
divided by the measured speed of a typical decoder block on this machine.
"""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

from steerlens.decoders import DecodeOptions, Precision, largest_layer, stored_bytes
from steerlens.devices import choose_device, decoder_dtype, encoder_dtype, parse_dtype
from steerlens.errors import UsageError
from steerlens.zoo.architecture import Configs, encoder_config, folder_configs
from steerlens.zoo.counting import COUNTERS, count_pair
from steerlens.zoo.encoder_locating import locate_encoder
from steerlens.zoo.full_size import full_size_configs
from steerlens.zoo.indexes import found_index
from steerlens.zoo.locating import locate_pair
from steerlens.zoo.sources import card_of

_LAYERS_HELD = 8
"""Full-resolution layers in the MoVQ's memory at once: inputs, outputs and spatial norms of one residual block."""


@dataclass(frozen=True)
class Cost:
    """Cost of a pair.

    Attributes:
        encoder_flops: operations of one encoder pass, for one picture.
        unet_flops: operations of one pass of the denoising network, for one latent; 0 without denoising.
        movq_flops: operations of decoding one latent into a picture, or of the only pass.
        parameters: parameters of each component.
        bytes: memory of the weights on the device, in the precision of loading.
        size: height and width of the pictures, in pixels.
        n_layers: L of the encoder.
        n_heads: H of the encoder.
        scale: pixels for each latent pixel, along one side.
        channels: channels of the autoencoder at full resolution, where decoding takes most memory.
        host_bytes: memory of the weights on the host, for a decoder that is offloaded.
        batch: pictures decoded at once by default; None if their size decides.
        guided: passes of a step with guidance.
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
    host_bytes: int = 0
    batch: int | None = None
    guided: int = 2

    def working_bytes(self, batch: int, size: tuple[int, int], itemsize: int) -> int:
        """Estimates the memory of decoding a batch besides the weights: a few full-resolution layers of the MoVQ."""
        return batch * size[0] * size[1] * self.channels * itemsize * _LAYERS_HELD

    def picture_flops(self, options: DecodeOptions) -> int:
        """Counts the operations of one decoded picture: denoising, decoding, and embedding the result again."""
        movq = 0 if options.preview else self.movq_flops
        passes = options.passes if self.guided == 2 else options.steps
        return passes * self.unet_flops + movq + self.encoder_flops


class UncountedError(UsageError):
    """The cost of a model cannot be counted from its configs."""


def cost_of(
    source: str | Path,
    *,
    size: tuple[int, int] | None = None,
    device: str | torch.device | None = None,
    dtype: str | torch.dtype | None = None,
    local: str | Path | None = None,
    encoder: str | Path | None = None,
    local_files_only: bool = False,
    precision: Precision | None = None,
    offload: bool = False,
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
        precision: storage of the weights of the denoising network in 8 bits, or None.
        offload: whether these weights stay in the host's memory.

    Raises:
        UsageError: if there is no such model, device or precision, or its decoder is of a family that is not counted.
        ModelError: if a config is missing or broken.
    """
    known, chosen, requested = card_of(source), choose_device(device), parse_dtype(dtype)
    if known is not None and known.family not in COUNTERS:
        raise UncountedError(_uncounted(known.name))
    family, configs = "", None
    if known is not None and local is None:
        family, configs = known.family, full_size_configs(known)
    if configs is None:
        if (Path(source) / "neighbours.json").is_file() or found_index(source) is not None:
            raise UncountedError(_uncounted(str(source)))
        located = locate_pair(source, local=local, local_files_only=local_files_only)
        family = located.family
        if family not in COUNTERS:
            raise UncountedError(_uncounted(str(source)))
        configs = folder_configs(located)
    if encoder is not None:
        located_encoder = locate_encoder(encoder, local_files_only=local_files_only, config_only=True)
        configs = {**configs, "image_encoder": encoder_config(located_encoder.folder)}
    size = size or (known.defaults.size if known else None)
    return count(family, configs, size, chosen, requested, precision, offload)


def _uncounted(name: str) -> str:
    return (
        f"{name}: only pairs with a decoder of {', '.join(COUNTERS)} can be priced before they run; leave --dry-run "
        "out, or try few --sites first."
    )


def count(
    family: str,
    configs: Configs,
    size: tuple[int, int] | None,
    device: torch.device,
    dtype: torch.dtype | None = None,
    precision: Precision | None = None,
    offload: bool = False,
) -> Cost:
    """Counts on the meta device; arguments as in `cost_of`.

    Raises:
        ModelError: if the models do not run as those of the family do.
    """
    pair = count_pair(family, configs, size)
    first = encoder_dtype(device, _numbers(pair.encoder), dtype)
    second = decoder_dtype(device, dtype)
    network = stored_bytes(pair.network, second.itemsize, precision)
    on_device = largest_layer(pair.network, second.itemsize, precision) if offload else network
    names = ("unet", "transformer", "decoder")
    parts = {next(name for name in names if name in configs): pair.network, **pair.rest}
    parameters = {"image_encoder": _numbers(pair.encoder)} | {part: _numbers(model) for part, model in parts.items()}
    rest = sum(_numbers(model) for model in pair.rest.values()) * second.itemsize
    memory = parameters["image_encoder"] * first.itemsize + rest + on_device
    return Cost(
        *pair.flops,
        parameters,
        memory,
        pair.size,
        pair.vision.num_hidden_layers,
        pair.vision.num_attention_heads,
        pair.scale,
        pair.channels,
        network if offload else 0,
        None if pair.batch is None else pair.batch[device.type == "cuda"],
        pair.guided,
    )


def _numbers(model: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


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
