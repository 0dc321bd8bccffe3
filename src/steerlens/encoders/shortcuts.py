"""Shortcuts in the first and the last block of a pass from a prefix, which leave its result unchanged.

Rows of one picture are equal up to the first change, so the first block runs on one row up to there and on all rows
from there (`branch`): its attention runs once, however many heads are changed. Only the readout
tokens are read after the last block, so its MLP runs on no others (`narrow`). Both act by hooks on the native modules.
"""

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from steerlens.encoders.hooks import Hook, first, with_first
from steerlens.encoders.modules import LayerModules
from steerlens.interventions import Intervention

_BEFORE_MLP = frozenset({"resid_pre", "resid_mid", "head", "attn_out"})


def branch(modules: LayerModules, interventions: Sequence[Intervention], rows: int) -> Hook | None:
    """Builds the hook that expands one row to many where the first of a layer's interventions acts.

    It must be registered before the hooks of the interventions. The native block adds outputs of `rows` rows to a
    residual of one, which broadcasts.

    Args:
        modules: the native modules of the layer, whose block is called with one row.
        interventions: the interventions at this layer.
        rows: N.

    Returns:
        The hook, or None if the block must be called with all rows from its start.
    """
    kinds = {intervention.site.kind for intervention in interventions}
    reads_values = "head" in kinds or any(intervention.reads_head_values for intervention in interventions)

    def repeated(hidden: Tensor) -> Tensor:
        # A copy: an intervention may write into one row of the value that it is given.
        return hidden.expand(rows, *hidden.shape[1:]).clone()

    def entering(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        return ((repeated(args[0]), *args[1:]), kwargs)

    def leaving(_: tuple[Any, ...], __: dict[str, Any], output: Any) -> Any:
        return with_first(output, repeated(first(output)))

    purpose = f"repeats one row {rows} times"
    if not kinds or kinds & {"embed", "resid_pre"} or (reads_values and modules.values_of is not None):
        return None
    if reads_values:
        return Hook(modules.attn_proj, "before", entering, purpose)
    if kinds & {"attn_out", "resid_mid"}:
        return Hook(modules.attn_out, "after", leaving, purpose)
    if "neuron" in kinds:
        return Hook(modules.neuron_module(), "before", entering, purpose)
    return Hook(modules.mlp_out if "mlp_out" in kinds else modules.block, "after", leaving, purpose)


def narrow(modules: LayerModules, interventions: Sequence[Intervention], tokens: Tensor) -> tuple[Hook, ...]:
    """Builds the hooks that run the MLP of the last layer on some tokens alone; it writes zeros on all others.

    They must be registered before the hooks of the interventions.

    Args:
        modules: the native modules of the layer.
        interventions: the interventions at this layer.
        tokens: indices of the tokens that are read after it, (R,).

    Returns:
        The hooks; none if the adapter names no MLP, or an intervention acts on it or after it.
    """
    mlp = modules.mlp
    if mlp is None or not _BEFORE_MLP.issuperset(intervention.site.kind for intervention in interventions):
        return ()
    empty: list[Tensor] = []

    def entering(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        empty.append(args[0])
        return ((args[0].index_select(1, tokens), *args[1:]), kwargs)

    def leaving(_: tuple[Any, ...], __: dict[str, Any], output: Any) -> Any:
        written = first(output)
        everywhere = written.new_zeros(*empty.pop().shape[:2], written.shape[-1])
        return with_first(output, everywhere.index_copy_(1, tokens, written))

    purpose = "runs on the readout tokens alone"
    return Hook(mlp, "before", entering, purpose), Hook(mlp, "after", leaving, purpose)
