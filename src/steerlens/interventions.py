"""Interventions as data: what to change at which site, carried out on the native model by hooks.

Every intervention maps the value `v` that a site holds in the running forward pass to a new one, `v' = f(v)`, in the
space of the residual stream (width D). At a head, `v` is the head's write `z_h W_O^h`, and the change `v' - v` is added
to the attention output; at `resid_mid` it is added there too, since that point is the input of no module. So one rule
serves every site and every architecture, and everything downstream reacts.
"""

from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from steerlens.errors import UsageError
from steerlens.sites import NAMED_KINDS, Site

if TYPE_CHECKING:
    from steerlens.encoders.native import LayerModules


@dataclass(frozen=True, eq=False)
class Intervention:
    """A change of what one site holds; subclasses say which.

    Attributes:
        site: where to act; any kind but those that a user named (add a direction with `Add` at a site of the residual
            stream).
        tokens: token positions to act on; None for all.
    """

    site: Site
    tokens: tuple[int, ...] | None = None

    def new_value(self, value: Float[Tensor, "B T D"]) -> Float[Tensor, "B T D"]:
        """The value that replaces `value`, on all tokens or on any shape that broadcasts to it."""
        raise NotImplementedError(type(self).__name__)

    def apply(self, value: Float[Tensor, "B T D"]) -> Float[Tensor, "B T D"]:
        """Carries the intervention out on the chosen tokens and leaves the others as they are."""
        if self.tokens is None:
            return self.new_value(value).to(value.dtype).expand_as(value)
        chosen = value[:, list(self.tokens)]
        changed = value.clone()
        changed[:, list(self.tokens)] = self.new_value(chosen).to(value.dtype).expand_as(chosen)
        return changed


@dataclass(frozen=True, eq=False)
class Scale(Intervention):
    """Multiplies by `factor`: one number, or one a picture of the batch, shape (B,). Steering is `Scale` with s > 1."""

    factor: float | Float[Tensor, "B"] = 1.0

    def new_value(self, value: Tensor) -> Tensor:
        factor = self.factor
        if not isinstance(factor, Tensor):
            return value * factor
        if factor.ndim > 1 or factor.numel() not in (1, value.shape[0]):
            raise UsageError(
                f"Scale at {self.site}: factors of shape {tuple(factor.shape)} do not fit {value.shape[0]} pictures; "
                "give one number, or one a picture."
            )
        return value * factor.to(value).view(-1, 1, 1)


@dataclass(frozen=True, eq=False)
class Add(Intervention):
    """Adds `vector`, of shape (D,), (T,D) or (B,T,D), where T counts the chosen tokens."""

    vector: Float[Tensor, "*#B D"] | None = None

    def new_value(self, value: Tensor) -> Tensor:
        return value + _given(self, self.vector, value)


@dataclass(frozen=True, eq=False)
class Zero(Intervention):
    """Removes what the site holds (zero ablation)."""

    def new_value(self, value: Tensor) -> Tensor:
        return torch.zeros_like(value)


@dataclass(frozen=True, eq=False)
class _Replacement(Intervention):
    """Shared by the interventions that put a given value, (D,), (T,D) or (B,T,D), in place of what is there."""

    value: Float[Tensor, "*#B D"] | None = None

    def new_value(self, value: Tensor) -> Tensor:
        return _given(self, self.value, value)


@dataclass(frozen=True, eq=False)
class Mean(_Replacement):
    """Replaces by the mean of the site over a reference set of pictures (mean ablation)."""


@dataclass(frozen=True, eq=False)
class Resample(_Replacement):
    """Replaces by what the site holds for other pictures (resample ablation), shape (B,T,D)."""


@dataclass(frozen=True, eq=False)
class Patch(_Replacement):
    """Holds the site at the value it had in another run of the same pictures, shape (B,T,D)."""


@dataclass(frozen=True, eq=False)
class ByRow(Intervention):
    """Carries another intervention at the same site out on some rows of the batch, and leaves the others as they are.

    Attributes:
        inner: what to carry out; tensors in it have one row for each of `rows`.
        rows: rows of the batch.
    """

    inner: Intervention | None = None
    rows: tuple[int, ...] = ()

    def apply(self, value: Float[Tensor, "B T D"]) -> Float[Tensor, "B T D"]:
        """Carries the inner intervention out on the chosen rows."""
        if self.inner is None or self.inner.site != self.site or self.tokens is not None:
            raise UsageError(f"ByRow at {self.site} takes an intervention at that site, which also names the tokens.")
        if not all(0 <= row < value.shape[0] for row in self.rows):
            raise UsageError(f"ByRow at {self.site}: the batch has {value.shape[0]} rows, counted from 0.")
        changed, chosen = value.clone(), list(self.rows)
        changed[chosen] = self.inner.apply(value[chosen]).to(value.dtype)
        return changed


