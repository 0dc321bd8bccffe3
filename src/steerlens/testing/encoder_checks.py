"""Checks of an encoder, each against a slow and obvious oracle."""

import copy
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from steerlens.encoders import Encoder, Inputs, LayerModules, NativeEncoder
from steerlens.encoders.hooks import first, with_first
from steerlens.errors import ModelError, UsageError
from steerlens.interventions import Add, Intervention, Patch, Scale, Zero
from steerlens.lenses import SteeringLens, Strength, steer_and_patch
from steerlens.sites import Site, SiteKind, all_heads, layer_sites
from steerlens.testing.logits import USUAL_LOGIT, LargestLogit
from steerlens.testing.outcomes import CheckReport, Measured, PlannedCheck, carry_out, faults, refusals

_NOT_NATIVE = None, "the encoder names no native modules to hook"


def check_encoder(encoder: Encoder, inputs: Inputs | None = None) -> CheckReport:
    """Checks an encoder against the protocol and against slow oracles.

    Args:
        encoder: a small encoder, best with random weights, biases and norms: every head and layer is visited.
        inputs: inputs of at least two pictures; by default noise through `encoder.preprocess`.
    """
    return carry_out(encoder.spec.name, _planned_checks(encoder, inputs))


def _planned_checks(encoder: Encoder, given: Inputs | None) -> Iterator[PlannedCheck]:
    inputs = noise_pictures(encoder) if given is None else given
    single = encoder.dtype in (torch.float32, torch.float64)
    small = 1e-5 if single else 5e-2

    def planned(name: str, measure: Callable[[Encoder, Inputs], Measured], allowed: float = small) -> PlannedCheck:
        return PlannedCheck(name, allowed, lambda: measure(encoder, inputs))

    def counting(name: str, measure: Callable[[Encoder, Inputs], Measured], allowed: float = 0) -> PlannedCheck:
        return PlannedCheck(name, allowed, lambda: measure(encoder, inputs), relative=False)

    yield counting("the spec says what the model does", _spec)
    yield planned("the components of a trace add up to the final residual", _identity)
    yield planned("embedding and readout are the native ones", _readout)
    yield planned("trace and record hold the same at every site", _record)
    yield planned("a head's write is what attention loses when its slice is zeroed", _heads)
    yield planned("attention rows sum to 1 and parts by token to the head's write", _attention)
    yield planned("the closed form is the hook-by-hook definition of DSL", _closed_form)
    yield planned("interventions are what raw hooks on the native modules do", _raw_hooks)
    yield planned("interventions that change nothing change nothing, and Zero is Scale by 0", _no_change)
    yield counting("no hook outlives a call, not even one that raises", _leftovers)
    yield planned("a picture alone is the picture in a batch", _batches, small if single else 5 * small)
    yield counting("the model can be moved to other precisions and devices", _moves, 5e-2)
    yield counting("what is not there is refused with UsageError, in one line", _errors)
    yield counting("a mark in a picture is seen in the patch that the geometry says", _geometry)


def noise_pictures(encoder: Encoder) -> Inputs:
    """Returns three pictures of noise, preprocessed."""
    height, width = encoder.spec.image_size
    pixels = np.random.default_rng(0).integers(0, 256, (3, height, width, 3), dtype=np.uint8)
    return encoder.preprocess([Image.fromarray(picture) for picture in pixels])


def native_sites(encoder: Encoder) -> list[Site]:
    """Lists every place in the model."""
    L, H = encoder.spec.n_layers, encoder.spec.n_heads
    kinds: tuple[SiteKind, ...] = ("resid_pre", "resid_mid", "resid_post", "attn_out", "mlp_out")
    return [Site("embed"), *(site for kind in kinds for site in layer_sites(kind, L)), *all_heads(L, H)]


def relative(got: Tensor, wanted: Tensor) -> float:
    """Largest distance of two rows, over the norm of the largest row wanted."""
    got, wanted = got.double().flatten(0, -2), wanted.double().flatten(0, -2)
    return float((got - wanted).norm(dim=-1).max() / wanted.norm(dim=-1).max().clamp_min(1e-30))


