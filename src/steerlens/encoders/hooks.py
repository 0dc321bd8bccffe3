"""Hooks on a native model: they carry out interventions and recordings, and each must run exactly once.

An intervention on a head adds the change of the head's write to the attention output, one on a neuron the change of the
neuron's write to the MLP's output; so does an intervention at `resid_mid`, since that point is the input of no module.
So one rule serves every site and every architecture.

A hook that never fires is a result that was never computed: `native_pass` counts the calls of every hook and raises
unless each ran exactly once. It also ensures a plain pass: dropout off, no compiled graph in place of the modules, and
no autocast, neither around the pass nor inside the model.
"""

from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from threading import RLock
from typing import Any, Literal, TypeVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from steerlens.borders import native_errors, refuse_autocast
from steerlens.encoders.modules import LayerModules
from steerlens.errors import ModelError, SteerlensError, UsageError
from steerlens.interventions import Intervention
from steerlens.sites import NAMED_KINDS, SAE_KINDS, Site

_T = TypeVar("_T")

EXCLUSIVE = RLock()
"""Hooks belong to a model, not to a thread: a forward pass of another thread would run through them, and fill them."""


@dataclass(frozen=True, eq=False)
class Hook:
    """A function to run when a native module is entered or left.

    Attributes:
        module: the native module.
        when: `before` or `after` the module runs.
        act: called with the module's positional and keyword arguments, `after` also with its output. Its result
            replaces the arguments (`before`: both) or the output (`after`); None keeps them.
        purpose: purpose of the hook, for messages.
    """

    module: nn.Module
    when: Literal["before", "after"]
    act: Callable[..., Any]
    purpose: str = ""


class _Counted:
    """A registered hook that counts its calls, after a check of each."""

    def __init__(self, hook: Hook, check: Callable[[], None]) -> None:
        self.hook, self.calls, self.check = hook, 0, check
        before = hook.when == "before"
        register = hook.module.register_forward_pre_hook if before else hook.module.register_forward_hook
        self.handle: Any = register(self._run, with_kwargs=True)

    def _run(self, _: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], *output: Any) -> Any:
        self.check()
        self.calls += 1
        return self.hook.act(args, kwargs, *output)


class _InterventionError(Exception):
    """Carries an exception of a caller's own intervention past the border of native errors."""


@contextmanager
def native_pass(
    model: nn.Module, name: str, hooks: Iterable[Hook] = (), *, inner: nn.Module | None = None
) -> Generator[None]:
    """Runs a native model while open: exclusive, in evaluation mode, uncompiled, every hook checked.

    Modules in training mode are put into evaluation mode and restored afterwards, even after an error.

    Args:
        model: the native model.
        name: its name in messages.
        hooks: registered while the context is open.
        inner: a module deep in the model, for passes without hooks: autocast is looked for there too.

    Raises:
        ModelError: if the native model raises anything, or a hook does not run exactly once.
        UsageError: if autocast is on, or the model turns it on itself.
    """
    device = next((weight.device for weight in model.parameters()), torch.device("cpu"))
    refuse_autocast(device, name)
    check = partial(refuse_autocast, device, name, inside=True)
    border = native_errors(f"{name}: its forward pass failed", _InterventionError)
    try:
        evaluation, checked = as_in_evaluation(model), _checked(inner, check)
        with EXCLUSIVE, border, evaluation, checked, registered(hooks, model, name, check):
            yield
    except _InterventionError as carrier:
        raise carrier.args[0] from carrier.args[0].__cause__


@contextmanager
def _checked(inner: nn.Module | None, check: Callable[[], None]) -> Generator[None]:
    """Calls a check whenever a module is entered."""
    if inner is None:
        yield
        return
    handle = inner.register_forward_pre_hook(lambda *_: check())
    try:
        yield
    finally:
        handle.remove()


@contextmanager
def as_in_evaluation(model: nn.Module) -> Generator[None]:
    """Turns off dropout, checkpointing and compiled graphs while open.

    Graphs of `torch.compile` do not call the hooks of modules, or keep calling removed hooks; a checkpointed block runs
    again in the backward pass, after its hooks are removed.
    """
    changed: list[tuple[nn.Module, str]] = []
    try:
        for module in model.modules():
            own = vars(module)  # a look-up that fails is slow in a module, and there are hundreds, in every pass
            for switch in ("training", "grad_checkpointing"):
                if own.get(switch) is True:
                    setattr(module, switch, False)
                    changed.append((module, switch))
        with torch.compiler.set_stance("force_eager"):
            yield
    finally:
        for module, switch in changed:
            setattr(module, switch, True)


