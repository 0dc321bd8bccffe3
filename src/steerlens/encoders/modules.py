"""Native modules of a layer, as adapters name them, and the projections of heads and neurons into the residual."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

from jaxtyping import Float
from torch import Tensor, nn

from steerlens.errors import UsageError
from steerlens.neurons import NeuronProjection

_NEURON_MODULES = ("fc2", "down_proj", "c_proj", "linear_fc2")
"""Names of the output projection in the MLPs of transformers, timm and open_clip."""


@dataclass(frozen=True, eq=False)
class LayerModules:
    """Native modules of one layer, and the projection of its heads into the residual stream.

    Attributes:
        block: takes the residual stream as its first argument and returns it.
        attn_out: module whose output attention adds to the residual stream (its LayerScale, if any).
        attn_proj: module whose input is the concatenated head values, (B,T,D), or the arguments of `values_of`.
        mlp_out: module whose output the MLP adds to the residual stream (its LayerScale, if any).
        n_heads: H.
        out_weight: weight of the output projection, (D, H d), as a linear layer stores it.
        out_bias: its bias, (D,), or None.
        scale: LayerScale on attention, (D,), or None; it multiplies heads and bias alike.
        values_of: computes the head values from the arguments of `attn_proj`, for libraries that fuse attention with
            its projection (`nn.MultiheadAttention`); None if the first argument is the head values.
        mlp: the MLP, whose output projection reads its neurons; None if the adapter does not name it.
        mlp_scale: LayerScale on the MLP, (D,), or None.
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
    mlp: nn.Module | None = None
    mlp_scale: Float[Tensor, "D"] | None = None

    def __post_init__(self) -> None:
        owner = getattr(self.attn_proj, "out_proj", self.attn_proj)
        before = {name: vars(owner).get(name) for name in ("weight", "bias")}
        refresh_computed(owner)
        for field, name in (("out_weight", "weight"), ("out_bias", "bias")):
            if before[name] is not None and getattr(self, field) is before[name]:
                object.__setattr__(self, field, getattr(owner, name))

    def head_values(self, args: tuple[Any, ...]) -> Float[Tensor, "B T Hd"]:
        """Returns the concatenated head values, from the arguments of `attn_proj`."""
        return args[0] if self.values_of is None else self.values_of(args)

    def head_weights(self) -> Float[Tensor, "H d D"]:
        """Returns each head's slice of the output projection, LayerScale included; a view without LayerScale."""
        D = self.out_weight.shape[0]
        weights = self.out_weight.detach().T.reshape(self.n_heads, -1, D)
        return weights if self.scale is None else weights * self.scale.detach()

    def bias(self) -> Float[Tensor, "D"]:
        """Returns the bias that attention adds to its heads, LayerScale included; zeros if there is none."""
        bias = self.out_weight.new_zeros(self.out_weight.shape[0]) if self.out_bias is None else self.out_bias
        return bias.detach() if self.scale is None else (bias * self.scale).detach()

    def head_write(self, head_values: Float[Tensor, "B T Hd"], head: int) -> Float[Tensor, "B T D"]:
        """Computes a head's write on every token, from the input of the output projection."""
        width = head_values.shape[-1] // self.n_heads
        return head_values[..., head * width : (head + 1) * width] @ self.head_weights()[head]

    def neuron_module(self) -> nn.Linear:
        """Returns the MLP's output projection, whose input is the activations of its neurons, (B,T,M).

        Raises:
            UsageError: if the adapter names no MLP, or it has no such projection.
        """
        for name in _NEURON_MODULES if self.mlp is not None else ():
            module = getattr(self.mlp, name, None)
            if isinstance(module, nn.Linear) and module.out_features == self.out_weight.shape[0]:
                refresh_computed(module)
                return module
        what = "its adapter names no MLP" if self.mlp is None else f"its MLP is a {type(self.mlp).__name__}"
        raise UsageError(
            f"the neurons of this encoder cannot be taken apart: {what}, without a linear output projection that is "
            f"known ({', '.join(_NEURON_MODULES)}). Its MLPs as a whole are mlp_out.N."
        )

    def neurons(self) -> NeuronProjection:
        """Returns the projection of the MLP's neurons into the residual stream.

        Raises:
            UsageError: as `neuron_module`.
        """
        module = self.neuron_module()
        return NeuronProjection(module.weight, module.bias, self.mlp_scale)


def refresh_computed(module: nn.Module) -> None:
    """Computes weights that pruning, weight norm and spectral norm compute before each pass, as those do.

    Between a change of what they are computed from and the next pass, the module holds those of the last pass.
    """
    if isinstance(vars(module).get("weight"), Tensor) or isinstance(vars(module).get("bias"), Tensor):
        for hook in module._forward_pre_hooks.values():  # pyright: ignore[reportPrivateUsage]
            if type(hook).__module__.startswith("torch.nn.utils."):
                cast(Any, hook)(module, ())
