"""The empty text, encoded by the text encoders of diffusion pipelines.

Decoders that were trained with texts run with the empty text, so that a picture shows only its image embedding. It is
computed once, when the decoder is loaded, and the text encoder is not kept.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from steerlens.borders import native_errors
from steerlens.decoders.saved import load_component
from steerlens.errors import ModelError
from steerlens.storage import check_library_folder, quiet_libraries

_CPU = torch.device("cpu")


@dataclass(frozen=True, eq=False)
class Text:
    """One encoded text.

    Attributes:
        states: the state of every token.
        pooled: the pooled text, if the network reads it too.
        mask: True for tokens that are read, if the network takes a mask.
    """

    states: Float[Tensor, "1 t d"]
    pooled: Float[Tensor, "1 p"] | None = None
    mask: Bool[Tensor, "1 t"] | None = None

    def to(self, device: torch.device, dtype: torch.dtype) -> "Text":
        """Returns the text on another device and in another precision."""
        pooled = None if self.pooled is None else self.pooled.to(device, dtype)
        return Text(self.states.to(device, dtype), pooled, None if self.mask is None else self.mask.to(device))

    def states_for(self, rows: int) -> Float[Tensor, "N t d"]:
        """Returns the token states, repeated for every row."""
        return self.states.expand(rows, -1, -1)

    def pooled_for(self, rows: int) -> Float[Tensor, "N p"]:
        """Returns the pooled text, repeated for every row.

        Raises:
            ModelError: if this text has none.
        """
        if self.pooled is None:
            raise ModelError("the text encoder gave no pooled text.")
        return self.pooled.expand(rows, -1)

    def mask_for(self, rows: int) -> Bool[Tensor, "N t"]:
        """Returns the mask, repeated for every row.

        Raises:
            ModelError: if this text has none.
        """
        if self.mask is None:
            raise ModelError("the text encoder gave no mask.")
        return self.mask.expand(rows, -1)


@torch.no_grad()
def clip_text(folder: Path, *, encoder: str = "text_encoder", tokenizer: str = "tokenizer") -> Text:
    """Encodes the empty text by the CLIP text encoder of a Stable Diffusion folder: last hidden states."""
    from transformers import CLIPTextModel

    tokens = _tokens(folder / tokenizer, "CLIPTokenizer")
    model = load_component(folder, encoder, CLIPTextModel, _CPU, torch.float32)
    return Text(model(tokens.input_ids)[0])


@torch.no_grad()
def projected_text(folder: Path) -> Text:
    """Encodes the empty text by a CLIP text encoder with projection, as Karlo reads it: states, projection, mask."""
    from transformers import CLIPTextModelWithProjection

    tokens = _tokens(folder / "tokenizer", "CLIPTokenizer")
    model = load_component(folder, "text_encoder", CLIPTextModelWithProjection, _CPU, torch.float32)
    out = model(tokens.input_ids)
    return Text(out.last_hidden_state, out.text_embeds, tokens.attention_mask.bool())


@torch.no_grad()
def sdxl_text(folder: Path) -> Text:
    """The empty text by both text encoders of an SDXL folder: penultimate states side by side, the second's pooled."""
    from transformers import CLIPTextModel, CLIPTextModelWithProjection

    first = load_component(folder, "text_encoder", CLIPTextModel, _CPU, torch.float32)
    one = first(_tokens(folder / "tokenizer", "CLIPTokenizer").input_ids, output_hidden_states=True)
    second = load_component(folder, "text_encoder_2", CLIPTextModelWithProjection, _CPU, torch.float32)
    two = second(_tokens(folder / "tokenizer_2", "CLIPTokenizer").input_ids, output_hidden_states=True)
    return Text(torch.cat([one.hidden_states[-2], two.hidden_states[-2]], dim=-1), two.text_embeds)


@torch.no_grad()
def multilingual_text(folder: Path) -> Text:
    """Encodes the empty text by Kandinsky 2.1's multilingual encoder: states and projected mean."""
    from diffusers.pipelines.kandinsky.text_encoder import MultilingualCLIP

    tokens = _tokens(folder / "tokenizer", "XLMRobertaTokenizer", length=77)
    model = load_component(folder, "text_encoder", MultilingualCLIP, _CPU, torch.float32)
    pooled, states = model(input_ids=tokens.input_ids, attention_mask=tokens.attention_mask)
    return Text(states, pooled)


_VOCABULARIES = ("tokenizer.json", "vocab.json", "sentencepiece.bpe.model")


def _tokens(folder: Path, kind: str, length: int | None = None) -> Any:
    import transformers

    if not any((folder / name).is_file() for name in _VOCABULARIES):
        # transformers would silently continue with an empty vocabulary, and so with another text.
        raise ModelError(f"tokenizer: {folder} holds no vocabulary ({', '.join(_VOCABULARIES)}).")
    check_library_folder(folder, "tokenizer")
    with native_errors(f"tokenizer: {folder} cannot be loaded"), quiet_libraries():
        tokenizer = getattr(transformers, kind).from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    length = length or tokenizer.model_max_length
    return tokenizer([""], padding="max_length", max_length=length, truncation=True, return_tensors="pt")
