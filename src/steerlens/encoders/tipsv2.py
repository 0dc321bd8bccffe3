"""TIPSv2 vision towers of transformers: `Tipsv2VisionModel`, or the picture side of a `Tipsv2Model`.

The blocks are those of DINOv2 with a register. The register is a second class token, trained on synthetic captions; the
first was trained on captions of the web, is compared with texts, and is the embedding unless another token is chosen.

References: K.-K. Maninis et al., "TIPS: Text-Image Pretraining with Spatial Awareness", arXiv 2410.16512.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

from torch import nn

from steerlens.encoders.dinov2 import DINOv2Encoder
from steerlens.encoders.pretrained import Loading
from steerlens.encoders.towers import TowerEncoder
from steerlens.errors import ModelError
from steerlens.storage import read_json


class TIPSv2Encoder(TowerEncoder):
    """A TIPSv2 vision tower; the embedding is its normalised first class token, which is compared with texts."""

    family = "tipsv2"
    library = "a TIPSv2 vision tower"
    architectures = ("Tipsv2VisionModel", "Tipsv2Model")
    wholes: ClassVar[Mapping[str, Loading]] = {
        "Tipsv2Model": Loading("Tipsv2VisionModel", ("text_model.", "temperature"))
    }
    model_types: ClassVar[Mapping[str, str]] = {"tipsv2_vision_model": "Tipsv2VisionModel", "tipsv2": "Tipsv2Model"}
    parts = replace(
        DINOv2Encoder.parts,
        block_kind="Tipsv2VisionLayer",
        attention_kind="Tipsv2VisionAttention",
        scale_kind="Tipsv2VisionLayerScale",
        drop_kind="Tipsv2VisionDropPath",
    )
    readout_kind = 0

    @staticmethod
    def load_processor(folder: Path) -> Any:
        """Loads the image processor in a folder; None for other kinds, which transformers itself can load.

        transformers has TIPSv2's steps for torchvision only. They are those of a ViT's processor without normalising.
        """
        try:
            config = read_json(folder / "preprocessor_config.json", "image_processor")
        except ModelError:
            return None
        if str(config.get("image_processor_type", "")).removesuffix("Fast") != "Tipsv2ImageProcessor":
            return None
        from transformers import ViTImageProcessorPil

        usual: dict[str, Any] = {"size": {"height": 448, "width": 448}, "resample": 2, "do_normalize": False}
        steps = ("resize", "rescale", "normalize")
        names = ("size", "resample", "rescale_factor", "image_mean", "image_std", *(f"do_{step}" for step in steps))
        stated = {name: config[name] for name in names if config.get(name) is not None}
        return ViTImageProcessorPil(**{**usual, **stated})

    @property
    def tower(self) -> Any:
        """The vision tower."""
        return getattr(self._native, "vision_model", self._native)

    @property
    def blocks(self) -> Sequence[Any]:
        """The native blocks, in order."""
        return self.tower.encoder.layer

    @property
    def first_patch(self) -> int:
        """The first class token comes first, the second (a register to transformers) after it."""
        return 1 + self.tower.config.num_register_tokens

    @property
    def fixed_size(self) -> bool:
        """False: positions are computed for pictures of any size."""
        return False

    @property
    def final_norm(self) -> nn.Module:
        """The norm of every token."""
        return self.tower.layernorm

    def refuse_unknown(self) -> None:
        """Makes sure that the model is built like a TIPSv2 vision tower."""
        if self.tower is not self._native:
            self.refuse_children("the model", self.model, {"vision_model", "text_model"})
        self.refuse_children("vision_model", self.tower, {"embeddings", "encoder", "layernorm"})
        self.refuse_kind("vision_model.layernorm", self.tower.layernorm, "LayerNorm")
        self.refuse_children("vision_model.encoder", self.tower.encoder, {"layer"})
        self.refuse_blocks("vision_model.encoder.layer")
