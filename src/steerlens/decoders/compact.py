"""Decoders in less memory: weights stored in 8 bits, or kept in the host's memory while a GPU computes.

    int8    w = q m / 127, with q a whole number from -127 to 127 and m the largest |w| of the output channel
    fp8     w = q m / 448, with q a float8_e4m3fn, whose largest number is 448

Weights become the decoder's precision layer by layer, when they are used. diffusers' own layerwise casting has no
scales, and fails where a network reads the precision of a weight, as Kandinsky's does. The decoder alone is changed:
the encoder is what the lenses look at, and its weights are read head by head.

References: P. Micikevicius et al., "FP8 Formats for Deep Learning", arXiv 2209.05433; T. Dettmers et al., "LLM.int8()",
arXiv 2208.07339 (scales for each channel).
"""

from collections.abc import Iterator, Mapping
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from steerlens.decoders.base import Decoder
from steerlens.decoders.diffusion import DiffusionDecoder
from steerlens.errors import UsageError

Precision = Literal["fp8", "int8"]
"""Storage of the denoising network's weights."""

_FORMATS: Mapping[Precision, tuple[torch.dtype, float]] = {
    "fp8": (torch.float8_e4m3fn, 448.0),
    "int8": (torch.int8, 127.0),
}
"""Kind of number and its largest value."""

_STORED = (nn.Linear, nn.Conv2d)
"""Layers whose weights are stored in 8 bits: nearly all of a network's."""


class _Scaled(nn.Module):
    """A weight as 8-bit numbers and a scale for each output channel."""

    def __init__(self, precision: Precision) -> None:
        super().__init__()
        self.kind, self.largest = _FORMATS[precision]

    def forward(self, numbers: Tensor, scale: Tensor) -> Tensor:
        """Returns the weight in the precision of the scale."""
        return numbers.to(scale.dtype) * scale

    def right_inverse(self, weight: Tensor) -> tuple[Tensor, Tensor]:
        """Returns the numbers and the scale that stand for a weight."""
        largest = weight.float().abs().flatten(1).amax(dim=1).clamp(min=torch.finfo(weight.dtype).tiny * self.largest)
        scale = (largest / self.largest).to(weight.dtype).view(-1, *[1] * (weight.ndim - 1))
        numbers = (weight.float() / scale.float()).clamp(-self.largest, self.largest)
        return (numbers.round() if self.kind == torch.int8 else numbers).to(self.kind), scale


def store_compactly(decoder: Decoder, precision: Precision) -> None:
    """Stores the weights of a decoder's denoising network in 8 bits, in place.

    Raises:
        UsageError: if it has no denoising network.
    """
    owner = _denoiser(decoder, f"--precision {precision}")
    owner.computes_in = owner.dtype
    for layer in list(_stored_layers(owner.network)):
        layer.weight.requires_grad_(False)
        parametrize.register_parametrization(layer, "weight", _Scaled(precision))
    owner.stored_as = precision


def offload(decoder: Decoder, device: torch.device) -> None:
    """Keeps the weights of a decoder's denoising network in the host's memory, in place; layers go to a GPU to run.

    Args:
        decoder: a decoder on the CPU.
        device: the GPU.

    Raises:
        UsageError: if the decoder has no denoising network.
    """
    owner = _denoiser(decoder, "--offload")
    owner.computes_on = device
    for layer in list(_layers(owner.network)):
        mover = _Mover(device)
        layer.register_forward_pre_hook(mover.enter)
        layer.register_forward_hook(mover.leave, always_call=True)
    for part in vars(owner).values():
        if isinstance(part, nn.Module) and part is not owner.network:
            part.to(device)


class _Mover:
    """Puts a layer's weights on a device while it runs; the copy on the host stays and is put back."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.host: list[tuple[Tensor, Tensor]] = []

    def enter(self, layer: nn.Module, inputs: Any) -> None:
        """Copies the weights to the device."""
        self.host = [(tensor, tensor.data) for tensor in (*layer.parameters(), *layer.buffers())]
        for tensor, data in self.host:
            tensor.data = data.to(self.device, non_blocking=True)

    def leave(self, layer: nn.Module, inputs: Any, output: Any) -> None:
        """Puts the host's copy back."""
        for tensor, data in self.host:
            tensor.data = data
        self.host = []


def stored_bytes(network: nn.Module, itemsize: int, precision: Precision | None) -> int:
    """Counts the bytes of a network's weights as they are stored, from its shapes.

    Args:
        network: the network, which may be without numbers.
        itemsize: bytes of a number in the decoder's precision.
        precision: storage in 8 bits, or None.
    """
    total = sum(parameter.numel() for parameter in network.parameters()) * itemsize
    if precision is None:
        return total
    saved = sum((itemsize - 1) * layer.weight.numel() for layer in _stored_layers(network))
    return total - saved + sum(itemsize * layer.weight.shape[0] for layer in _stored_layers(network))


def largest_layer(network: nn.Module, itemsize: int, precision: Precision | None) -> int:
    """Counts the bytes of a network's largest layer, which is on the GPU while it runs, if the network is offloaded."""
    return max((stored_bytes(layer, itemsize, precision) for layer in _layers(network)), default=0)


def _stored_layers(network: nn.Module) -> Iterator[Any]:
    return (module for module in network.modules() if isinstance(module, _STORED))


def _layers(module: nn.Module) -> Iterator[nn.Module]:
    """Yields the largest modules that own weights themselves, in place of those inside them."""
    own = next(module.parameters(recurse=False), None) is not None or parametrize.is_parametrized(module)
    if own or next(module.buffers(recurse=False), None) is not None:
        yield module
        return
    for child in module.children():
        yield from _layers(child)


def _denoiser(decoder: Decoder, option: str) -> DiffusionDecoder:
    if not isinstance(decoder, DiffusionDecoder):
        raise UsageError(f"{option}: {decoder.spec.name} has no denoising network; its weights are small as they are.")
    return decoder
