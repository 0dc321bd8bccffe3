"""Vision towers of timm inside models of open_clip, with open_clip's projection after them."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

from jaxtyping import Float
from torch import Tensor, nn

from steerlens.encoders.base import Inputs
from steerlens.encoders.open_clip_tower import has_timm_tower, is_of_open_clip
from steerlens.encoders.structure import refuse_unknown
from steerlens.encoders.timm import TimmEncoder
from steerlens.errors import UsageError
from steerlens.vocabulary import ClassVocabulary


class OpenCLIPTimmEncoder(TimmEncoder):
    """A `VisionTransformer` or `Eva` of timm inside an open_clip model, with open_clip's projection after it.

    Args:
        model: a model of open_clip (its text side is left alone), or its vision tower.
        processor: as for `OpenCLIPEncoder`.
        name: its name in reports.

    Raises:
        ModelError: if the tower contains modules that this adapter does not know, or gives no single embedding.
    """

    family = "open_clip_timm"
    path = "visual.trunk"

    def __init__(self, model: nn.Module, processor: Any, name: str = "") -> None:
        super().__init__(cast(Any, getattr(model, "visual", model)), processor, name)

    @classmethod
    def accepts(cls, model: object) -> bool:
        """True if this adapter supports a native model."""
        return is_of_open_clip(model) and has_timm_tower(model)

    @classmethod
    def opens(cls, folder: Path) -> bool:
        """False always: `OpenCLIPEncoder` opens the folders of open_clip, with either kind of tower."""
        return False

    def native_readout(self, residual: Float[Tensor, "N R D"]) -> Float[Tensor, "N E"]:
        """Applies timm's own norms, pooling and head, then open_clip's projection."""
        return self._tower.head(self._vit.forward_head(self._normed(residual)))

    def native_forward(self, inputs: Inputs) -> Float[Tensor, "B E"]:
        """Returns the image embedding of one native forward pass, not normalised."""
        return self._tower(inputs["pixel_values"])

    def class_vocabulary(self, names: Sequence[str] | None = None) -> ClassVocabulary:
        """Refuses: the head gives the embedding, so no classifier reads it.

        Raises:
            UsageError: always.
        """
        raise UsageError(f"{self.spec.name} is compared with texts; it has no classes.")

    @property
    def _tower(self) -> Any:
        return self.model

    def vision_transformer(self, model: nn.Module) -> Any:
        """Returns the trunk of the tower, whose head gives the embedding."""
        tower: Any = model
        library = "a timm tower of open_clip"
        refuse_unknown(library, "visual", tower, {"trunk", "head"})
        refuse_unknown(library, "visual.head", tower.head, (), {"drop", "proj", "mlp"})
        return tower.trunk
