"""`check_encoder` and `check_decoder`: the package's own adapters pass, and an adapter with a fault does not."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from steerlens.conditioning import Conditioning
from steerlens.decoders.base import Decoded, DecodeOptions
from steerlens.decoders.kandinsky22 import Kandinsky22Decoder
from steerlens.encoders.clip import CLIPEncoder
from steerlens.encoders.modules import LayerModules
from steerlens.errors import ModelError, UsageError
from steerlens.interventions import Scale
from steerlens.progress import Progress
from steerlens.sites import Site
from steerlens.testing.checks import CheckReport, check_decoder, check_encoder
from steerlens.testing.logits import LargestLogit
from steerlens.testing.tiny import SCHEDULERS, tiny_encoder, tiny_movq, tiny_processor, tiny_unet, tiny_vision_model
from steerlens.trace import Trace


def failed(report: CheckReport) -> str:
    return "\n".join(str(check) for check in report.checks if not check.passed)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_the_clip_adapter_passes_its_checks(dtype: torch.dtype) -> None:
    report = check_encoder(tiny_encoder(dtype=dtype))
    assert report.passed, str(report)
    assert len(report.checks) == 14
    report.require()
    assert 0 < report.relative_error <= (1e-5 if dtype in (torch.float32, torch.float64) else 5e-2)


def tiny_decoder(kind: type[Kandinsky22Decoder] = Kandinsky22Decoder) -> Kandinsky22Decoder:
    config: dict[str, Any] = {**SCHEDULERS["kandinsky-2.2"], "num_train_timesteps": 1000}
    negative = torch.randn(1, 12, generator=torch.Generator().manual_seed(0))
    return kind(tiny_unet(), tiny_movq(), config, negative)


def test_the_kandinsky_adapter_passes_its_checks() -> None:
    report = check_decoder(tiny_decoder())
    assert report.passed, str(report)
    assert len(report.checks) == 7 and not report.unmeasured


class SwappedHeads(CLIPEncoder):
    """Two heads under each other's names: their sum, and so the decomposition, is still right."""

    def trace(self, inputs: Any, *, attention: bool = False) -> Trace:
        trace = super().trace(inputs, attention=attention)
        weights = tuple(one.flip(0) for one in trace.out_weights)
        return replace(trace, head_values=trace.head_values.flip(2), out_weights=weights)


class NoBias(CLIPEncoder):
    """The bias of the attention output projection is left out."""

    def layers(self) -> Sequence[LayerModules]:
        return [replace(modules, out_bias=None) for modules in super().layers()]


class OwnReadout(CLIPEncoder):
    """A readout that leaves the final norm out."""

    def readout(self, residual: Tensor) -> Tensor:
        return self.model.visual_projection(residual[:, 0].to(self.dtype))


class Forgetful(CLIPEncoder):
    """Leaves a hook behind."""

    def embed(self, inputs: Any, interventions: Any = ()) -> Tensor:
        self.model.register_forward_hook(lambda *_: None)
        return super().embed(inputs, interventions)


class Centring(CLIPEncoder):
    """A picture's pixels depend on the batch."""

    def native_forward(self, inputs: Any) -> Tensor:
        pixels = inputs["pixel_values"]
        return super().native_forward({"pixel_values": pixels - pixels.mean(0, keepdim=True)})


class Unchecked(CLIPEncoder):
    """Takes any token for one of its own, and fails on it somewhere inside."""

    def _check_interventions(self, interventions: Any) -> None:
        pass


