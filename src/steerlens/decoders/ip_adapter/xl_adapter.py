"""IP-Adapter decoder of Stable Diffusion XL: two text encoders, pooled text, and the size of the picture.

References: H. Ye et al., "IP-Adapter: Text Compatible Image Prompt Adapter for Text-to-Image Diffusion Models",
arXiv 2308.06721; D. Podell et al., "SDXL", arXiv 2307.01952.
"""

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from steerlens.decoders.base import DecodeOptions
from steerlens.decoders.ip_adapter import FAMILIES
from steerlens.decoders.ip_adapter.adapter import IPAdapterDecoder
from steerlens.decoders.text import Text, sdxl_text
from steerlens.errors import ModelError
from steerlens.storage import read_json


class IPAdapterXLDecoder(IPAdapterDecoder):
    """Decodes image embeddings (N,E) as `StableDiffusionXLPipeline` does with an IP-Adapter and empty prompts."""

    family = "ip-adapter-sdxl"
    saved_as = FAMILIES["ip-adapter-sdxl"]

    def own_defaults(self, size: tuple[int, int]) -> DecodeOptions:
        """The defaults of diffusers' pipeline."""
        return DecodeOptions(50, 5.0, "euler", size)

    def added(self, rows: int, options: DecodeOptions) -> tuple[Tensor, Mapping[str, Tensor]]:
        """Text states and pooled text, zeros in the unconditional half as SDXL was trained, and the picture's size."""
        text = self.empty_text.to(self.device, self.dtype)
        states, pooled = text.states_for(rows).clone(), text.pooled_for(rows).clone()
        if options.guidance > 1:
            states[: rows // 2], pooled[: rows // 2] = 0, 0
        size = torch.tensor([*options.size, 0, 0, *options.size], device=self.device, dtype=self.dtype)
        return states, {"text_embeds": pooled, "time_ids": size.expand(rows, -1)}

    @classmethod
    def empty_text_of(cls, folder: Path) -> Text:
        """The empty prompt by both text encoders.

        Raises:
            ModelError: if the pipeline was saved to encode the empty prompt for "no condition" in place of zeros.
        """
        if not read_json(folder / "model_index.json", "decoder").get("force_zeros_for_empty_prompt", True):
            raise ModelError(f"{folder} encodes the empty prompt for guidance, which this adapter does not do.")
        return sdxl_text(folder)
