"""Base class of adapters for models whose blocks can be hooked: tracing, recording and intervening.

An adapter names the native modules of each layer (`LayerModules`), preprocesses pictures, runs the native forward pass
and applies the native readout. Everything else is here: inputs and outputs are checked against the spec, and any
exception of native code becomes a `ModelError`.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from typing import Any

import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor, nn

from steerlens.borders import native_errors
from steerlens.encoders.arguments import check_images, check_interventions, check_preprocessing, pixel_values
from steerlens.encoders.base import EncoderSpec, Inputs
from steerlens.encoders.geometry import Geometry, geometry_of
from steerlens.encoders.hooks import (
    EXCLUSIVE,
    Hook,
    first,
    hidden_states,
    intervention_hooks,
    native_pass,
    recording_hooks,
    with_first,
)
from steerlens.encoders.modules import LayerModules
from steerlens.encoders.recorded import Recorded, stacked_attention
from steerlens.errors import ModelError, UsageError
from steerlens.images import eight_bit, upright_rgb
from steerlens.interventions import Intervention
from steerlens.neurons import Neurons
from steerlens.sites import Site
from steerlens.storage.parameters import check_numbers
from steerlens.trace import Trace


class NativeEncoder(ABC):
    """An encoder whose native blocks are hooked; the base of every adapter in this package.

    Adapters implement `layers`, `recording_attention` and the three `native_...` methods, which call the library's own
    code and need no checks of their own.
    """

    spec: EncoderSpec
    model: nn.Module

    def __repr__(self) -> str:
        spec = self.spec
        sizes = f"{spec.n_layers} layers x {spec.n_heads} heads, width {spec.width}, embedding {spec.embedding_size}"
        return f"{type(self).__name__}({spec.name or spec.family}: {sizes})"

    @abstractmethod
    def layers(self) -> Sequence[LayerModules]:
        """The native modules, layer by layer."""

    @abstractmethod
    def native_forward(self, inputs: Inputs) -> Float[Tensor, "B E"]:
        """Calls the native model once."""

    @abstractmethod
    def recording_attention(self, tokens: Sequence[int]) -> AbstractContextManager[Recorded]:
        """Records patterns (of the given query tokens) and values, by layer, of one forward pass while open."""

    # Not abstract: adapters written before these two existed override `readout` and `preprocess` instead.
    def native_readout(self, residual: Float[Tensor, "N R D"]) -> Float[Tensor, "N E"]:
        """The model's own final norm, pooling and projection of the residual of the readout tokens."""
        raise NotImplementedError(f"{type(self).__name__} defines no native_readout")

    def native_preprocess(self, images: Sequence[Image.Image]) -> Inputs:
        """Applies the model's own preprocessing to RGB pictures, on its device and in its precision."""
        raise NotImplementedError(f"{type(self).__name__} defines no native_preprocess")

    @property
    def device(self) -> torch.device:
        """The device of the model's weights."""
        return next(self.model.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        """The precision of the model's weights."""
        return next(self.model.parameters()).dtype

    @property
    def linear_after(self) -> nn.Module | None:
        """The final norm, if the readout after it is known to be linear; else None."""
        return None

    @property
    def shared_arguments(self) -> frozenset[str]:
        """Keyword arguments of the native blocks that serve every picture of a batch, whatever their shape."""
        return frozenset()

    @property
    def packs_pictures(self) -> bool:
        """True if native blocks take all pictures as one sequence of tokens; see `arranged` and `packed`."""
        return False

    def arranged(self, hidden: Tensor) -> Float[Tensor, "B T D"]:
        """Arranges a native tensor by picture and token, patches row by row; by default it is."""
        return hidden

    def packed(self, hidden: Float[Tensor, "B T D"]) -> Tensor:
        """The inverse of `arranged`."""
        return hidden

    def native_hook(self, hook: Hook) -> Hook:
        """Returns a hook on a native module that acts on values arranged by picture and token."""
        if not self.packs_pictures:
            return hook

        def act(args: tuple[Any, ...], kwargs: dict[str, Any], *output: Any) -> Any:
            if output:
                changed = hook.act(args, kwargs, with_first(output[0], self.arranged(first(output[0]))))
                return None if changed is None else with_first(changed, self.packed(first(changed)))
            changed = hook.act((self.arranged(args[0]), *args[1:]), kwargs)
            return None if changed is None else ((self.packed(changed[0][0]), *changed[0][1:]), changed[1])

        return replace(hook, act=act)

    def call_block(
        self, block: nn.Module, hidden: Float[Tensor, "B T D"], args: Sequence[Any], kwargs: Mapping[str, Any]
    ) -> Float[Tensor, "B T D"]:
        """Calls a native block by itself.

        Args:
            block: the block.
            hidden: the residual stream that enters it, of any number of rows.
            args: its other positional arguments, with a row for each of `hidden` where they have rows.
            kwargs: its keyword arguments.
        """
        return first(block(hidden, *args, **kwargs))

    def declare(self, spec: EncoderSpec) -> None:
        """Sets the spec, completed with the embedding size of the readout and the geometry of the preprocessing.

        Raises:
            ModelError: if weights are on the meta device or quantised, the readout fails, or the preprocessing does not
                tell white from black.
        """
        check_numbers(self.model, spec.name)
        self.spec = spec
        with torch.no_grad():
            empty = torch.zeros(1, len(self.readout_tokens), spec.width, device=self.device, dtype=self.dtype)
            self.spec = replace(spec, embedding_size=self.readout(empty).shape[-1])
        check_preprocessing(self.native_preprocess, spec.name)
        if spec.geometry is None:
            geometry = self.geometry()
            self.spec = replace(self.spec, geometry=geometry, crops=geometry.crops)

    @property
    def readout_tokens(self) -> tuple[int, ...]:
        """Indices of the tokens that the embedding is read from."""
        tokens = self.spec.readout_tokens
        return tuple(range(self.spec.n_tokens)) if tokens is None else tokens

    def geometry(self) -> Geometry:
        """Geometry of the preprocessing, read from `processor` and confirmed on marked pictures."""

        def pixels(images: Sequence[Image.Image]) -> Tensor:
            return self.native_preprocess(images)["pixel_values"]

        return geometry_of(getattr(self, "processor", None), self.spec.image_size, pixels)

    def projections(self) -> tuple[tuple[Float[Tensor, "H d D"], ...], Float[Tensor, "L D"]]:
        """Returns the weights of a trace: each layer's output projection sliced by head, and its attention's bias."""
        layers = self.layers()
        return tuple(modules.head_weights() for modules in layers), torch.stack([modules.bias() for modules in layers])

    def preprocess(self, images: Sequence[Image.Image]) -> Inputs:
        """Turns pictures into the model's inputs, on its device.

        Raises:
            UsageError: if there is no picture, or something else than a PIL image.
            PictureError: if a picture cannot be converted to 8-bit RGB.
            ModelError: if the preprocessing fails, or gives tensors of another shape than the model sees.
        """
        check_images(images)
        with native_errors(f"{self.spec.name}: its image processor failed"):
            inputs = self.native_preprocess([upright_rgb(image) for image in images])
            misfit = self.misfit(inputs)
        if misfit is not None:
            height, width = self.spec.image_size
            raise ModelError(
                f"{self.spec.name}: its image processor gives pictures of shape {misfit}, where the model sees "
                f"{(3, height, width)} (channels, height, width); give the processor that belongs to the model, which "
                "gives every picture the same size."
            )
        return inputs

    def preprocess_tensor(self, pictures: Float[Tensor, "B 3 height width"]) -> Inputs:
        """Turns pictures with values in [0,1] into the model's inputs.

        They are rounded to 8 bits first, as in a file, so that a decoded picture scores the same before and after
        saving.
        """
        return self.preprocess([Image.fromarray(array) for array in eight_bit(pictures)])

    def zero_embedding(self) -> Float[Tensor, "1 E"]:
        """The embedding of all-zero `pixel_values`, Kandinsky's unconditional embedding.

        This is not the embedding of a black picture, whose normalised pixels are not zero.
        """
        inputs = dict(self.preprocess([Image.new("RGB", (self.spec.image_size[1], self.spec.image_size[0]))]))
        return self.embed({**inputs, "pixel_values": torch.zeros_like(inputs["pixel_values"])})

    def readout(self, residual: Float[Tensor, "N R D"]) -> Float[Tensor, "N E"]:
        """The model's own final norm, pooling and projection of the residual of the readout tokens."""
        with native_pass(self.model, self.spec.name):
            return self.native_readout(residual)

    def forward(self, inputs: Inputs | Tensor, interventions: Sequence[Intervention] = ()) -> Float[Tensor, "B E"]:
        """Runs the true forward pass under interventions, everything downstream reacting; gradients flow.

        Raises:
            UsageError: if an intervention is at a site, a head or a token that the model does not have, or the inputs
                have another shape than the model takes.
            ModelError: if the native model fails, or an intervention was not carried out.
        """
        self._check_interventions(interventions)
        hooks = intervention_hooks(self.layers(), interventions) if interventions else ()
        return self.run(self.model_inputs(inputs), hooks)

    @torch.no_grad()
    def embed(self, inputs: Inputs | Tensor, interventions: Sequence[Intervention] = ()) -> Float[Tensor, "B E"]:
        """`forward` without gradients.

        Raises:
            UsageError: as `forward`.
            ModelError: as `forward`.
        """
        return self.forward(inputs, interventions)

    @torch.no_grad()
    def trace(self, inputs: Inputs | Tensor, *, attention: bool = False, neurons: bool = False) -> Trace:
        """Decomposes the final residual of the readout tokens, in one forward pass.

        Args:
            inputs: the output of `preprocess`, or its pixel values alone.
            attention: also keep the readout tokens' attention patterns and every token's value vectors.
            neurons: also keep the readout tokens' activations of every MLP's neurons.

        Raises:
            UsageError: if the inputs have another shape than the model takes, or its MLPs cannot be taken apart.
            ModelError: if the native model fails, or does not run its blocks or its attention as its family does.
            TraceError: if neurons do not add up to the output of their MLP.
        """
        layers, inputs = self.layers(), self.model_inputs(inputs)
        index = torch.tensor(self.readout_tokens, device=self.device)
        keys = ("embed", "values", "attn_out", "mlp_out", "resid_post", "neurons")
        store: dict[str, list[Tensor]] = {key: [] for key in keys}
        projections = tuple(modules.neurons() for modules in layers) if neurons else ()

        def keep(key: str, hidden: Tensor) -> None:
            if hidden.ndim != 3 or hidden.shape[1] != self.spec.n_tokens:
                raise ModelError(
                    f"{self.spec.name}: {key} has shape {tuple(hidden.shape)} where its {self.spec.n_tokens} tokens "
                    "were expected; the model does not see what its adapter describes."
                )
            # Copies the readout tokens: a view would keep the whole activation alive.
            store[key].append(hidden.index_select(1, index))

        def output(key: str) -> Callable[..., None]:
            return lambda _, __, output: keep(key, first(output))

        def values(modules: LayerModules) -> Callable[..., None]:
            return lambda args, _: keep("values", modules.head_values(args))

        def units(args: tuple[Any, ...], _: dict[str, Any]) -> None:
            keep("neurons", args[0])

        def hooks() -> Iterator[Hook]:
            yield Hook(
                layers[0].block,
                "before",
                lambda args, kwargs: keep("embed", hidden_states(args, kwargs)),
                "records embed",
            )
            for layer, modules in enumerate(layers):
                yield Hook(modules.attn_proj, "before", values(modules), f"records the heads of layer {layer}")
                for key, module in (
                    ("attn_out", modules.attn_out),
                    ("mlp_out", modules.mlp_out),
                    ("resid_post", modules.block),
                ):
                    yield Hook(module, "after", output(key), f"records {key}.{layer}")
                if neurons:
                    yield Hook(modules.neuron_module(), "before", units, f"records the neurons of layer {layer}")

        recording = self.recording_attention(self.readout_tokens) if attention else nullcontext()
        with EXCLUSIVE, recording as recorded:
            embedding = self.run(inputs, hooks())
        recorded_neurons = Neurons(tuple(store.pop("neurons")), projections) if neurons else None
        stacked = {key: torch.stack(rows, dim=1) for key, rows in store.items() if rows}
        if recorded_neurons is not None:
            recorded_neurons.check(stacked["mlp_out"])
        B, L, R, _ = stacked["values"].shape
        head_values = stacked["values"].view(B, L, R, self.spec.n_heads, -1).transpose(2, 3)
        attention_parts = () if recorded is None else stacked_attention(recorded, L)
        with native_errors(f"{self.spec.name}: its output projections cannot be read"):
            weights = self.projections()
        return Trace(
            stacked["embed"][:, 0],
            head_values,
            stacked["attn_out"],
            stacked["mlp_out"],
            stacked["resid_post"],
            *weights,
            embedding,
            *attention_parts,
            recorded_neurons=recorded_neurons,
        )

    @torch.no_grad()
    def record(
        self, inputs: Inputs | Tensor, sites: Sequence[Site], interventions: Sequence[Intervention] = ()
    ) -> dict[Site, Float[Tensor, "B T D"]]:
        """Records the values at sites on every token, in one forward pass.

        Interventions act before recording. At a head, its write before any intervention on it is recorded.

        Raises:
            UsageError: if the model has no such site, or the inputs have another shape than it takes.
            ModelError: if the native model fails, or an intervention or a recording was not carried out.
        """
        layers, kept = self.layers(), dict[Site, Tensor]()
        for site in sites:
            site.check(self.spec.n_layers, self.spec.n_heads)

        def hooks() -> Iterator[Hook]:
            yield from intervention_hooks(layers, interventions)
            for site in sites:
                yield from recording_hooks(layers, site, kept)

        self._check_interventions(interventions)
        self.run(self.model_inputs(inputs), hooks())
        return {site: kept[site] for site in sites}

    def run(self, inputs: Inputs, hooks: Iterator[Hook] | Sequence[Hook] = ()) -> Float[Tensor, "B E"]:
        """Runs one native forward pass with hooks.

        Raises:
            ModelError: if the native model fails, a hook does not run exactly once, or the embedding has another shape
                than the spec says.
        """
        inner = self.layers()[-1].mlp_out
        with native_pass(self.model, self.spec.name, map(self.native_hook, hooks), inner=inner):
            embedding = self.native_forward(inputs)
            shape = tuple(embedding.shape)
        if len(shape) != 2 or shape[1] != self.spec.embedding_size:
            raise ModelError(
                f"{self.spec.name} gives embeddings of shape {shape}, where (pictures, {self.spec.embedding_size}) was "
                "expected."
            )
        return embedding

    def model_inputs(self, inputs: Inputs | Tensor) -> Inputs:
        """Checks the arguments of the native model and returns them by name; a bare tensor is the pixel values.

        Raises:
            UsageError: if they are no tensors, or have another kind or shape than the model takes.
        """
        named: Inputs = {"pixel_values": inputs} if isinstance(inputs, Tensor) else inputs
        pixel_values(named, self.spec.name)
        shape = self.misfit(named)
        if shape is not None:
            height, width = self.spec.image_size
            raise UsageError(
                f"{self.spec.name} sees pictures of 3 channels and {height} x {width} pixels, not of shape {shape}; "
                "make them by `preprocess`."
            )
        return named

    def misfit(self, inputs: Inputs) -> tuple[int, ...] | None:
        """Returns the shape of each picture if it differs from the spec's; None if it fits."""
        if "pixel_values" not in inputs:
            return None
        shape = tuple(inputs["pixel_values"].shape)
        return None if len(shape) == 4 and shape[1:] == (3, *self.spec.image_size) else shape[1:]

    def _check_interventions(self, interventions: Sequence[Intervention]) -> None:
        check_interventions(interventions, self.spec)