@contextmanager
def registered(
    hooks: Iterable[Hook],
    model: nn.Module | None = None,
    name: str = "the model",
    check: Callable[[], None] = lambda: None,
) -> Generator[None]:
    """Registers hooks while open, always removes them, and checks that each ran exactly once.

    Args:
        hooks: iterated lazily, so that a failing registration leaves no hook behind.
        model: the native model, in which hooked modules are looked up for messages.
        name: its name in messages.
        check: called before each hook acts.

    Raises:
        ModelError: if a hook did not run exactly once.
    """
    counted: list[_Counted] = []
    try:
        # Iterated inside the `try`: if a registration fails, those before it are undone.
        counted.extend(_Counted(hook, check) for hook in hooks)
        yield
    finally:
        for hook in counted:
            hook.handle.remove()
    for hook in counted:
        if hook.calls != 1:
            raise ModelError(_not_once(model, name, hook))


def _not_once(model: nn.Module | None, name: str, counted: _Counted) -> str:
    paths = () if model is None else model.named_modules()
    path = next((path for path, module in paths if module is counted.hook.module), "")
    where = path or f"a {type(counted.hook.module).__name__}"
    times = "never ran" if counted.calls == 0 else f"ran {counted.calls} times"
    purpose = f", which {counted.hook.purpose}," if counted.hook.purpose else ""
    return (
        f"{name}: the hook at {where}{purpose} {times} in one forward pass, where it must run once. The model does not "
        "call its modules as its family does: it may be compiled, traced to a graph, or have a forward of its own. "
        "Give the plain model: load it again, or wrap it before it is compiled."
    )


def intervention_hooks(layers: Sequence[LayerModules], interventions: Sequence[Intervention]) -> Iterator[Hook]:
    """Yields the hooks that carry out interventions.

    Args:
        layers: the native modules of each layer.
        interventions: applied in the order of the forward pass; at one site, in the order of the sequence.

    Raises:
        UsageError: if a site is a direction, group, region or feature, which is no place in the model, or a neuron that
            the model does not have.
    """
    by_layer: dict[int, list[Intervention]] = {}
    for intervention in interventions:
        site = intervention.site
        if site.kind in NAMED_KINDS:
            what = "direction" if site.kind == "vector" else site.kind
            raise UsageError(f"{site} is a {what}, not a place in the model: use Add at resid_post.N instead.")
        if site.kind in SAE_KINDS:
            raise UsageError(
                f"{site} is part of a sparse autoencoder, which the encoder does not know: give its intervention "
                "through steerlens.saes.feature_interventions."
            )
        if site.kind == "embed":
            intervention = replace(intervention, site=Site("resid_pre", 0))
        by_layer.setdefault(intervention.site.layer, []).append(intervention)
    for layer, chosen in by_layer.items():
        yield from _layer_hooks(layers[layer], chosen)