def _spec(encoder: Encoder, inputs: Inputs) -> Measured:
    spec = encoder.spec
    residual = encoder.record(inputs, [Site("resid_post", spec.n_layers - 1)]).popitem()[1]
    B, T, D = residual.shape
    read = tuple(range(T)) if spec.readout_tokens is None else spec.readout_tokens
    embedding, zero = encoder.embed(inputs), encoder.zero_embedding()
    down, across = spec.patch_grid
    shifted = residual[:, list(read)] if len(read) and max(read) < T else residual
    with torch.no_grad():
        # Half precision rounds the shifted residual, so that only a gross change tells there.
        moved = relative(encoder.readout(shifted + shifted.abs().mean()), encoder.readout(shifted))
    return faults(
        {
            f"n_tokens {spec.n_tokens}, there are {T}": spec.n_tokens != T,
            f"width {spec.width}, it is {D}": spec.width != D,
            f"embedding_size {spec.embedding_size}, embeddings are {tuple(embedding.shape)}": embedding.shape
            != (B, spec.embedding_size),
            f"the zero embedding is {tuple(zero.shape)}": zero.shape != (1, spec.embedding_size),
            f"readout tokens {read} of {T}": not read or not all(0 <= token < T for token in read),
            f"patches {spec.patch_grid} from token {spec.first_patch} of {T}": spec.first_patch + down * across > T,
            f"centred, but the mean over width changes the embedding by {moved:.2g}": spec.centred and moved > 0.05,
        }
    )


