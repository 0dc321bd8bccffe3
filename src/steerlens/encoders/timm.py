"""Vision Transformers of timm: the classes `VisionTransformer` and `Eva`.

The embedding is the input of the classifier, `fc_norm(pool(norm(x)))`, computed by the model's own code with any
pooling (class token, mean, maximum, attention); the classifier's weights are a vocabulary. The input of the output
projection `proj`, a separate module, is the head values. `timm_vit.py` and `eva.py` name the native modules.

References: A. Dosovitskiy et al., "An Image is Worth 16x16 Words", arXiv 2010.11929; R. Wightman, "PyTorch Image
Models", 2019.
"""

from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, cast

import torch
from jaxtyping import Float
from torch import Tensor, nn

from steerlens.encoders.base import EncoderSpec, Inputs
from steerlens.encoders.folders import is_timm_folder, open_timm_folder
from steerlens.encoders.modules import LayerModules
from steerlens.encoders.recorded import Recorded
from steerlens.encoders.timm_models import architecture_of, class_names, has_trunk, trunk_of
from steerlens.encoders.transforms import TransformEncoder
from steerlens.errors import UsageError
from steerlens.vocabulary import ClassVocabulary


class TimmEncoder(TransformEncoder):
    """A `VisionTransformer` or `Eva` of timm, wrapped, never copied; the model is put into evaluation mode.

    Args:
        model: the native model.
        processor: its transform (`timm.data.create_transform`), or an image processor of transformers.
        name: its name in reports.

    Raises:
        ModelError: if the model contains modules that this adapter does not know, or gives no single embedding.
    """

    family = "timm"
    path = "the model"

    def __init__(self, model: nn.Module, processor: Any, name: str = "") -> None:
        self.model = model.eval()
        self.processor = processor
        vit = self._vit = self.vision_transformer(model)
        self._trunk = trunk_of(vit, self.path)
        down, across = (int(side) for side in vit.patch_embed.grid_size)
        prefix = int(vit.num_prefix_tokens)
        n_tokens = prefix + down * across
        spec = EncoderSpec(
            name=name or architecture_of(vit),
            family=self.family,
            n_layers=len(vit.blocks),
            n_heads=vit.blocks[0].attn.num_heads,
            width=vit.embed_dim,
            embedding_size=0,
            image_size=cast(tuple[int, int], tuple(int(side) for side in vit.patch_embed.img_size)),
            n_tokens=n_tokens,
            patch_grid=(down, across),
            first_patch=prefix,
            readout_tokens=self._trunk.readout_tokens(n_tokens),
            centred=self._trunk.centred,
        )
        self.declare(spec)

    @classmethod
    def accepts(cls, model: object) -> bool:
        """True if this adapter supports a native model."""
        return has_trunk(model)

    @classmethod
    def opens(cls, folder: Path) -> bool:
        """True if a folder contains a model of this library."""
        return is_timm_folder(folder)

    @classmethod
    def from_folder(
        cls, folder: Path, processor: Any, *, device: torch.device, dtype: torch.dtype | None, name: str = ""
    ) -> "TimmEncoder":
        """Opens a folder laid out like timm's repositories on the hub.

        Args:
            folder: with `config.json` and `model.safetensors`.
            processor: a transform that replaces the config's, or None.
            device: device of the model.
            dtype: precision; None for float32, or half precision if it is large.
            name: its name in reports.

        Raises:
            ModelError: if the model cannot be built or loaded, or its structure is not known to this adapter.
        """
        model, transform = open_timm_folder(folder, device, dtype)
        return cls(model, transform if processor is None else processor, name)

    def layers(self) -> Sequence[LayerModules]:
        """The native modules, layer by layer."""
        return self._trunk.layers()

    @property
    def shared_arguments(self) -> frozenset[str]:
        """Rotary positions have a row for each token or head, none for pictures."""
        return frozenset({"rope"})

    def native_readout(self, residual: Float[Tensor, "N R D"]) -> Float[Tensor, "N E"]:
        """Applies the model's own final norm, pooling and norm after pooling."""
        return self._vit.forward_head(self._normed(residual), pre_logits=True)

    def native_forward(self, inputs: Inputs) -> Float[Tensor, "B E"]:
        """Returns the input of the classifier, from one native forward pass."""
        return self._vit.forward_head(self._vit.forward_features(inputs["pixel_values"]), pre_logits=True)

    def recording_attention(self, tokens: Sequence[int]) -> AbstractContextManager[Recorded]:
        """Records patterns (of the given query tokens) and values, by layer, of one forward pass while open."""
        return self._trunk.recording_attention(tokens)

    def class_vocabulary(self, names: Sequence[str] | None = None) -> ClassVocabulary:
        """Returns the classes of the model's own classifier, scored by its logits.

        Args:
            names: class names, in order; by default timm's names for the model's classes, or their numbers.

        Raises:
            UsageError: if the model has no classifier.
            ModelError: if it has another number of classes.
        """
        head: Any = self._vit.head
        if type(head) is not nn.Linear:
            raise UsageError(f"{self.spec.name} has no classifier (num_classes is 0).")
        return ClassVocabulary.of_classifier(head, class_names(self._vit) if names is None else names)

    def vision_transformer(self, model: nn.Module) -> Any:
        """Returns the Vision Transformer of timm in a model: by default the model itself."""
        return model

    def _normed(self, residual: Tensor) -> Tensor:
        return self._vit.norm(self.before_pooling(residual))
