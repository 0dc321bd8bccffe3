"""Vision towers of LLaVA-style models of transformers: CLIP or SigLIP, as far as the language model reads them.

Such a model projects the patches of one layer, often the last but one, into its language model, without the tower's
final norm. The encoder ends at that layer: later blocks are no part of it. The embedding is the mean of the tokens that
the language model gets, or one token. Projector and language model are left out. Models that cut pictures into tiles
also give the whole picture, in the tower's own size: the encoder sees that one alone.

References: H. Liu et al., "Visual Instruction Tuning", arXiv 2304.08485; "Improved Baselines with Visual Instruction
Tuning", arXiv 2310.03744; B. Li et al., "LLaVA-OneVision", arXiv 2408.03326.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from PIL import Image

from steerlens.encoders.base import Inputs
from steerlens.encoders.clip import CLIPEncoder
from steerlens.encoders.vlm import VLM
from steerlens.encoders.vlm_tower import VLMTowerEncoder
from steerlens.errors import ModelError

_TOWERS: Mapping[str, str] = {"clip_vision_model": "CLIP", "siglip_vision_model": "Siglip"}
"""Prefix of the class names of each tower, by the `model_type` of its config."""


class LLaVAEncoder(VLMTowerEncoder):
    """The vision tower of a LLaVA, LLaVA-NeXT or LLaVA-OneVision, as far as the language model reads it.

    The embedding is the mean of the tokens that the language model gets, not normalised.
    """

    family = "llava"
    library = "a LLaVA-style model with a tower of CLIP or SigLIP"
    architectures = ("CLIPVisionModel", "SiglipVisionModel")
    whole = VLM(("Llava", "LlavaNext", "LlavaOnevision"), "vision_tower")
    parts = CLIPEncoder.parts

    @classmethod
    def tower_kinds(cls, config: Mapping[str, Any]) -> tuple[str, str]:
        """CLIP's or SigLIP's vision model.

        Raises:
            ModelError: if the tower is of another kind.
        """
        named = str(config["vision_config"].get("model_type"))
        if named not in _TOWERS:
            raise ModelError(f"its vision tower is a {named}, which is not known in {cls.library}.")
        return f"{_TOWERS[named]}VisionModel", f"{_TOWERS[named]}VisionConfig"

    def prepare(self, tower: Any, config: Mapping[str, Any]) -> None:
        """Reads the layer whose tokens the language model gets, and whether it gets the first.

        Raises:
            ModelError: if the tower is of another kind, or the language model reads several of its layers.
        """
        self.tower_kinds({"vision_config": tower.config.to_dict()})
        layer, L = config["vision_feature_layer"], tower.config.num_hidden_layers
        if isinstance(layer, list | tuple) and len(layer) == 1:  # the tokens of one layer, joined to no others
            layer = layer[0]
        if not isinstance(layer, int) or not -L <= layer <= L or layer == 0:
            raise ModelError(f"vision_feature_layer is {layer}: the language model reads no single layer of the tower.")
        self._n_layers = layer if layer > 0 else L + 1 + layer
        self._skipped = 1 if config.get("vision_feature_select_strategy") == "default" else 0

    @property
    def blocks(self) -> Sequence[Any]:
        """The native blocks that the language model depends on, in order."""
        return self._native.encoder.layers[: self._n_layers]

    @property
    def first_patch(self) -> int:
        """CLIP has a class token, SigLIP none."""
        return 1 if self._native.config.model_type == "clip_vision_model" else 0

    @property
    def first_averaged(self) -> int:
        """The language model gets every token, or all but the first."""
        return self._skipped

    def refuse_unknown(self) -> None:
        """Makes sure that the tower is built like that of CLIP or of SigLIP."""
        kind = _TOWERS[self._native.config.model_type]
        self.refuse_children(
            "vision_tower", self.model, {"embeddings", "encoder", "post_layernorm"}, {"pre_layrnorm", "head"}
        )
        self.refuse_children("vision_tower.encoder", self._native.encoder, {"layers"})
        parts = replace(self.parts, block_kind=f"{kind}EncoderLayer", attention_kind=f"{kind}Attention")
        self.refuse_blocks("vision_tower.encoder.layers", parts)

    def native_preprocess(self, images: Sequence[Image.Image]) -> Inputs:
        """Applies the model's own image processor; of tiles, the first is the whole picture."""
        pixels = self.processor(images=list(images), return_tensors="pt")["pixel_values"]
        return {"pixel_values": (pixels[:, 0] if pixels.ndim == 5 else pixels).to(self.device, self.dtype)}
