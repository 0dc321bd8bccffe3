"""Value paths: how attention, with its patterns frozen, reads the residual stream of every token.

With the divisor of the norm before attention frozen at its value σ in the clean run, the value vectors of a token are
affine in its residual x, and so is what each head writes:

    v = c + (x / σ) M,    M = C γ W_V        write of a head: Σ_t A[r,t] v_t W_O

M is measured, not read from weights: one forward pass in which every block reads unit vectors instead of its residual.
So it is right for every layout of a native model's projections, and it is checked against the values of the clean run.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from jaxtyping import Float
from torch import Tensor, nn

from steerlens.encoders.base import Inputs
from steerlens.encoders.hooks import EXCLUSIVE, Hook, first, hidden_states, native_pass
from steerlens.encoders.native import NativeEncoder
from steerlens.encoders.recorded import stacked_attention
from steerlens.errors import ModelError, UsageError


@dataclass(frozen=True, eq=False)
class ValuePaths:
    """Attention of every layer as a frozen, linear reader of the residual stream, for a batch of pictures.

    Attributes:
        patterns: attention patterns of the readout tokens.
        divisors: divisor of the norm before attention, of every token.
        maps: M of each layer: what a unit of residual adds to the values of each head, for a divisor of 1.
        out_weights: each head's slice of the output projection, LayerScale included.
        scale: if the model normalises heads before their projection, the factor of each, frozen; else None.
        neurons: activations of each layer's neurons on every token.
    """

    patterns: Float[Tensor, "B L H R T"]
    divisors: Float[Tensor, "B L T"]
    maps: tuple[Float[Tensor, "D H d"], ...]
    out_weights: tuple[Float[Tensor, "H d D"], ...]
    scale: Float[Tensor, "B L H R d"] | None
    neurons: tuple[Float[Tensor, "B T M"], ...]

    @property
    def n_layers(self) -> int:
        """L."""
        return len(self.maps)


@torch.no_grad()
def value_paths(encoder: NativeEncoder, inputs: Inputs | Tensor) -> ValuePaths:
    """Records patterns, divisors and neurons of a forward pass, and measures the maps to values.

    Raises:
        UsageError: if blocks do not normalise their input before attention, or their MLPs cannot be taken apart.
        ModelError: if values of the clean run are not those of the measured maps.
    """
    if encoder.packs_pictures:
        raise UsageError(f"{encoder.spec.name}: attention within windows cannot be followed token by token.")
    named, layers = encoder.model_inputs(inputs), encoder.layers()
    norms = _norms(encoder, named)
    hidden: dict[int, Tensor] = {}
    divisors: dict[int, Tensor] = {}
    neurons: dict[int, Tensor] = {}

    def hooks() -> Iterator[Hook]:
        for layer, modules in enumerate(layers):
            yield Hook(norms[layer], "before", _keep(hidden, layer), f"reads the norm before attention {layer}")
            unit = modules.neuron_module()
            yield Hook(unit, "before", _keep(neurons, layer), f"records the neurons of layer {layer}")

    with EXCLUSIVE, encoder.recording_attention(encoder.readout_tokens) as recorded:
        encoder.run(named, hooks())
    patterns, values, scale, _ = stacked_attention(recorded, len(layers))
    maps, constants = _measured_maps(encoder, named, norms)
    for layer in range(len(layers)):
        divisors[layer] = norm_divisor(norms[layer], hidden[layer])[..., 0]
    paths = ValuePaths(
        cast(Tensor, patterns),
        torch.stack([divisors[layer] for layer in range(len(layers))], dim=1),
        maps,
        encoder.projections()[0],
        scale,
        tuple(neurons[layer] for layer in range(len(layers))),
    )
    _check(encoder, paths, hidden, constants, cast(Tensor, values))
    return paths


def norm_divisor(norm: Any, values: Float[Tensor, "*N D"]) -> Float[Tensor, "*N 1"]:
    """Returns the divisor of a LayerNorm or an RMSNorm, 1 where there is no norm."""
    wide = values.to(torch.promote_types(values.dtype, torch.float32))
    if isinstance(norm, nn.Identity):
        return torch.ones_like(wide[..., :1])
    if isinstance(norm, nn.LayerNorm):
        return (wide.var(dim=-1, keepdim=True, correction=0) + norm.eps).sqrt()
    epsilon = getattr(norm, "variance_epsilon", None)
    epsilon = getattr(norm, "eps", None) if epsilon is None else epsilon
    if epsilon is None:
        raise UsageError(f"the divisor of a {type(norm).__name__} is not known.")
    return (wide.square().mean(dim=-1, keepdim=True) + epsilon).sqrt()


def _keep(kept: dict[int, Tensor], layer: int) -> Callable[..., None]:
    def act(args: tuple[Any, ...], _: dict[str, Any]) -> None:
        kept[layer] = args[0].detach()

    return act


def _norms(encoder: NativeEncoder, inputs: Inputs) -> list[nn.Module]:
    """The module in each block that normalises the block's input, found by what it is given in a forward pass."""
    entering: dict[int, Tensor] = {}
    norms: dict[int, nn.Module] = {}
    handles: list[Any] = []

    def watch(layer: int) -> Callable[..., None]:
        def act(module: nn.Module, args: tuple[Any, ...]) -> None:
            if layer not in norms and args and isinstance(args[0], Tensor):
                given, block = args[0], entering[layer]
                if given.shape == block.shape and (given.data_ptr() == block.data_ptr() or torch.equal(given, block)):
                    norms[layer] = module

        return act

    def enter(layer: int) -> Callable[..., None]:
        def act(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            entering[layer] = hidden_states(args, kwargs)

        return act

    first_picture = {name: tensor[:1] if tensor.ndim else tensor for name, tensor in inputs.items()}
    with EXCLUSIVE:
        try:
            for layer, modules in enumerate(encoder.layers()):
                handles.append(modules.block.register_forward_pre_hook(enter(layer), with_kwargs=True))
                watched = [module for module in modules.block.modules() if "Norm" in type(module).__name__]
                handles.extend(module.register_forward_pre_hook(watch(layer)) for module in watched)
            encoder.run(first_picture)
        finally:
            for handle in handles:
                handle.remove()
    missing = [layer for layer in range(encoder.spec.n_layers) if layer not in norms]
    if missing:
        raise UsageError(
            f"{encoder.spec.name}: no norm reads the input of block {missing[0]}, so that second-order effects "
            "cannot be followed through its attention; only blocks that normalise before attention can be."
        )
    return [norms[layer] for layer in range(encoder.spec.n_layers)]


def _measured_maps(
    encoder: NativeEncoder, inputs: Inputs, norms: Sequence[nn.Module]
) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
    """Maps (D,H,d) and constants (H,d) of all layers, from one forward pass over unit vectors with divisors of 1."""
    D, T = encoder.spec.width, encoder.spec.n_tokens
    n_pictures = -(-(D + 1) // T)
    units = torch.zeros(n_pictures * T, D, device=encoder.device, dtype=encoder.dtype)
    units[:D] = torch.eye(D)
    units = units.view(n_pictures, T, D)
    repeated = {
        name: tensor[:1].expand(n_pictures, *tensor.shape[1:]) if tensor.ndim else tensor
        for name, tensor in inputs.items()
    }

    def enter(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        return ((units, *args[1:]), kwargs) if args else (args, {**kwargs, "hidden_states": units})

    def undivided(norm: nn.Module) -> Callable[..., Any]:
        def act(args: tuple[Any, ...], _: dict[str, Any], output: Any) -> Any:
            bias = getattr(norm, "bias", None)
            plain = output if bias is None else output - bias
            plain = plain * norm_divisor(norm, args[0]).to(plain)
            return plain if bias is None else plain + bias

        return act

    def hooks() -> Iterator[Hook]:
        for modules, norm in zip(encoder.layers(), norms, strict=True):
            yield Hook(modules.block, "before", enter, "puts unit vectors in place of the residual stream")
            yield Hook(norm, "after", undivided(norm), "freezes the divisor of the norm before attention")

    recording, model = encoder.recording_attention(encoder.readout_tokens), encoder.model
    with EXCLUSIVE, recording as recorded, native_pass(model, encoder.spec.name, hooks()):
        encoder.native_forward(repeated)
    maps: list[Tensor] = []
    constants: list[Tensor] = []
    for layer in range(encoder.spec.n_layers):
        values = recorded[layer][1].transpose(1, 2).flatten(0, 1)  # (N T, H, d)
        maps.append(values[:D] - values[D])
        constants.append(values[D])
    return tuple(maps), tuple(constants)


def _check(
    encoder: NativeEncoder,
    paths: ValuePaths,
    hidden: dict[int, Tensor],
    constants: Sequence[Tensor],
    values: Float[Tensor, "B L H T d"],
) -> None:
    exact = encoder.dtype in (torch.float32, torch.float64)
    tolerance = 1e-3 if exact else 0.1
    for layer, (constant, matrix) in enumerate(zip(constants, paths.maps, strict=True)):
        scaled = first(hidden[layer]) / paths.divisors[:, layer, :, None].to(hidden[layer])
        expected = (torch.einsum("btw,whd->bhtd", scaled, matrix) + constant[:, None]).double()
        actual = values[:, layer].double()
        error = float((expected - actual).norm() / actual.norm().clamp_min(1e-30))
        if not error <= tolerance:
            raise ModelError(
                f"{encoder.spec.name}: values of layer {layer} are not linear in the normalised residual (relative "
                f"error {error:.2g}), so attention with frozen patterns cannot be followed through it."
            )
