"""Base of trunks: the native modules of one class of timm, whoever wraps it.

timm gives a whole model, open_clip a tower around one; the adapters of both read the same trunk.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextlib import AbstractContextManager
from importlib import import_module
from typing import Any, ClassVar, NamedTuple

from torch import Tensor, nn

from steerlens.encoders.modules import LayerModules
from steerlens.encoders.recorded import Recorded
from steerlens.encoders.structure import refuse_kind
from steerlens.errors import ModelError


class Additions(NamedTuple):
    """Modules and scales of a block's two additions to the residual stream.

    Attributes:
        attn_out: module whose output attention adds.
        mlp_out: module whose output the MLP adds.
        scale: LayerScale of attention, (D,), or None.
        mlp_scale: LayerScale of the MLP, (D,), or None.
    """

    attn_out: nn.Module
    mlp_out: nn.Module
    scale: Tensor | None
    mlp_scale: Tensor | None


class TimmTrunk(ABC):
    """A Vision Transformer of one class of timm, with `blocks`, `norm`, `forward_features` and `forward_head`.

    Args:
        vit: the native model.
        path: its path in the model that the user gave, for messages.

    Raises:
        ModelError: if it contains modules that are not known.
    """

    native: ClassVar[str]
    """Full name of timm's class."""
    library: ClassVar[str]
    """Description of the expected model, for messages."""

    def __init__(self, vit: Any, path: str) -> None:
        self.vit = vit
        self.refuse_unknown(path)

    @classmethod
    def accepts(cls, model: object) -> bool:
        """True if a model is of this class; compares names, since timm need not be installed."""
        return cls.native in (f"{base.__module__}.{base.__qualname__}" for base in type(model).__mro__)

    @abstractmethod
    def refuse_unknown(self, path: str) -> None:
        """Checks that the model is built as expected.

        Raises:
            ModelError: if it is not; the message names the unexpected module.
        """

    @abstractmethod
    def additions(self, block: Any) -> Additions:
        """The modules whose outputs attention and MLP add to the residual stream, and their LayerScales."""

    def layers(self) -> Sequence[LayerModules]:
        """The native modules, layer by layer."""
        return [self._layer(block) for block in self.vit.blocks]

    def _layer(self, block: Any) -> LayerModules:
        added, proj = self.additions(block), block.attn.proj
        return LayerModules(
            block=block,
            attn_out=added.attn_out,
            attn_proj=proj,
            mlp_out=added.mlp_out,
            n_heads=block.attn.num_heads,
            out_weight=proj.weight,
            out_bias=proj.bias,
            scale=added.scale,
            mlp=block.mlp,
            mlp_scale=added.mlp_scale,
        )

    @abstractmethod
    def recording_attention(self, tokens: Sequence[int]) -> AbstractContextManager[Recorded]:
        """Records patterns (of the given query tokens) and values, by layer, of one forward pass while open."""

    @property
    @abstractmethod
    def pools_prefix(self) -> bool:
        """True if pooling over tokens includes class token and registers."""

    def readout_tokens(self, n_tokens: int) -> tuple[int, ...] | None:
        """Returns the tokens that the embedding is read from, None for all.

        Raises:
            ModelError: if the model does not pool its tokens.
        """
        vit = self.vit
        if vit.attn_pool is None and vit.global_pool == "token":
            return (0,)
        if vit.attn_pool is None and vit.global_pool not in ("avg", "avgmax", "max"):
            raise ModelError(
                f"global_pool is {vit.global_pool!r}: the model gives tokens, not one embedding; "
                "create it with global_pool='token' or 'avg'."
            )
        prefix = 0 if self.pools_prefix else int(vit.num_prefix_tokens)
        return None if prefix == 0 else tuple(range(prefix, n_tokens))

    @property
    def centred(self) -> bool:
        """True if the readout ignores the mean over width of every residual."""
        vit = self.vit
        if not isinstance(vit.norm, nn.Identity):
            return isinstance(vit.norm, nn.LayerNorm)
        # A norm after pooling removes that mean only if the pooling is linear.
        linear = vit.attn_pool is None and vit.global_pool in ("token", "avg")
        return linear and isinstance(vit.fc_norm, nn.LayerNorm)

    def refuse_final_norms(self) -> None:
        """Checks the norms before and after pooling.

        Raises:
            ModelError: if one is of an unknown class.
        """
        layers = import_module("timm.layers")
        for name in ("norm", "fc_norm"):
            norm = getattr(self.vit, name)
            refuse_kind(self.library, name, norm, nn.Identity, nn.LayerNorm, layers.LayerNorm, layers.RmsNorm)

    def refuse_around(self, path: str, block: Any) -> None:
        """Checks what a block does to the outputs of its attention and of its MLP before it adds them.

        Raises:
            ModelError: if it does more than drop paths in training.
        """
        layers = import_module("timm.layers")
        # Fine-tuning libraries wrap a layer, whose output then depends on more than its weight.
        refuse_kind(self.library, f"{path}.attn.proj", block.attn.proj, nn.Linear)
        refuse_kind(self.library, f"{path}.attn.proj_drop", block.attn.proj_drop, nn.Dropout)
        for name in ("drop_path1", "drop_path2"):
            refuse_kind(self.library, f"{path}.{name}", getattr(block, name), nn.Identity, layers.DropPath)
