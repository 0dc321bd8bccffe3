"""Forward passes that begin in the middle: layers before an intervention compute the same as in the clean pass.

One clean pass keeps the arguments of every native block. A pass with interventions at layer n then calls the native
blocks n, n+1, ... with those arguments, for any number of rows, each with its own interventions, and reads out the
embedding. No part of the model is copied. `shortcuts` leaves out of the first block what no row changes, and of the
last what nothing reads; a sweep over all layers costs less than half as much as full passes.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from steerlens.encoders.base import Inputs
from steerlens.encoders.hooks import Hook, hidden_states, intervention_hooks, native_pass, recording_hooks
from steerlens.encoders.native import NativeEncoder
from steerlens.encoders.shortcuts import branch, narrow
from steerlens.errors import ModelError, UsageError
from steerlens.interventions import Intervention, Scale
from steerlens.scores import cosine_distance
from steerlens.sites import Site
from steerlens.trace import Trace

_TOLERANCE = 1e-4
"""Largest cosine distance of a resumed clean pass from the native one; half precision rounds by less than this."""

_SHORTCUT_TOLERANCE = 1e-6
"""The same for passes with shortcuts in single precision, whose results they must not change."""


@dataclass(frozen=True, eq=False)
class Prefix:
    """The arguments of every native block in one clean forward pass of B pictures.

    Attributes:
        hidden: the residual stream that enters each layer, (B,T,D).
        args: the other positional arguments of each block.
        kwargs: the keyword arguments of each block.
        embedding: the clean image embedding.
        shortcuts: True if leaving out work, as `shortcuts` does, was found to give this model's own embedding.
    """

    hidden: tuple[Float[Tensor, "B T D"], ...]
    args: tuple[tuple[Any, ...], ...]
    kwargs: tuple[Mapping[str, Any], ...]
    embedding: Float[Tensor, "B E"]
    shortcuts: bool = False

    def __len__(self) -> int:
        return self.embedding.shape[0]


@torch.no_grad()
def record_prefix(encoder: NativeEncoder, inputs: Inputs | Tensor) -> Prefix:
    """Runs one clean forward pass and keeps every block's arguments.

    Args:
        encoder: any encoder whose blocks can be hooked.
        inputs: the output of `encoder.preprocess`.

    Raises:
        ModelError: if a block is not called exactly once, or calling the blocks one after another does not give the
            model's own embedding.
    """
    return _recorded_prefix(encoder, lambda: encoder.embed(inputs))


@torch.no_grad()
def trace_with_prefix(
    encoder: NativeEncoder, inputs: Inputs | Tensor, *, attention: bool = False, neurons: bool = False
) -> tuple[Trace, Prefix]:
    """Runs one clean forward pass that is both traced and recorded; arguments as in `NativeEncoder.trace`.

    Raises:
        ModelError: as `record_prefix`.
    """
    traces: list[Trace] = []

    def run() -> Float[Tensor, "B E"]:
        traces.append(encoder.trace(inputs, attention=attention, neurons=neurons))
        return traces[0].embedding

    prefix = _recorded_prefix(encoder, run)
    return traces[0], prefix


def _recorded_prefix(encoder: NativeEncoder, run: Callable[[], Float[Tensor, "B E"]]) -> Prefix:
    calls: list[tuple[Tensor, tuple[Any, ...], dict[str, Any]]] = []

    def keep(args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        rest = {key: value for key, value in kwargs.items() if args or key != "hidden_states"}
        calls.append((hidden_states(args, kwargs), args[1:], rest))

    hooks = [
        Hook(modules.block, "before", keep, f"keeps the arguments of block {layer}")
        for layer, modules in enumerate(encoder.layers())
    ]
    with native_pass(encoder.model, encoder.spec.name, map(encoder.native_hook, hooks)):
        embedding = run()
    prefix = Prefix(*(tuple(part) for part in zip(*calls, strict=True)), embedding)  # type: ignore[arg-type]
    again = resume(encoder, prefix, encoder.spec.n_layers - 1, range(len(prefix)))
    if not cosine_distance(again, embedding) <= _TOLERANCE:
        raise ModelError(
            f"{encoder.spec.name}: its last block and its readout, called one after another, do not give its own "
            "embedding; ablate with full forward passes instead."
        )
    return replace(prefix, shortcuts=not encoder.packs_pictures and _shortcuts_hold(encoder, prefix))


def _shortcuts_hold(encoder: NativeEncoder, prefix: Prefix) -> bool:
    """Tries the shortcuts on the last block, with changes that change nothing, at each place where a row may branch."""
    last = encoder.spec.n_layers - 1
    fused = encoder.layers()[last].values_of is not None
    sites = [Site(kind, last) for kind in ("attn_out", "resid_mid", "mlp_out", "resid_post")]
    tolerance = _SHORTCUT_TOLERANCE if prefix.embedding.dtype == torch.float32 else _TOLERANCE
    for site in sites if fused else [Site("head", last, 0), *sites]:
        try:
            same = resume(encoder, replace(prefix, shortcuts=True), last, [0, 0], [Scale(site)])
        except ModelError:
            return False
        if not cosine_distance(same, prefix.embedding[:1].expand_as(same)) <= tolerance:
            return False
    return True


@torch.no_grad()
def resume(
    encoder: NativeEncoder,
    prefix: Prefix,
    layer: int,
    rows: Sequence[int],
    interventions: Sequence[Intervention] = (),
) -> Float[Tensor, "N E"]:
    """Computes the embeddings of forward passes that begin at a layer, everything downstream reacting.

    Args:
        encoder: the encoder of the prefix.
        prefix: the output of `record_prefix`.
        layer: the first layer to run.
        rows: the picture of the prefix that each of the N rows starts from; pictures may repeat.
        interventions: interventions at this layer or later; `ByRow` gives each row its own.

    Raises:
        UsageError: if an intervention acts before that layer.
    """
    readout = torch.tensor(encoder.readout_tokens, device=encoder.device)
    last = encoder.spec.n_layers - 1
    hidden = _resumed(encoder, prefix, layer, [last], rows, interventions, readout)[last]
    return encoder.readout(hidden.index_select(1, readout))


@torch.no_grad()
def resume_to(
    encoder: NativeEncoder,
    prefix: Prefix,
    layer: int,
    after: Sequence[int],
    rows: Sequence[int],
    interventions: Sequence[Intervention] = (),
) -> Float[Tensor, "N K T D"]:
    """Computes the residual stream after some layers, in forward passes that begin at a layer.

    Args:
        encoder: the encoder of the prefix.
        prefix: the output of `record_prefix`.
        layer: the first layer to run.
        after: the K layers whose residual is returned, in rising order; the pass ends with the last of them, and a
            residual before `layer` is that of the clean pass.
        rows: the picture of the prefix that each of the N rows starts from; pictures may repeat.
        interventions: interventions at the layers that run.

    Raises:
        UsageError: if an intervention acts at a layer that does not run.
    """
    kept = _resumed(encoder, prefix, layer, after, rows, interventions, None)
    return torch.stack([kept[number] for number in after], dim=1)


def _resumed(
    encoder: NativeEncoder,
    prefix: Prefix,
    layer: int,
    after: Sequence[int],
    rows: Sequence[int],
    interventions: Sequence[Intervention],
    readout: Tensor | None,
) -> dict[int, Float[Tensor, "N T D"]]:
    """Computes the residual stream after some layers; after the last, only on the `readout` tokens unless None."""
    for intervention in interventions:
        site = intervention.site.check(encoder.spec.n_layers, encoder.spec.n_heads)
        if site.kind == "embed" or site.layer < layer:
            raise UsageError(f"{site} lies before layer {layer}, where this forward pass begins.")
        if site.layer > after[-1]:
            raise UsageError(f"{site} lies after layer {after[-1]}, where this forward pass ends.")
    layers, index = encoder.layers(), torch.tensor(list(rows), device=encoder.device)
    shorter: list[Hook] = []
    entering = index

    def at(number: int) -> list[Intervention]:
        return [intervention for intervention in interventions if intervention.site.layer == number]

    if prefix.shortcuts and len(set(rows)) == 1 and (hook := branch(layers[layer], at(layer), len(rows))):
        entering = index[:1]
        shorter.append(hook)
    if prefix.shortcuts and readout is not None and len(readout) < encoder.spec.n_tokens:
        shorter += narrow(layers[after[-1]], at(after[-1]), readout)
    hooks = map(encoder.native_hook, [*shorter, *intervention_hooks(layers, interventions)])
    with native_pass(encoder.model, encoder.spec.name, hooks):
        hidden = prefix.hidden[layer].index_select(0, entering)
        kept = {number: prefix.hidden[number + 1].index_select(0, index) for number in after if number < layer}
        for number in range(layer, after[-1] + 1):
            hidden = _call(encoder, layers[number].block, hidden, prefix, number, entering)
            entering = index
            if number in after:
                kept[number] = hidden
    return kept


@torch.no_grad()
def record_from(encoder: NativeEncoder, prefix: Prefix, sites: Sequence[Site]) -> dict[Site, Float[Tensor, "B T D"]]:
    """Records the values at sites of one layer on every token in the clean pass, by calling only that layer's block.

    Raises:
        UsageError: if the sites are not of one layer.
    """
    numbers = {site.check(encoder.spec.n_layers, encoder.spec.n_heads).layer for site in sites}
    if len(numbers) != 1:
        raise UsageError("only sites of one layer can be recorded from one block.")
    number, layers, kept = numbers.pop(), encoder.layers(), dict[Site, Tensor]()

    hooks = (hook for site in sites for hook in recording_hooks(layers, site, kept))
    index = torch.arange(len(prefix), device=encoder.device)
    with native_pass(encoder.model, encoder.spec.name, map(encoder.native_hook, hooks)):
        _call(encoder, layers[number].block, prefix.hidden[number], prefix, number, index)
    return {site: kept[site] for site in sites}


@torch.no_grad()
def head_values_from(encoder: NativeEncoder, prefix: Prefix, layer: int) -> Float[Tensor, "B T Hd"]:
    """Records the concatenated head values of a layer on every token in the clean pass, by calling only its block."""
    modules, kept = encoder.layers()[layer], list[Tensor]()

    def keep(args: tuple[Any, ...], _: dict[str, Any]) -> None:
        kept.append(modules.head_values(args).detach())

    hooks = [encoder.native_hook(Hook(modules.attn_proj, "before", keep, f"records head values of layer {layer}"))]
    with native_pass(encoder.model, encoder.spec.name, hooks):
        _call(encoder, modules.block, prefix.hidden[layer], prefix, layer, torch.arange(len(prefix)))
    (values,) = kept
    return values


def _call(encoder: NativeEncoder, block: Any, hidden: Tensor, prefix: Prefix, layer: int, index: Tensor) -> Tensor:
    B = len(prefix)

    def chosen(value: Any) -> Any:
        # Masks and the like have one row per picture; a value with another number of rows serves every picture.
        if isinstance(value, Tensor) and value.ndim > 1 and value.shape[0] == B > 1:
            return value.index_select(0, index)
        return value

    args = [chosen(value) for value in prefix.args[layer]]
    shared = encoder.shared_arguments
    kwargs = {key: value if key in shared else chosen(value) for key, value in prefix.kwargs[layer].items()}
    return encoder.call_block(block, hidden, args, kwargs)