def _given(intervention: Intervention, given: Tensor | None, value: Tensor) -> Tensor:
    if given is None:
        raise UsageError(f"{type(intervention).__name__} at {intervention.site} was given no tensor to use.")
    try:
        # What broadcasts to more pictures or tokens than the site has does not fit it either.
        fits = torch.broadcast_shapes(given.shape, value.shape) == value.shape
    except RuntimeError:
        fits = False
    if not fits:
        raise UsageError(
            f"{type(intervention).__name__} at {intervention.site}: a tensor of shape {tuple(given.shape)} does not "
            f"fit the site's (pictures, tokens, width) = {tuple(value.shape)}."
        )
    return given.to(value)


@contextmanager
def hooks(handles: Iterable[Any]) -> Generator[None]:
    """Removes the given hook handles when the block ends, whatever happens in it."""
    registered: list[Any] = []
    try:
        # The handles are drawn one by one inside the `try`: should one registration fail, those before it are undone.
        registered.extend(handles)
        yield
    finally:
        for handle in registered:
            handle.remove()


def intervention_handles(layers: "Sequence[LayerModules]", interventions: Sequence[Intervention]) -> Iterator[Any]:
    """Registers the hooks that carry out the interventions, and yields their handles.

    Args:
        layers: the native modules of each layer.
        interventions: carried out in the order of the forward pass; those at one site in the order given.

    Raises:
        UsageError: if a site is a direction of the user's, which is nowhere in the model.
    """
    by_layer: dict[int, list[Intervention]] = {}
    for intervention in interventions:
        site = intervention.site
        if site.kind in NAMED_KINDS:
            what = "direction" if site.kind == "vector" else site.kind
            raise UsageError(f"{site} is a {what}, not a place in the model: use Add at resid_post.N instead.")
        if site.kind == "embed":
            intervention = replace(intervention, site=Site("resid_pre", 0))
        by_layer.setdefault(intervention.site.layer, []).append(intervention)
    for layer, chosen in by_layer.items():
        yield from _layer_handles(layers[layer], chosen)


def _layer_handles(modules: "LayerModules", interventions: Sequence[Intervention]) -> Iterator[Any]:
    def at(*kinds: str) -> list[Intervention]:
        return [intervention for intervention in interventions if intervention.site.kind in kinds]

    resid_pre, attention, resid_mid = at("resid_pre"), at("head", "attn_out"), at("resid_mid")
    running: dict[str, Tensor] = {}

    def enter_block(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if args:
            value, args = _applied(args[0], resid_pre), args[1:]
            running["resid_pre"] = value
            return (value, *args), kwargs
        value = _applied(kwargs["hidden_states"], resid_pre)
        running["resid_pre"] = value
        return args, {**kwargs, "hidden_states": value}

    def enter_projection(_: nn.Module, args: tuple[Any, ...]) -> None:
        running["head_values"] = modules.head_values(args)

    def leave_attention(_: nn.Module, __: Any, output: Any) -> Any:
        value, writes = first(output), dict[int, Tensor]()
        # Heads come before the attention output as a whole, which is their sum.
        for intervention in sorted(attention, key=lambda one: one.site.kind != "head"):
            head = intervention.site.head
            if intervention.site.kind == "head":
                # A second intervention on a head meets what the first one left there.
                write = writes[head] if head in writes else modules.head_write(running["head_values"], head)
                writes[head] = intervention.apply(write)
                value = value + (writes[head] - write).to(value.dtype)
            else:
                value = intervention.apply(value)
        if resid_mid:
            middle = running["resid_pre"] + value
            value = value + (_applied(middle, resid_mid) - middle)
        return with_first(output, value)

    def leave(kind: str) -> Any:
        def hook(_: nn.Module, __: Any, output: Any) -> Any:
            return with_first(output, _applied(first(output), at(kind)))

        return hook

    if resid_pre or resid_mid:
        yield modules.block.register_forward_pre_hook(enter_block, with_kwargs=True)
    if at("head"):
        yield modules.attn_proj.register_forward_pre_hook(enter_projection)
    if attention or resid_mid:
        yield modules.attn_out.register_forward_hook(leave_attention)
    if at("mlp_out"):
        yield modules.mlp_out.register_forward_hook(leave("mlp_out"))
    if at("resid_post"):
        yield modules.block.register_forward_hook(leave("resid_post"))


def _applied(value: Tensor, interventions: Iterable[Intervention]) -> Tensor:
    for intervention in interventions:
        value = intervention.apply(value)
    return value


def first(output: Any) -> Tensor:
    """The hidden states in a module's output, which some libraries put first in a tuple."""
    return output[0] if isinstance(output, tuple) else output


def with_first(output: Any, value: Tensor) -> Any:
    """The same output with other hidden states."""
    return (value, *output[1:]) if isinstance(output, tuple) else value
