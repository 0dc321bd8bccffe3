"""Checks that an adapter must pass, for the authors of plug-ins: run them on a tiny random model in your own tests.

    report = check_encoder(MyEncoder(tiny_model, processor))
    report.require()

Every check measures an error and holds it against what is allowed; a check that raises has failed, and says how. The
oracles are slow and obvious: two forward passes, one with a head's slice zeroed by a raw hook, instead of a formula.
"""

import copy
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from steerlens.conditioning import Conditioning
from steerlens.decoders.base import DecodeOptions, Decoder, Denoised, decode
from steerlens.encoders.base import Encoder, Inputs
from steerlens.encoders.native import LayerModules, NativeEncoder
from steerlens.errors import ModelError, SteerlensError, UsageError
from steerlens.interventions import Intervention, Patch, Scale, Zero, first
from steerlens.lenses.steering import SteeringLens, steer_and_patch
from steerlens.lenses.strength import Strength
from steerlens.scores import cosine_distance
from steerlens.sites import Site, SiteKind, all_heads, layer_sites


@dataclass(frozen=True)
class Check:
    """The outcome of one check.

    Attributes:
        name: what is true of the adapter if it passed.
        error: what was measured; nan if the check could not be carried out to its end.
        allowed: the largest error that passes.
        detail: what went wrong, or why nothing was measured; else empty.
    """

    name: str
    error: float
    allowed: float
    detail: str = ""

    @property
    def passed(self) -> bool:
        """Whether the error is within what is allowed; nan is not."""
        return self.error <= self.allowed

    def __str__(self) -> str:
        mark = "ok    " if self.passed else "FAILED"
        detail = f"  ({self.detail})" if self.detail else ""
        return f"{mark} {self.name}: {self.error:.2g}, allowed {self.allowed:.2g}{detail}"


@dataclass(frozen=True)
class CheckReport:
    """The outcomes of all checks of one adapter.

    Attributes:
        subject: name of what was checked.
        checks: one outcome a check, in order.
    """

    subject: str
    checks: tuple[Check, ...]

    @property
    def passed(self) -> bool:
        """Whether every check passed."""
        return all(check.passed for check in self.checks)

    def __str__(self) -> str:
        return "\n".join([self.subject, *(f"  {check}" for check in self.checks)])

    def require(self) -> None:
        """Makes sure that every check passed.

        Raises:
            ModelError: if one failed; the message holds all outcomes.
        """
        if not self.passed:
            raise ModelError(f"the adapter does not pass its checks.\n{self}")


Measured = float | tuple[float, str]
Checks = Iterator[tuple[str, float, Callable[[], Measured]]]
"""Name, largest error allowed, and what measures the error (with a note, where there is something to say)."""


def check_encoder(encoder: Encoder, inputs: Inputs | None = None) -> CheckReport:
    """Holds an encoder against the protocol and against slow oracles.

    Args:
        encoder: a small one, best with random weights, biases and norms: every head and layer is visited.
        inputs: what to run it on, at least two pictures; by default noise through `encoder.preprocess`.
    """
    return _report(encoder.spec.name, _encoder_checks(encoder, inputs))


def check_decoder(
    decoder: Decoder,
    values: Tensor | None = None,
    options: DecodeOptions | None = None,
    *,
    stochastic: bool = True,
) -> CheckReport:
    """Holds a decoder against the protocol: every picture depends on its own row and seed alone.

    Args:
        decoder: a small one, with random weights or trained.
        values: at least three rows of conditioning, (N,E) or (N,T,D); by default noise.
        options: how to decode; by default the decoder's own, with at most 4 steps.
        stochastic: whether another seed must give another picture.
    """
    return _report(decoder.spec.name, _decoder_checks(decoder, values, options, stochastic))


def _report(subject: str, checks: Checks) -> CheckReport:
    outcomes: list[Check] = []
    for name, allowed, measure in checks:
        try:
            measured = measure()
        # Whatever a plug-in raises is an outcome of the check, not the end of all checks.
        except Exception as error:
            outcomes.append(Check(name, math.nan, allowed, f"raised {type(error).__name__}: {error}"))
        else:
            error, detail = measured if isinstance(measured, tuple) else (measured, "")
            outcomes.append(Check(name, error, allowed, detail))
    return CheckReport(subject, tuple(outcomes))