def _layer_hooks(modules: LayerModules, interventions: Sequence[Intervention]) -> Iterator[Hook]:
    def at(*kinds: str) -> list[Intervention]:
        return [intervention for intervention in interventions if intervention.site.kind in kinds]

    resid_pre, resid_mid, neurons = at("resid_pre"), at("resid_mid"), at("neuron")
    # Head values come before the writes of heads.
    before_heads = [intervention for intervention in at("head", "attn_out") if intervention.reads_head_values]
    attention = [intervention for intervention in at("head", "attn_out") if not intervention.reads_head_values]
    running: dict[str, Tensor] = {}

    def enter_block(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        value = running["resid_pre"] = _applied(hidden_states(args, kwargs), resid_pre)
        return ((value, *args[1:]), kwargs) if args else (args, {**kwargs, "hidden_states": value})

    def enter_projection(args: tuple[Any, ...], _: dict[str, Any]) -> None:
        running["head_values"] = modules.head_values(args)

    def leave_attention(_: tuple[Any, ...], __: dict[str, Any], output: Any) -> Any:
        value, writes = first(output), dict[int, Tensor]()
        for intervention in before_heads:
            running["head_values"], added = _through_heads(modules, running["head_values"], intervention)
            value = value + added.to(value.dtype)
        # Heads come before the attention output as a whole, which is their sum.
        for intervention in sorted(attention, key=lambda intervention: intervention.site.kind != "head"):
            head = intervention.site.head
            if intervention.site.kind == "head":
                # A second intervention on a head starts from the result of the first.
                write = writes[head] if head in writes else modules.head_write(running["head_values"], head)
                writes[head] = _applied(write, [intervention])
                value = value + (writes[head] - write).to(value.dtype)
            else:
                value = _applied(value, [intervention])
        if resid_mid:
            middle = running["resid_pre"] + value
            value = value + (_applied(middle, resid_mid) - middle)
        return with_first(output, value)

    def enter_neurons(args: tuple[Any, ...], _: dict[str, Any]) -> None:
        running["neurons"] = args[0]

    def leave_mlp(_: tuple[Any, ...], __: dict[str, Any], output: Any) -> Any:
        value, projection = first(output), modules.neurons() if neurons else None
        writes: dict[int, Tensor] = {}
        # Neurons come before the MLP's output as a whole, which is their sum.
        for intervention in neurons:
            index = intervention.site.index
            if projection is not None:
                write = writes[index] if index in writes else projection.write(running["neurons"], index)
                writes[index] = _applied(write, [intervention])
                value = value + (writes[index] - write).to(value.dtype)
        return with_first(output, _applied(value, at("mlp_out")))

    def leave(kind: str) -> Callable[..., Any]:
        return lambda _, __, output: with_first(output, _applied(first(output), at(kind)))

    def purpose(acting: Iterable[Intervention]) -> str:
        return f"intervenes at {', '.join(dict.fromkeys(str(intervention.site) for intervention in acting))}"

    if resid_pre or resid_mid:
        yield Hook(modules.block, "before", enter_block, purpose([*resid_pre, *resid_mid]))
    if at("head") or before_heads:
        yield Hook(modules.attn_proj, "before", enter_projection, purpose([*at("head"), *before_heads]))
    if at("head", "attn_out") or resid_mid:
        yield Hook(modules.attn_out, "after", leave_attention, purpose([*at("head", "attn_out"), *resid_mid]))
    if neurons:
        for intervention in neurons:
            modules.neurons().check(intervention.site)
        yield Hook(modules.neuron_module(), "before", enter_neurons, purpose(neurons))
    if neurons or at("mlp_out"):
        yield Hook(modules.mlp_out, "after", leave_mlp, purpose([*neurons, *at("mlp_out")]))
    if at("resid_post"):
        yield Hook(modules.block, "after", leave("resid_post"), purpose(at("resid_post")))


def recording_hooks(layers: Sequence[LayerModules], site: Site, kept: dict[Site, Tensor]) -> Iterator[Hook]:
    """Yields the hooks that store the value at a site on every token in `kept`.

    Raises:
        UsageError: if the site is a direction, group or region, which is no place in the model.
    """
    modules, purpose = layers[max(site.layer, 0)], f"records {site}"
    before: list[Tensor] = []

    def keep(hidden: Tensor) -> None:
        kept[site] = hidden.detach()

    if site.kind in ("embed", "resid_pre"):
        yield Hook(modules.block, "before", lambda args, kwargs: keep(hidden_states(args, kwargs)), purpose)
    elif site.kind == "resid_mid":
        yield Hook(modules.block, "before", lambda args, kwargs: before.append(hidden_states(args, kwargs)), purpose)
        yield Hook(modules.attn_out, "after", lambda _, __, output: keep(before.pop() + first(output)), purpose)
    elif site.kind == "head":
        yield Hook(
            modules.attn_proj,
            "before",
            lambda args, _: keep(modules.head_write(modules.head_values(args), site.head)),
            purpose,
        )
    elif site.kind == "neuron":
        projection, index = modules.neurons(), modules.neurons().check(site).index
        yield Hook(modules.neuron_module(), "before", lambda args, _: keep(projection.write(args[0], index)), purpose)
    elif site.kind in ("attn_out", "mlp_out", "resid_post"):
        module = {"attn_out": modules.attn_out, "mlp_out": modules.mlp_out, "resid_post": modules.block}[site.kind]
        yield Hook(module, "after", lambda _, __, output: keep(first(output)), purpose)
    else:
        raise UsageError(f"{site} is a {site.kind}, not a place in the model that can be recorded.")


def _through_heads(
    modules: LayerModules, values: Float[Tensor, "B T Hd"], intervention: Intervention
) -> tuple[Float[Tensor, "B T Hd"], Float[Tensor, "B T D"]]:
    """Changes head values; returns the new values and the change of the attention output."""
    site, weights = intervention.site, modules.head_weights()
    width = weights.shape[1]
    place = slice(site.head * width, (site.head + 1) * width) if site.kind == "head" else slice(None)
    projection = weights[site.head] if site.kind == "head" else weights.flatten(0, 1)
    old = values[..., place]
    new, added = _carried(lambda: intervention.through_heads(old, projection))
    changed = values.clone()
    changed[..., place] = new
    return changed, (new - old) @ projection.to(old) + added


def _applied(value: Tensor, interventions: Iterable[Intervention]) -> Tensor:
    for intervention in interventions:
        value = _carried(partial(intervention.apply, value))
    return value


def _carried(act: Callable[[], _T]) -> _T:
    """Calls an intervention, whose exceptions are the caller's own."""
    try:
        return act()
    except SteerlensError:
        raise
    except Exception as error:
        raise _InterventionError(error) from error


def hidden_states(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Float[Tensor, "B T D"]:
    """Returns the residual stream from the arguments of a block."""
    return args[0] if args else kwargs["hidden_states"]


def first(output: Any) -> Tensor:
    """Returns the hidden states of a module's output, which some libraries put first in a tuple."""
    return output[0] if isinstance(output, tuple) else output


def with_first(output: Any, value: Tensor) -> Any:
    """Returns a module's output with its hidden states replaced."""
    return (value, *output[1:]) if isinstance(output, tuple) else value
