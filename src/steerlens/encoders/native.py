"""Shared by the adapters of libraries whose blocks can be hooked: tracing, recording and intervening.

An adapter names the native modules of each layer (`LayerModules`), runs the native forward pass and applies the native
readout. Everything else is here, once.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from threading import RLock
from typing import Any

import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor, nn

from steerlens.encoders.base import EncoderSpec, Inputs
from steerlens.errors import ModelError, UsageError
from steerlens.images import eight_bit
from steerlens.interventions import Intervention, first, hooks, intervention_handles
from steerlens.sites import Site
from steerlens.trace import Trace

EXCLUSIVE = RLock()
"""Hooks belong to a model, not to a thread: a forward pass of another thread would run through them, and fill them."""

Recorded = dict[int, tuple[Tensor, Tensor]]
"""By layer: attention patterns of the readout tokens (B,H,R,T) and value vectors of every token (B,H,T,d)."""


@dataclass(frozen=True, eq=False)
class LayerModules:
    """The native modules of one layer, and how its heads are projected into the residual stream.

    Attributes:
        block: takes the residual stream as its first argument and gives it back.
        attn_out: its output is what attention adds to the residual stream (the LayerScale where there is one).
        attn_proj: its input is the concatenated head values, (B,T,D), or what `values_of` makes them from.
        mlp_out: its output is what the MLP adds to the residual stream (the LayerScale where there is one).
        n_heads: H.
        out_weight: weight of the output projection, (D, H d), as a linear layer holds it.
        out_bias: its bias, (D,), or None.
        scale: LayerScale on attention, (D,), or None; it multiplies heads and bias alike.
        values_of: makes the head values from the arguments of `attn_proj`, for libraries that fuse attention with its
            projection (`nn.MultiheadAttention`); None where the first argument is the head values.
    """

    block: nn.Module
    attn_out: nn.Module
    attn_proj: nn.Module
    mlp_out: nn.Module
    n_heads: int
    out_weight: Float[Tensor, "D Hd"]
    out_bias: Float[Tensor, "D"] | None
    scale: Float[Tensor, "D"] | None = None
    values_of: Callable[[tuple[Any, ...]], Tensor] | None = None

    def head_values(self, args: tuple[Any, ...]) -> Float[Tensor, "B T Hd"]:
        """The concatenated head values, from the arguments that `attn_proj` was called with."""
        return args[0] if self.values_of is None else self.values_of(args)

    def head_weights(self) -> Float[Tensor, "H d D"]:
        """Each head's slice of the output projection, LayerScale included; a view where there is no LayerScale."""
        D = self.out_weight.shape[0]
        weights = self.out_weight.detach().T.reshape(self.n_heads, -1, D)
        return weights if self.scale is None else weights * self.scale.detach()

    def bias(self) -> Float[Tensor, "D"]:
        """The bias that attention adds besides its heads, LayerScale included; zeros where there is none."""
        bias = self.out_weight.new_zeros(self.out_weight.shape[0]) if self.out_bias is None else self.out_bias
        return bias.detach() if self.scale is None else (bias * self.scale).detach()

    def head_write(self, head_values: Float[Tensor, "B T Hd"], head: int) -> Float[Tensor, "B T D"]:
        """What one head writes on every token, from the input of the output projection."""
        width = head_values.shape[-1] // self.n_heads
        return head_values[..., head * width : (head + 1) * width] @ self.head_weights()[head]