def _encoder_checks(encoder: Encoder, given: Inputs | None) -> Checks:
    inputs = _noise_pictures(encoder) if given is None else given
    single = encoder.dtype in (torch.float32, torch.float64)
    small, angle = (1e-5, 1e-6) if single else (5e-2, 1e-2)
    spec = encoder.spec
    tokens = list(range(spec.n_tokens) if spec.readout_tokens is None else spec.readout_tokens)

    def readout_is_native() -> float:
        trace = encoder.trace(inputs)
        with torch.no_grad():
            return max(
                _relative(trace.embedding, encoder.embed(inputs)),
                _relative(encoder.readout(trace.final), trace.embedding),
            )

    def record_agrees() -> float:
        trace, sites = encoder.trace(inputs), _native_sites(encoder)
        recorded = encoder.record(inputs, sites)
        return max(_relative(recorded[site][:, tokens], trace.at(site)) for site in sites)

    def attention_adds_up() -> float:
        trace = encoder.trace(inputs, attention=True)
        if trace.attention is None:
            raise ModelError("trace(..., attention=True) holds no attention.")
        rows = float((trace.attention.double().sum(dim=-1) - 1).abs().max())
        heads = all_heads(spec.n_layers, spec.n_heads)
        writes = max(_relative(trace.token_writes(site).sum(dim=2), trace.at(site)) for site in heads)
        return max(rows, writes, _relative(trace.embedding, encoder.embed(inputs)))

    def closed_form() -> float:
        trace, worst = encoder.trace(inputs), 0.0
        for factor in (-3.0, 10.0, 1000.0):
            lens = SteeringLens(encoder, Strength("s", factor))
            for site in _write_sites(encoder):
                closed = lens.embeddings(trace, [site])[:, 0]
                worst = max(worst, cosine_distance(closed, steer_and_patch(encoder, inputs, site, factor)))
        return worst

    def interventions_agree() -> float:
        clean, worst = encoder.embed(inputs), 0.0
        for site in _native_sites(encoder):
            own = encoder.record(inputs, [site])[site]
            nothing = (Scale(site, factor=1.0), Patch(site, value=own), Zero(site, tokens=()))
            worst = max(worst, *(_relative(encoder.embed(inputs, [one]), clean) for one in nothing))
            zero = encoder.embed(inputs, [Zero(site)])
            worst = max(worst, _relative(encoder.embed(inputs, [Scale(site, factor=0.0)]), zero))
            if torch.equal(zero, clean):
                raise ModelError(f"removing what {site} holds changed nothing.")
        return worst

    def batches_agree() -> float:
        together = encoder.trace(inputs)
        worst = 0.0
        for index in range(len(together)):
            alone = encoder.trace({key: value[index : index + 1] for key, value in inputs.items()})
            picked = together.select(index)
            worst = max(worst, _relative(alone.embedding, picked.embedding), _relative(alone.final, picked.final))
        return worst

    yield (
        "the components of a trace add up to the final residual",
        small,
        lambda: encoder.trace(inputs).relative_error(),
    )
    yield "embedding and readout are the native ones", small, readout_is_native
    yield "trace and record hold the same at every site", small, record_agrees
    yield "a head's write is what attention loses when its slice is zeroed", small, lambda: _heads(encoder, inputs)
    yield "attention rows sum to 1 and parts by token to the head's write", small, attention_adds_up
    yield "the closed form is the hook-by-hook definition of DSL", angle, closed_form
    yield "interventions that change nothing change nothing, and Zero is Scale by 0", small, interventions_agree
    yield "no hook outlives a call, not even one that raises", 0, lambda: _leftovers(encoder, inputs)
    yield "a picture alone is the picture in a batch", small if single else 5 * small, batches_agree
    yield "the model can be moved to other precisions and devices", 5e-2, lambda: _moves(encoder, inputs)
    yield "what is not there is refused with UsageError", 0, lambda: _encoder_errors(encoder, inputs)


def _noise_pictures(encoder: Encoder) -> Inputs:
    height, width = encoder.spec.image_size
    pixels = np.random.default_rng(0).integers(0, 256, (3, height, width, 3), dtype=np.uint8)
    return encoder.preprocess([Image.fromarray(picture) for picture in pixels])


def _native_sites(encoder: Encoder) -> list[Site]:
    L, H = encoder.spec.n_layers, encoder.spec.n_heads
    kinds: tuple[SiteKind, ...] = ("resid_pre", "resid_mid", "resid_post", "attn_out", "mlp_out")
    return [Site("embed"), *(site for kind in kinds for site in layer_sites(kind, L)), *all_heads(L, H)]


def _write_sites(encoder: Encoder) -> list[Site]:
    L, H = encoder.spec.n_layers, encoder.spec.n_heads
    return [*all_heads(L, H), *layer_sites("attn_out", L), *layer_sites("mlp_out", L)]


def _relative(got: Tensor, wanted: Tensor) -> float:
    """Largest distance of two rows, over the norm of the largest row wanted."""
    got, wanted = got.double().flatten(0, -2), wanted.double().flatten(0, -2)
    return float((got - wanted).norm(dim=-1).max() / wanted.norm(dim=-1).max().clamp_min(1e-30))


