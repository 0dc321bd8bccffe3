"""Checks of a decoder: every picture depends only on its own row and seed."""

import copy
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from steerlens.conditioning import Conditioning
from steerlens.decoders import Decoded, DecodeOptions, Decoder, decode
from steerlens.errors import ModelError, UsageError
from steerlens.testing.outcomes import CheckReport, Measured, PlannedCheck, carry_out, faults, refusals


def check_decoder(
    decoder: Decoder,
    values: Tensor | None = None,
    options: DecodeOptions | None = None,
    *,
    stochastic: bool | None = None,
) -> CheckReport:
    """Checks a decoder against the protocol: every picture depends only on its own row and seed.

    Args:
        decoder: a small decoder, random or trained.
        values: at least three rows of conditioning, (N,E) or (N,T,D); by default noise.
        options: options of decoding; by default the decoder's own, with at most 4 steps.
        stochastic: whether another seed must give another picture or the same picture; by default another if the
            decoder denoises.
    """
    # An index of pictures draws nothing, but its seeds choose among the nearest.
    chooses = decoder.spec.defaults.scheduler != "none" or decoder.spec.family == "neighbours"
    seeded = chooses if stochastic is None else stochastic
    return carry_out(decoder.spec.name, _planned_checks(decoder, values, options, seeded))


def _planned_checks(
    decoder: Decoder, given: Tensor | None, options: DecodeOptions | None, stochastic: bool
) -> Iterator[PlannedCheck]:
    spec = decoder.spec
    values = _noise_rows(decoder) if given is None else given
    options = options or replace(spec.defaults, steps=min(4, spec.defaults.steps))
    seeds = list(range(len(values)))

    def pictures(rows: Tensor = values, own: Sequence[int] = seeds, by: Decoder = decoder, **changes: Any) -> Tensor:
        return decode(by, Conditioning(spec.consumes, rows), own, replace(options, **changes))

    def shape_and_range() -> Measured:
        rows = values.detach().clone().requires_grad_()
        state, got = torch.get_rng_state(), pictures(rows)
        return faults(
            {
                f"shape {tuple(got.shape)}": got.shape != (len(values), 3, *options.size),
                f"{got.dtype}": got.dtype != torch.float32,
                f"on {got.device}": got.device.type != "cpu",
                "gradients": got.requires_grad,
                "values outside [0,1] or not finite": not bool(((got >= 0) & (got <= 1)).all()),
                "the caller's random state moved": not torch.equal(state, torch.get_rng_state()),
                "the conditioning was changed": not torch.equal(rows, values),
            }
        )

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
        # Equal pictures may differ by rounding between the rows of a batch.
        return faults(
            {
                "another seed gives the same picture": stochastic and _gap(own, other_seed) < 1e-3,
                "another seed gives another picture": not stochastic and _gap(own, other_seed) >= 1e-3,
                "another embedding gives the same picture": _gap(own, other_row) < 1e-3,
            }
        )

    def progress_is_told() -> Measured:
        sized = replace(options, batch_size=2)
        reported, firsts = [0.0], list[int]()
        for event in decoder.decode_batches(Conditioning(spec.consumes, values), seeds, sized):
            if not reported[-1] <= event.done <= event.total or event.total != len(values):
                return 1.0, f"{event.done:g} of {event.total:g} pictures after {reported[-1]:g} of {len(values)}"
            reported.append(event.done)
            if isinstance(event.payload, Decoded):
                firsts.append(event.payload.first)
                if event.done != event.payload.first + len(event.payload.pictures):
                    return 1.0, f"{event.done:g} pictures after a batch that begins at {firsts[-1]}"
        if firsts != list(range(0, len(values), 2)):
            return 1.0, f"batches of 2 that start at {firsts}"
        return 0.0

    def moves() -> Measured:
        modules = _modules(decoder)
        if not modules:
            return None, "the decoder holds no module to move"
        own = next(modules[0].parameters())
        wanted, worst = pictures(), 0.0
        places: list[tuple[str, torch.dtype]] = [("cpu", torch.float64), ("cpu", torch.bfloat16)]
        if torch.cuda.is_available():
            places += [("cuda", torch.float32), ("cuda", torch.float16)]
        for device, dtype in places:
            moved = _moved(decoder, torch.device(device), dtype)
            got = pictures(by=moved)
            actual = getattr(moved, "device", torch.device(device)).type, getattr(moved, "dtype", dtype)
            if actual != (device, dtype):
                raise ModelError(f"moved to {device} and {dtype}, it says {actual[0]}, {actual[1]}.")
            if got.shape != wanted.shape or got.device.type != "cpu" or got.dtype != torch.float32:
                raise ModelError(f"moved to {device} and {dtype}, it gives {got.dtype} of {got.shape} on {got.device}.")
            # With random weights, guidance amplifies the rounding of half precision without bound.
            if dtype.itemsize >= 4 and own.dtype.itemsize >= 4:
                worst = max(worst, _gap(got, wanted))
            unused = _moved(_moved(decoder, torch.device(device), dtype), own.device, own.dtype)
            if _gap(pictures(by=_moved(moved, own.device, own.dtype)), pictures(by=unused)) > 1e-6:
                raise ModelError(f"used on {device} in {dtype} and moved back, it keeps something of that precision.")
        return worst, "" if torch.cuda.is_available() else "no second device here"

    def misfits() -> Measured:
        wider = torch.cat([values, values[..., :1]], dim=-1)
        embeds = spec.consumes == "image_embedding"
        other = Conditioning(
            "image_tokens" if embeds else "image_embedding", values[:, None] if embeds else values[:, 0]
        )
        return refusals(
            [
                (ModelError, lambda: pictures(wider)),
                (ModelError, lambda: pictures(values * torch.nan)),
                (ModelError, lambda: decode(decoder, other, seeds, options)),
                (UsageError, lambda: pictures(own=seeds[:-1])),
                (UsageError, lambda: pictures(values[:0], [])),
            ]
        )

    yield PlannedCheck(
        "pictures are (N,3,height,width), float32 in [0,1] on the host, without side effects",
        0,
        shape_and_range,
        relative=False,
    )
    yield PlannedCheck("the same request gives the same pictures", 0, lambda: _gap(pictures(), pictures()))
    yield PlannedCheck("a picture alone is the picture in a batch, in any order", 2 / 255, batches_agree)
    yield PlannedCheck("seeds and embeddings matter", 0, seeds_and_rows_matter, relative=False)
    yield PlannedCheck("progress tells every step, and batches come in order", 0, progress_is_told, relative=False)
    yield PlannedCheck(
        "the decoder can be moved to other precisions and devices, and back", 2 / 255, moves, relative=False
    )
    yield PlannedCheck("requests that do not fit are refused, in one line", 0, misfits, relative=False)


def _modules(decoder: Decoder) -> list[nn.Module]:
    return [part for part in vars(decoder).values() if isinstance(part, nn.Module)]


def _moved(decoder: Decoder, device: torch.device, dtype: torch.dtype) -> Decoder:
    """Moves a copy, since weights do not survive half precision unchanged."""
    moved = copy.deepcopy(decoder)
    for module in _modules(moved):
        module.to(device, dtype)
    return moved


def _gap(left: Tensor, right: Tensor) -> float:
    return float((left - right).abs().max())


def _noise_rows(decoder: Decoder) -> Tensor:
    spec = decoder.spec
    source = spec.tokens
    tokens = 4 if source is None or source.count is None else source.count
    shape = (5, spec.embedding_size) if spec.consumes == "image_embedding" else (5, tokens, spec.embedding_size)
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))
