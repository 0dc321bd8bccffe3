"""Text towers beside image towers: any text has a direction in the space of the encoder opened from the same folder."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from steerlens.errors import ModelError
from steerlens.testing.tiny import _save_tokenizer, tiny_processor
from steerlens.zoo import locate_encoder, open_encoder
from steerlens.zoo.towers import tower_text

TEXTS = ("a red apple", "sun")
SIZES = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}


def save_whole(folder: Path, kind: str) -> Any:
    """Saves a tiny random model of two towers with its tokenizer, and returns it."""
    import transformers

    folder.mkdir()
    _save_tokenizer(folder)
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    vision = {**SIZES, "image_size": 16, "patch_size": 8}
    text = {**SIZES, "vocab_size": len(tokenizer), "max_position_embeddings": 20}
    text |= {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id, "projection_size": 16}
    config = getattr(transformers, f"{kind.removesuffix('Model')}Config")
    more = {"projection_dim": 12} if kind == "CLIPModel" else {}
    torch.manual_seed(0)
    model = getattr(transformers, kind)(config(text_config=text, vision_config=vision, **more)).eval()
    model.save_pretrained(folder)
    tiny_processor(16).save_pretrained(folder)
    return model


@pytest.mark.parametrize(("kind", "size"), [("CLIPModel", 12), ("SiglipModel", 16)])
def test_texts_are_embedded_as_by_the_native_model(kind: str, size: int, tmp_path: Path) -> None:
    import transformers

    model = save_whole(tmp_path / "whole", kind)
    located = locate_encoder(str(tmp_path / "whole"))
    encoder = open_encoder(located, device="cpu")
    source = tower_text(located, encoder.spec.embedding_size)
    assert source is not None and encoder.spec.embedding_size == size
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "whole")
    padding: Any = True if kind == "CLIPModel" else "max_length"
    tokens = tokenizer(list(TEXTS), padding=padding, max_length=20, truncation=True, return_tensors="pt")
    given = dict(tokens) if kind == "CLIPModel" else {"input_ids": tokens.input_ids}
    with torch.no_grad():
        native: Any = model.get_text_features(**given)
    native = native if isinstance(native, torch.Tensor) else native.pooler_output
    directions = source.directions(TEXTS)
    torch.testing.assert_close(directions, torch.nn.functional.normalize(native, dim=-1))
    assert float((directions[0] - directions[1]).norm()) > 1e-3
    assert tower_text(located, size + 1) is None  # another readout, another space


def test_a_tower_of_open_clip_is_the_native_one(open_clip: Any, tmp_path: Path) -> None:
    vision = {"layers": 2, "width": 16, "head_width": 8, "patch_size": 8, "image_size": 16}
    text = {"context_length": 77, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 2}
    torch.manual_seed(0)
    model = open_clip.CLIP(embed_dim=12, vision_cfg=vision, text_cfg=text).eval()
    config = {"model_cfg": {"embed_dim": 12, "vision_cfg": vision, "text_cfg": text}, "preprocess_cfg": {}}
    (tmp_path / "open_clip_config.json").write_text(json.dumps(config))
    weights = {name: tensor.contiguous() for name, tensor in model.state_dict().items()}
    save_file(weights, tmp_path / "open_clip_model.safetensors")
    source = tower_text(locate_encoder(str(tmp_path)), 12)
    assert source is not None
    with torch.no_grad():
        native = model.encode_text(open_clip.tokenize(list(TEXTS)))
    torch.testing.assert_close(source.directions(TEXTS), torch.nn.functional.normalize(native, dim=-1))
    del weights["token_embedding.weight"]
    save_file(weights, tmp_path / "open_clip_model.safetensors")
    broken = tower_text(locate_encoder(str(tmp_path)), 12)
    assert broken is not None
    with pytest.raises(ModelError, match=r"lack token_embedding\.weight"):
        broken.directions(TEXTS)


def test_a_folder_without_a_tokenizer_says_what_is_missing(tmp_path: Path) -> None:
    save_whole(tmp_path / "whole", "CLIPModel")
    for name in ("vocab.json", "tokenizer.json"):
        (tmp_path / "whole" / name).unlink(missing_ok=True)
    source = tower_text(locate_encoder(str(tmp_path / "whole")), 12)
    assert source is not None
    with pytest.raises(ModelError, match="holds no vocabulary"):
        source.directions(TEXTS)