def _heads(encoder: Encoder, inputs: Inputs) -> Measured:
    if not isinstance(encoder, NativeEncoder):
        return 0.0, "not measured: the encoder names no native modules to hook"
    trace = encoder.trace(inputs)
    index = torch.tensor(encoder.readout_tokens, device=encoder.device)
    worst = 0.0
    for layer, modules in enumerate(encoder.layers()):
        whole = _attention_without(encoder, inputs, modules, None)
        for head in range(modules.n_heads):
            lost = (whole - _attention_without(encoder, inputs, modules, head)).index_select(1, index)
            # Held against the whole output: the difference of two outputs cannot be more exact than they are.
            gap = (lost.double() - trace.at(Site("head", layer, head)).double()).norm(dim=-1).max()
            worst = max(worst, float(gap / whole.double().norm(dim=-1).max()))
    return worst


@torch.no_grad()
def _attention_without(encoder: NativeEncoder, inputs: Inputs, modules: LayerModules, head: int | None) -> Tensor:
    outputs: list[Tensor] = []

    def zero_slice(_: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        if head is None:
            return args
        values, width = args[0].clone(), args[0].shape[-1] // modules.n_heads
        values[..., head * width : (head + 1) * width] = 0
        return (values, *args[1:])

    def keep(_: nn.Module, __: Any, output: Any) -> None:
        outputs.append(first(output))

    handles = [modules.attn_proj.register_forward_pre_hook(zero_slice), modules.attn_out.register_forward_hook(keep)]
    try:
        encoder.native_forward(inputs)
    finally:
        for handle in handles:
            handle.remove()
    return outputs[0]


@dataclass(frozen=True, eq=False)
class _Burst(Intervention):
    def new_value(self, value: Tensor) -> Tensor:
        raise RuntimeError("raised on purpose inside a forward pass")


def _leftovers(encoder: Encoder, inputs: Inputs) -> float:
    model = getattr(encoder, "model", None)

    def count() -> int:
        modules = model.modules() if isinstance(model, nn.Module) else ()
        return sum(
            len(getattr(module, kind)) for module in modules for kind in ("_forward_hooks", "_forward_pre_hooks")
        )

    before, clean, site = count(), encoder.embed(inputs), Site("mlp_out", encoder.spec.n_layers - 1)
    calls: list[Callable[[], Any]] = [
        lambda: encoder.trace(inputs, attention=True),
        lambda: encoder.record(inputs, _native_sites(encoder), [Zero(site)]),
    ]
    calls += [lambda burst=_Burst(one): encoder.embed(inputs, [burst]) for one in _native_sites(encoder)]
    calls += [lambda burst=_Burst(one): encoder.record(inputs, [site], [burst]) for one in _native_sites(encoder)]
    for call in calls:
        try:
            call()
        except RuntimeError as error:
            if "on purpose" not in str(error):
                raise
    # An encoder that hides its model still shows what is left behind in what it gives.
    return abs(count() - before) + float(not torch.equal(encoder.embed(inputs), clean))


def _moves(encoder: Encoder, inputs: Inputs) -> Measured:
    if not isinstance(getattr(encoder, "model", None), nn.Module):
        return 0.0, "not measured: the encoder has no `model` to move"
    wanted, worst = encoder.embed(inputs), 0.0
    places: list[tuple[str, torch.dtype]] = [("cpu", torch.float32), ("cpu", torch.float64), ("cpu", torch.bfloat16)]
    if torch.cuda.is_available():
        places += [("cuda", torch.float32), ("cuda", torch.bfloat16)]
    for device, dtype in places:
        # A copy, since weights that went through half precision do not come back as they were.
        moved: Any = copy.deepcopy(encoder)
        moved.model.to(device, dtype)
        own = {key: value.to(device, dtype if value.is_floating_point() else None) for key, value in inputs.items()}
        trace = moved.trace(own)
        if (moved.device.type, moved.dtype) != (device, dtype) or trace.final.dtype != dtype:
            raise ModelError(f"moved to {device} and {dtype}, it says {moved.device}, {moved.dtype}.")
        trace.check()
        worst = max(worst, _relative(trace.embedding.to(wanted), wanted))
    return worst, "" if torch.cuda.is_available() else "no second device here"


def _encoder_errors(encoder: Encoder, inputs: Inputs) -> Measured:
    spec = encoder.spec
    absent = (
        Zero(Site("resid_post", spec.n_layers)),
        Zero(Site("head", 0, spec.n_heads)),
        Zero(Site("resid_post", 0), tokens=(spec.n_tokens,)),
        Zero(Site("vector", name="x")),
        Patch(Site("resid_post", 0), value=torch.zeros(spec.width + 1)),
    )
    calls = [lambda given=given: encoder.embed(inputs, [given]) for given in absent]
    return _refusals([(UsageError, call) for call in [*calls, lambda: encoder.record(inputs, [absent[0].site])]])


def _refusals(calls: Sequence[tuple[type[SteerlensError], Callable[[], Any]]]) -> Measured:
    missed: list[str] = []
    for kind, call in calls:
        try:
            call()
        except kind:
            continue
        except Exception as error:
            missed.append(f"{type(error).__name__} in place of {kind.__name__}: {error}")
        else:
            missed.append(f"nothing raised in place of {kind.__name__}")
    return float(len(missed)), "; ".join(missed)


def _decoder_checks(decoder: Decoder, given: Tensor | None, options: DecodeOptions | None, stochastic: bool) -> Checks:
    spec = decoder.spec
    values = _noise_rows(spec.consumes, spec.embedding_size) if given is None else given
    options = options or replace(spec.defaults, steps=min(4, spec.defaults.steps))
    seeds = list(range(len(values)))

    def pictures(rows: Tensor = values, own: Sequence[int] = seeds, **changes: Any) -> Tensor:
        return decode(decoder, Conditioning(spec.consumes, rows), own, replace(options, **changes))

    def shape_and_range() -> Measured:
        state, got = torch.get_rng_state(), pictures(values.detach().clone().requires_grad_())
        wrong = {
            f"shape {tuple(got.shape)}": got.shape != (len(values), 3, *options.size),
            f"{got.dtype}": got.dtype != torch.float32,
            f"on {got.device}": got.device.type != "cpu",
            "gradients": got.requires_grad,
            "values outside [0,1] or not finite": not bool(((got >= 0) & (got <= 1)).all()),
            "the caller's random state moved": not torch.equal(state, torch.get_rng_state()),
        }
        return float(sum(wrong.values())), "; ".join(what for what, is_wrong in wrong.items() if is_wrong)

    def batches_agree() -> float:
        together, order = pictures(), list(reversed(range(len(values))))
        shuffled = pictures(values[order], [seeds[index] for index in order], batch_size=2)
        worst = _gap(shuffled, together[order])
        for index, seed in enumerate(seeds):
            alone = pictures(values[index : index + 1], [seed])
            worst = max(worst, _gap(alone[0], together[index]))
        return worst

    def seeds_and_rows_matter() -> Measured:
        own, other_seed, other_row = pictures(values[[0, 0, 1]], [1, 2, 1])
        # Pictures that are the same may differ by rounding from row to row of a batch.
        missed = ["another seed gives the same picture"] if stochastic and _gap(own, other_seed) < 1e-3 else []
        missed += ["another embedding gives the same picture"] if _gap(own, other_row) < 1e-3 else []
        return float(len(missed)), "; ".join(missed)

    def progress_is_told() -> Measured:
        sized = replace(options, batch_size=2)
        steps, firsts = list[int](), list[int]()
        for event in decoder.decode_batches(Conditioning(spec.consumes, values), seeds, sized):
            if isinstance(event, Denoised):
                steps.append(event.step)
            else:
                firsts.append(event.first)
                told, steps = steps, []
                if told != list(range(1, len(told) + 1)):
                    return 1.0, f"steps {told} of a batch"
        if firsts != list(range(0, len(values), 2)):
            return 1.0, f"batches of 2 that start at {firsts}"
        return 0.0

    def refusals() -> Measured:
        wider = torch.cat([values, values[..., :1]], dim=-1)
        return _refusals(
            [
                (ModelError, lambda: pictures(wider)),
                (ModelError, lambda: pictures(values * torch.nan)),
                (UsageError, lambda: pictures(own=seeds[:-1])),
                (UsageError, lambda: pictures(values[:0], [])),
            ]
        )

    yield "pictures are (N,3,height,width), float32 in [0,1] on the host, without side effects", 0, shape_and_range
    yield "the same request gives the same pictures", 0, lambda: _gap(pictures(), pictures())
    yield "a picture alone is the picture in a batch, in any order", 2 / 255, batches_agree
    yield "seeds and embeddings matter", 0, seeds_and_rows_matter
    yield "progress tells every step, and batches come in order", 0, progress_is_told
    yield "requests that do not fit are refused", 0, refusals


def _gap(one: Tensor, other: Tensor) -> float:
    return float((one - other).abs().max())


def _noise_rows(kind: str, size: int) -> Tensor:
    shape = (5, size) if kind == "image_embedding" else (5, 4, size)
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


__all__ = ["Check", "CheckReport", "check_decoder", "check_encoder"]