class Miscounting(CLIPEncoder):
    """Says that there is a register which is not there."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.spec = replace(self.spec, n_tokens=self.spec.n_tokens + 1)


class Centred(CLIPEncoder):
    """Says that the readout is blind to the mean over width, and reads it."""

    def readout(self, residual: Tensor) -> Tensor:
        return super().readout(residual) + residual[:, 0].mean(dim=-1, keepdim=True)


class Halving(CLIPEncoder):
    """Carries every intervention out, and then another one: consistent with itself, but not what was asked."""

    def forward(self, inputs: Any, interventions: Any = ()) -> Tensor:
        also = [Scale(Site("embed"), factor=0.5)] if interventions else []
        return super().forward(inputs, [*interventions, *also])


class Talkative(CLIPEncoder):
    """Explains what is wrong over many lines."""

    def _check_interventions(self, interventions: Any) -> None:
        try:
            super()._check_interventions(interventions)
        except UsageError as error:
            raise UsageError(f"Something is wrong:\n{error}") from error


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        (Miscounting, "n_tokens 6, there are 5"),
        (Centred, "centred, but the mean over width changes the embedding"),
        (Halving, "interventions are what raw hooks on the native modules do"),
        (Talkative, "should say in one line what is wrong"),
        (SwappedHeads, "a head's write is what attention loses"),
        (NoBias, "add up to the final residual"),
        (OwnReadout, "embedding and readout are the native ones"),
        (Forgetful, "no hook outlives a call"),
        (Centring, "a picture alone is the picture in a batch"),
        (Unchecked, "what is not there is refused with UsageError"),
    ],
)
def test_an_encoder_with_a_fault_fails_the_check_for_it(fault: type[CLIPEncoder], words: str) -> None:
    report = check_encoder(fault(tiny_vision_model(), tiny_processor()))
    assert words in failed(report), str(report)
    with pytest.raises(ModelError, match="does not pass its checks"):
        report.require()


class OneGenerator(Kandinsky22Decoder):
    """Seeds a batch as a whole, as diffusers does with one generator."""

    def decode_batches(
        self, conditioning: Conditioning, seeds: Sequence[int], options: DecodeOptions | None = None
    ) -> Iterator[Progress]:
        return super().decode_batches(conditioning, [seeds[0] + index for index in range(len(seeds))], options)


class Deaf(Kandinsky22Decoder):
    """Decodes the same embedding whatever it is given."""

    def decode_batches(
        self, conditioning: Conditioning, seeds: Sequence[int], options: DecodeOptions | None = None
    ) -> Iterator[Progress]:
        same = Conditioning(conditioning.kind, torch.ones_like(conditioning.values))
        return super().decode_batches(same, seeds, options)


class Keeping(Kandinsky22Decoder):
    """Keeps the embedding that stands for "no condition" in the precision in which it was first wanted."""

    def decode_batches(
        self, conditioning: Conditioning, seeds: Sequence[int], options: DecodeOptions | None = None
    ) -> Iterator[Progress]:
        self.negative_embedding = self.negative_embedding.to(self.dtype)
        return super().decode_batches(conditioning, seeds, options)


class Signed(Kandinsky22Decoder):
    """Gives pictures in [-1,1]."""

    def decode_batches(
        self, conditioning: Conditioning, seeds: Sequence[int], options: DecodeOptions | None = None
    ) -> Iterator[Progress]:
        for event in super().decode_batches(conditioning, seeds, options):
            decoded = event.payload
            signed = Decoded(decoded.first, decoded.pictures * 2 - 1) if isinstance(decoded, Decoded) else None
            yield replace(event, payload=signed)


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        (OneGenerator, "a picture alone is the picture in a batch"),
        (Deaf, "another embedding gives the same picture"),
        (Signed, r"outside [0,1]"),
        (Keeping, "moved back, it keeps something of that precision"),
    ],
)
def test_a_decoder_with_a_fault_fails_the_check_for_it(fault: type[Kandinsky22Decoder], words: str) -> None:
    report = check_decoder(tiny_decoder(fault))
    assert words in failed(report), str(report)


class Wrapped:
    """An encoder of another make: all that the protocol asks for, and no native modules."""

    def __init__(self, encoder: CLIPEncoder) -> None:
        self._encoder = encoder

    def __getattr__(self, name: str) -> Any:
        if name in ("layers", "model") or name.startswith("__"):
            raise AttributeError(name)
        return getattr(self._encoder, name)


def test_what_cannot_be_measured_is_told_as_such_and_counts_for_no_error() -> None:
    encoder: Any = Wrapped(tiny_encoder())
    report = check_encoder(encoder)
    assert report.passed, str(report)
    assert {check.name for check in report.unmeasured} == {
        "a head's write is what attention loses when its slice is zeroed",
        "interventions are what raw hooks on the native modules do",
        "the model can be moved to other precisions and devices",
    }
    assert str(report).count("NOT MEASURED") == 3 and "names no native modules to hook" in str(report)
    assert 0 < report.relative_error <= 1e-5
    with pytest.raises(ModelError, match="NOT MEASURED a head's write"):
        report.require(whole=True)
    check_encoder(tiny_encoder()).require(whole=True)


def test_a_check_that_raises_has_failed_and_says_what_was_raised() -> None:
    class Broken(CLIPEncoder):
        def trace(self, inputs: Any, *, attention: bool = False) -> Trace:
            raise OSError("no trace today")

    report = check_encoder(Broken(tiny_vision_model(), tiny_processor()))
    assert "raised OSError: no trace today" in str(report.checks[1])
    assert not report.passed
    assert math.isnan(report.relative_error)


def test_the_size_of_logits_is_read_from_the_softmax() -> None:
    logits = torch.tensor([[3.0, -70.0, -torch.inf], [1.0, 2.0, 0.0]])
    with LargestLogit() as largest:
        logits.softmax(dim=-1)
        torch.nn.functional.softmax(logits / 2, dim=-1)
        torch.exp(logits * 10)
    assert largest.size == 70