class NativeEncoder(ABC):
    """An encoder whose native blocks are hooked; the base of every adapter in this package."""

    spec: EncoderSpec
    model: nn.Module

    @abstractmethod
    def layers(self) -> Sequence[LayerModules]:
        """The native modules, layer by layer."""

    @abstractmethod
    def readout(self, residual: Float[Tensor, "N R D"]) -> Float[Tensor, "N E"]:
        """The model's own final norm, pooling and projection of the residual of the readout tokens."""

    @abstractmethod
    def native_forward(self, inputs: Inputs) -> Float[Tensor, "B E"]:
        """One call of the native model."""

    @abstractmethod
    def preprocess(self, images: Sequence[Image.Image]) -> Inputs:
        """Pictures as the model wants them, on its device."""

    @abstractmethod
    def recording_attention(self, tokens: Sequence[int]) -> AbstractContextManager[Recorded]:
        """While it is open, forward passes record patterns (of the given query tokens) and values, by layer."""

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return next(self.model.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        """The precision of its weights."""
        return next(self.model.parameters()).dtype

    @property
    def linear_after(self) -> nn.Module | None:
        """The final norm, if all that the readout does after it is linear; None if it is not, or not known to be."""
        return None

    def declare(self, spec: EncoderSpec) -> None:
        """Sets the spec; the size of the embedding is asked of the readout, since pooling and heads decide it."""
        self.spec = spec
        with torch.no_grad():
            empty = torch.zeros(1, len(self.readout_tokens), spec.width, device=self.device, dtype=self.dtype)
            self.spec = replace(spec, embedding_size=self.readout(empty).shape[-1])

    @property
    def readout_tokens(self) -> tuple[int, ...]:
        """Indices of the tokens that the embedding is read from."""
        tokens = self.spec.readout_tokens
        return tuple(range(self.spec.n_tokens)) if tokens is None else tokens

    def projections(self) -> tuple[tuple[Float[Tensor, "H d D"], ...], Float[Tensor, "L D"]]:
        """The parts of a trace that are weights: each layer's slices for its heads, and its attention's bias."""
        layers = self.layers()
        return tuple(modules.head_weights() for modules in layers), torch.stack([modules.bias() for modules in layers])

    def preprocess_tensor(self, pictures: Float[Tensor, "B 3 height width"]) -> Inputs:
        """Pictures with values in [0,1] as the model wants them.

        They go through the 8-bit pictures that a file would hold, so that a decoded picture scores the same before and
        after it is saved.
        """
        return self.preprocess([Image.fromarray(array) for array in eight_bit(pictures)])

    def zero_embedding(self) -> Float[Tensor, "1 E"]:
        """The embedding of all-zero `pixel_values`, Kandinsky's unconditional embedding.

        This is not the embedding of a black picture, whose normalised pixels are not zero.
        """
        inputs = dict(self.preprocess([Image.new("RGB", (self.spec.image_size[1], self.spec.image_size[0]))]))
        return self.embed({**inputs, "pixel_values": torch.zeros_like(inputs["pixel_values"])})

    def forward(self, inputs: Inputs | Tensor, interventions: Sequence[Intervention] = ()) -> Float[Tensor, "B E"]:
        """The true forward pass under interventions, everything downstream reacting; gradients flow.

        Raises:
            UsageError: if an intervention is at a site, a head or a token that the model does not have.
        """
        self._check_interventions(interventions)
        with EXCLUSIVE, hooks(intervention_handles(self.layers() if interventions else (), interventions)):
            return self.native_forward(self._inputs(inputs))

    @torch.no_grad()
    def embed(self, inputs: Inputs | Tensor, interventions: Sequence[Intervention] = ()) -> Float[Tensor, "B E"]:
        """`forward` without gradients.

        Raises:
            UsageError: as `forward`.
        """
        return self.forward(inputs, interventions)

    @torch.no_grad()
    def trace(self, inputs: Inputs | Tensor, *, attention: bool = False) -> Trace:
        """The decomposition of the readout tokens' final residual, from one forward pass.

        Args:
            inputs: what `preprocess` gave, or its pixel values alone.
            attention: also keep the readout tokens' attention patterns and every token's value vectors.

        Raises:
            ModelError: if the model does not run its blocks, or its attention, the way its family does.
        """
        layers, inputs = self.layers(), self._inputs(inputs)
        index = torch.tensor(self.readout_tokens, device=self.device)
        store: dict[str, list[Tensor]] = {key: [] for key in ("embed", "values", "attn_out", "mlp_out", "resid_post")}

        def keep(key: str, hidden: Tensor) -> None:
            # A copy of the readout tokens, never a view: a view would keep the whole activation alive.
            store[key].append(hidden.index_select(1, index))

        def handles() -> Iterator[Any]:
            yield layers[0].block.register_forward_pre_hook(
                lambda _, args, kwargs: keep("embed", args[0] if args else kwargs["hidden_states"]), with_kwargs=True
            )
            for modules in layers:
                yield modules.attn_proj.register_forward_pre_hook(_input_hook(keep, modules))
                yield modules.attn_out.register_forward_hook(_output_hook(keep, "attn_out"))
                yield modules.mlp_out.register_forward_hook(_output_hook(keep, "mlp_out"))
                yield modules.block.register_forward_hook(_output_hook(keep, "resid_post"))

        recording = self.recording_attention(self.readout_tokens) if attention else nullcontext()
        with EXCLUSIVE, hooks(handles()), recording as recorded:
            embedding = self.native_forward(inputs)
        self._check_captured(store)
        stacked = {key: torch.stack(rows, dim=1) for key, rows in store.items()}
        B, L, R, _ = stacked["values"].shape
        head_values = stacked["values"].view(B, L, R, self.spec.n_heads, -1).transpose(2, 3)
        patterns, token_values = _by_layer(recorded, L) if recorded is not None else (None, None)
        return Trace(
            stacked["embed"][:, 0],
            head_values,
            stacked["attn_out"],
            stacked["mlp_out"],
            stacked["resid_post"],
            *self.projections(),
            embedding,
            patterns,
            token_values,
        )

    @torch.no_grad()
    def record(
        self, inputs: Inputs | Tensor, sites: Sequence[Site], interventions: Sequence[Intervention] = ()
    ) -> dict[Site, Float[Tensor, "B T D"]]:
        """What sites hold on every token, from one forward pass.

        Interventions act before recording. At a head, what is recorded is its write before any intervention on it.

        Raises:
            UsageError: if the model has no such site.
        """
        layers, kept = self.layers(), dict[Site, Tensor]()
        for site in sites:
            site.check(self.spec.n_layers, self.spec.n_heads)

        def handles() -> Iterator[Any]:
            yield from intervention_handles(layers, interventions)
            for site in sites:
                yield from recording_handles(layers, site, kept)

        self._check_interventions(interventions)
        with EXCLUSIVE, hooks(handles()):
            self.native_forward(self._inputs(inputs))
        return {site: kept[site] for site in sites}

    def _inputs(self, inputs: Inputs | Tensor) -> Inputs:
        return {"pixel_values": inputs} if isinstance(inputs, Tensor) else inputs

    def _check_interventions(self, interventions: Sequence[Intervention]) -> None:
        for intervention in interventions:
            intervention.site.check(self.spec.n_layers, self.spec.n_heads)
            tokens = intervention.tokens or ()
            if not all(-self.spec.n_tokens <= token < self.spec.n_tokens for token in tokens):
                raise UsageError(f"{intervention.site}: the model has {self.spec.n_tokens} tokens a picture.")

    def _check_captured(self, store: dict[str, list[Tensor]]) -> None:
        for key, rows in store.items():
            wanted = 1 if key == "embed" else self.spec.n_layers
            if len(rows) != wanted:
                raise ModelError(
                    f"{self.spec.name}: {key} was seen {len(rows)} times in a forward pass of {wanted} layers; the "
                    "model does not run its blocks the way its family does, so it cannot be traced."
                )


def _output_hook(keep: Callable[[str, Tensor], None], key: str) -> Callable[[nn.Module, Any, Any], None]:
    def hook(_: nn.Module, __: Any, output: Any) -> None:
        keep(key, first(output))

    return hook


def _input_hook(keep: Callable[[str, Tensor], None], modules: LayerModules) -> Callable[[nn.Module, Any], None]:
    def hook(_: nn.Module, args: tuple[Any, ...]) -> None:
        keep("values", modules.head_values(args))

    return hook


def _by_layer(recorded: Recorded, n_layers: int) -> tuple[Tensor, Tensor]:
    if sorted(recorded) != list(range(n_layers)):
        raise ModelError("the model's attention did not go through the recording function in every layer.")
    pairs = [recorded[layer] for layer in range(n_layers)]
    return torch.stack([pair[0] for pair in pairs], dim=1), torch.stack([pair[1] for pair in pairs], dim=1)


def recording_handles(layers: Sequence[LayerModules], site: Site, kept: dict[Site, Tensor]) -> Iterator[Any]:
    """Registers hooks that put what a site holds on every token into `kept`, and yields their handles.

    Raises:
        UsageError: if the site is a direction of the user's.
    """
    modules = layers[max(site.layer, 0)]

    def keep(hidden: Tensor) -> None:
        kept[site] = hidden.detach()

    if site.kind in ("embed", "resid_pre"):
        yield modules.block.register_forward_pre_hook(
            lambda _, args, kwargs: keep(args[0] if args else kwargs["hidden_states"]), with_kwargs=True
        )
    elif site.kind == "resid_mid":
        before: list[Tensor] = []
        yield modules.block.register_forward_pre_hook(
            lambda _, args, kwargs: before.append(args[0] if args else kwargs["hidden_states"]), with_kwargs=True
        )
        yield modules.attn_out.register_forward_hook(lambda _, __, output: keep(before.pop() + first(output)))
    elif site.kind == "head":
        yield modules.attn_proj.register_forward_pre_hook(
            lambda _, args: keep(modules.head_write(modules.head_values(args), site.head))
        )
    elif site.kind in ("attn_out", "mlp_out", "resid_post"):
        module = {"attn_out": modules.attn_out, "mlp_out": modules.mlp_out, "resid_post": modules.block}[site.kind]
        yield module.register_forward_hook(lambda _, __, output: keep(first(output)))
    else:
        raise UsageError(f"{site} is a direction, not a place in the model.")