def _geometry(encoder: Encoder, _: Inputs) -> Measured:
    """Marks patches in turn in pictures of several shapes; the brightest patch must be the marked patch."""
    spec, wrong = encoder.spec, dict[str, bool]()
    if spec.geometry is None or spec.geometry.resize == "unknown":
        return None, "how preprocessing moves pixels is not known"
    (rows, columns), (height, width) = spec.patch_grid, spec.image_size
    down, across = height // rows, width // columns
    for form in ((200, 120), (120, 200), (160, 160)):
        view, places = spec.view(form), list[tuple[int, int]]()
        marked = [Image.new("RGB", form)]
        for row, column in {(0, 0), (0, columns - 1), (rows - 1, 0), (rows // 2, columns // 2)}:
            corners = [view.to_picture((column + share) * across, (row + share) * down) for share in (0.2, 0.8)]
            left, top, right, bottom = (round(value) for corner in corners for value in corner)
            if left < 0 or top < 0 or right > form[0] or bottom > form[1]:
                continue  # padding
            marked.append(Image.new("RGB", form))
            marked[-1].paste((255, 255, 255), (left, top, right, bottom))
            places.append((row, column))
        try:
            pixels = encoder.preprocess(marked)["pixel_values"].float().cpu()
        except ModelError:
            continue  # some processors accept pictures of a single shape
        if pixels.ndim == 4:
            pixels = pixels[..., : rows * down, : columns * across]
            light = pixels.unflatten(3, (columns, across)).unflatten(2, (rows, down)).mean(dim=(1, 3, 5)).flatten(1)
        else:
            light = pixels.mean(dim=-1)
        for place, gain in zip(places, light[1:] - light[0], strict=True):
            seen = divmod(int(gain.argmax()), columns)
            wrong[f"in pictures of {form} the mark in patch {place} is seen in {seen}"] = seen != place
    return faults(wrong) if wrong else (None, "no marked picture was taken")


def _identity(encoder: Encoder, inputs: Inputs) -> Measured:
    return encoder.trace(inputs).relative_error()


def _readout(encoder: Encoder, inputs: Inputs) -> Measured:
    trace = encoder.trace(inputs)
    with torch.no_grad():
        return max(
            relative(trace.embedding, encoder.embed(inputs)),
            relative(encoder.readout(trace.final), trace.embedding),
        )


def _record(encoder: Encoder, inputs: Inputs) -> Measured:
    spec = encoder.spec
    tokens = list(range(spec.n_tokens) if spec.readout_tokens is None else spec.readout_tokens)
    trace, sites = encoder.trace(inputs), native_sites(encoder)
    recorded = encoder.record(inputs, sites)
    return max(relative(recorded[site][:, tokens], trace.at(site)) for site in sites)


def _attention(encoder: Encoder, inputs: Inputs) -> Measured:
    """Compares recorded patterns with the native kernel's output.

    Both round a logit l by about eps |l|, which changes a pattern by that factor. Real models have logits of 200, so
    the error is divided by the size of the largest logit, where that is more than usual.
    """
    with LargestLogit() as largest:
        trace = encoder.trace(inputs, attention=True)
    if not trace.has_attention:
        raise ModelError("trace(..., attention=True) holds no attention.")
    rows = float((trace.attention.double().sum(dim=-1) - 1).abs().max())
    heads = all_heads(encoder.spec.n_layers, encoder.spec.n_heads)
    writes = max(relative(trace.token_writes(site).sum(dim=2), trace.at(site)) for site in heads)
    writes *= USUAL_LOGIT / max(largest.size, USUAL_LOGIT)
    return max(rows, writes, relative(trace.embedding, encoder.embed(inputs))), f"logits up to {largest.size:.2g}"


def _closed_form(encoder: Encoder, inputs: Inputs) -> Measured:
    trace, worst, L = encoder.trace(inputs), 0.0, encoder.spec.n_layers
    writes = [
        *all_heads(L, encoder.spec.n_heads),
        *layer_sites("attn_out", L),
        *layer_sites("mlp_out", L),
    ]
    for factor in (-3.0, 10.0, 1000.0):
        lens = SteeringLens(encoder, Strength("s", factor))
        for site in writes:
            closed = lens.embeddings(trace, [site])[:, 0]
            worst = max(worst, relative(closed, steer_and_patch(encoder, inputs, site, factor)))
    return worst


def _heads(encoder: Encoder, inputs: Inputs) -> Measured:
    if not isinstance(encoder, NativeEncoder):
        return _NOT_NATIVE
    trace = encoder.trace(inputs)
    index = torch.tensor(encoder.readout_tokens, device=encoder.device)
    worst = 0.0
    for layer, modules in enumerate(encoder.layers()):
        whole = _attention_output(encoder, inputs, modules)
        for head in range(modules.n_heads):
            with _without_head(modules, head):
                lost = (whole - _attention_output(encoder, inputs, modules)).index_select(1, index)
            # Relative to the whole output, because a difference carries the rounding of both outputs.
            gap = (lost.double() - trace.at(Site("head", layer, head)).double()).norm(dim=-1).max()
            worst = max(worst, float(gap / whole.double().norm(dim=-1).max()))
    return worst


@torch.no_grad()
def _attention_output(encoder: NativeEncoder, inputs: Inputs, modules: LayerModules) -> Tensor:
    outputs: list[Tensor] = []
    handle = modules.attn_out.register_forward_hook(lambda _, __, output: outputs.append(first(output)))
    try:
        encoder.native_forward(inputs)
    finally:
        handle.remove()
    return encoder.arranged(outputs[0])


@contextmanager
def _without_head(modules: LayerModules, head: int) -> Generator[None]:
    """Removes a head from the native model while open: its slice of head values, or of the weight, is 0."""
    width = modules.out_weight.shape[1] // modules.n_heads
    own = slice(head * width, (head + 1) * width)

    def zero_slice(_: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        values = args[0].clone()
        values[..., own] = 0
        return (values, *args[1:])

    if modules.values_of is None:
        handle = modules.attn_proj.register_forward_pre_hook(zero_slice)
        try:
            yield
        finally:
            handle.remove()
        return
    # If the projection is not a separate module, its weight is changed temporarily.
    weight = modules.out_weight.detach()
    kept = weight[:, own].clone()
    try:
        weight[:, own] = 0
        yield
    finally:
        weight[:, own] = kept


def _raw_hooks(encoder: Encoder, inputs: Inputs) -> Measured:
    if not isinstance(encoder, NativeEncoder):
        return _NOT_NATIVE
    worst = 0.0
    generator = torch.Generator().manual_seed(0)
    push = torch.randn(encoder.spec.width, generator=generator).to(encoder.device, encoder.dtype)

    def compare(intervention: Intervention, wanted: Tensor) -> None:
        nonlocal worst
        worst = max(worst, relative(encoder.embed(inputs, [intervention]), wanted))

    for layer, modules in enumerate(encoder.layers()):
        other = encoder.record(inputs, [Site("mlp_out", layer)]).popitem()[1].flip(0)
        compare(Add(Site("resid_pre", layer), vector=push), _hooked(encoder, inputs, modules.block, push, before=True))
        compare(Add(Site("resid_mid", layer), vector=push), _hooked(encoder, inputs, modules.attn_out, push))
        compare(Add(Site("resid_post", layer), vector=push), _hooked(encoder, inputs, modules.block, push))
        compare(Zero(Site("attn_out", layer)), _hooked(encoder, inputs, modules.attn_out, None))
        compare(Patch(Site("mlp_out", layer), value=other), _hooked(encoder, inputs, modules.mlp_out, other, put=True))
        for head in range(modules.n_heads):
            with _without_head(modules, head), torch.no_grad():
                wanted = encoder.native_forward(inputs)
            compare(Zero(Site("head", layer, head)), wanted)
    return worst


@torch.no_grad()
def _hooked(
    encoder: NativeEncoder,
    inputs: Inputs,
    module: nn.Module,
    value: Tensor | None,
    *,
    before: bool = False,
    put: bool = False,
) -> Tensor:
    """Runs the native forward pass with a module's input or output increased or replaced by a value; None is 0."""

    def changed(hidden: Tensor) -> Tensor:
        if value is None:
            return torch.zeros_like(hidden)
        return encoder.packed(value) if put else hidden + value

    def enter(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if args:
            return (changed(args[0]), *args[1:]), kwargs
        return args, {**kwargs, "hidden_states": changed(kwargs["hidden_states"])}

    def leave(_: nn.Module, __: Any, output: Any) -> Any:
        return with_first(output, changed(first(output)))

    if before:
        handle = module.register_forward_pre_hook(enter, with_kwargs=True)
    else:
        handle = module.register_forward_hook(leave)
    try:
        return encoder.native_forward(inputs)
    finally:
        handle.remove()


def _no_change(encoder: Encoder, inputs: Inputs) -> Measured:
    clean, worst = encoder.embed(inputs), 0.0
    for site in native_sites(encoder):
        own = encoder.record(inputs, [site])[site]
        nothing = (Scale(site, factor=1.0), Patch(site, value=own), Zero(site, tokens=()))
        worst = max(worst, *(relative(encoder.embed(inputs, [neutral]), clean) for neutral in nothing))
        zero = encoder.embed(inputs, [Zero(site)])
        worst = max(worst, relative(encoder.embed(inputs, [Scale(site, factor=0.0)]), zero))
        if torch.equal(zero, clean):
            raise ModelError(f"removing what {site} holds changed nothing.")
    return worst


def _batches(encoder: Encoder, inputs: Inputs) -> Measured:
    together = encoder.trace(inputs)
    worst = 0.0
    for index in range(len(together)):
        alone = encoder.trace({key: value[index : index + 1] for key, value in inputs.items()})
        picked = together.select(index)
        worst = max(worst, relative(alone.embedding, picked.embedding), relative(alone.final, picked.final))
    return worst


@dataclass(frozen=True, eq=False)
class _Burst(Intervention):
    def new_value(self, value: Tensor) -> Tensor:
        raise RuntimeError("raised on purpose inside a forward pass")


def _leftovers(encoder: Encoder, inputs: Inputs) -> Measured:
    model = getattr(encoder, "model", None)

    def count() -> int:
        modules = model.modules() if isinstance(model, nn.Module) else ()
        return sum(
            len(getattr(module, kind)) for module in modules for kind in ("_forward_hooks", "_forward_pre_hooks")
        )

    before, clean, site = count(), encoder.embed(inputs), Site("mlp_out", encoder.spec.n_layers - 1)
    calls: list[Callable[[], Any]] = [
        lambda: encoder.trace(inputs, attention=True),
        lambda: encoder.record(inputs, native_sites(encoder), [Zero(site)]),
    ]
    calls += [lambda burst=_Burst(place): encoder.embed(inputs, [burst]) for place in native_sites(encoder)]
    calls += [lambda burst=_Burst(place): encoder.record(inputs, [site], [burst]) for place in native_sites(encoder)]
    for call in calls:
        try:
            call()
        except RuntimeError as error:
            if "on purpose" not in str(error):
                raise
    # If the encoder hides its model, leftover hooks still show in its outputs.
    return abs(count() - before) + float(not torch.equal(encoder.embed(inputs), clean))


def _moves(encoder: Encoder, inputs: Inputs) -> Measured:
    if not isinstance(getattr(encoder, "model", None), nn.Module):
        return None, "the encoder has no `model` to move"
    wanted, worst = encoder.embed(inputs), 0.0
    places: list[tuple[str, torch.dtype]] = [("cpu", torch.float32), ("cpu", torch.float64), ("cpu", torch.bfloat16)]
    if torch.cuda.is_available():
        places += [("cuda", torch.float32), ("cuda", torch.bfloat16)]
    for device, dtype in places:
        # Moves a copy, since weights do not survive half precision unchanged.
        moved: Any = copy.deepcopy(encoder)
        moved.model.to(device, dtype)
        own = {key: value.to(device, dtype if value.is_floating_point() else None) for key, value in inputs.items()}
        trace = moved.trace(own)
        if (moved.device.type, moved.dtype) != (device, dtype) or trace.final.dtype != dtype:
            raise ModelError(f"moved to {device} and {dtype}, it says {moved.device}, {moved.dtype}.")
        trace.check()
        worst = max(worst, relative(trace.embedding.to(wanted), wanted))
    return worst, "" if torch.cuda.is_available() else "no second device here"


def _errors(encoder: Encoder, inputs: Inputs) -> Measured:
    spec = encoder.spec
    absent = (
        Zero(Site("resid_post", spec.n_layers)),
        Zero(Site("head", 0, spec.n_heads)),
        Zero(Site("resid_post", 0), tokens=(spec.n_tokens,)),
        Zero(Site("vector", name="x")),
        Patch(Site("resid_post", 0), value=torch.zeros(spec.width + 1)),
    )
    calls = [lambda given=given: encoder.embed(inputs, [given]) for given in absent]
    return refusals([(UsageError, call) for call in [*calls, lambda: encoder.record(inputs, [absent[0].site])]])
