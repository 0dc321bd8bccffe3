"""Encoders from folders of every family: which adapter and class they get, whose pictures, and what plug-ins may do."""

import json
import tomllib
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from steerlens.encoders.dinov3_processor import DINOv3Processor
from steerlens.errors import ModelError
from steerlens.loading import load, load_encoder
from steerlens.testing.encoder_checks import noise_pictures
from steerlens.testing.tiny import save_tiny_pair
from steerlens.testing.tiny_families import (
    MODELS,
    save_tiny_model,
    tiny_family_encoder,
    tiny_family_processor,
    tiny_model,
)
from steerlens.vocabulary import ClassVocabulary
from steerlens.zoo import registry
from steerlens.zoo.registry import adapter_for, registered

CLOSE = {"rtol": 1e-5, "atol": 1e-6}


@pytest.mark.parametrize("kind", sorted(MODELS))
def test_a_folder_of_every_class_is_loaded_with_the_weights_and_pictures_that_it_holds(
    kind: str, tmp_path: Path
) -> None:
    encoder = tiny_family_encoder(kind)
    loaded: Any = load_encoder(save_tiny_model(kind, tmp_path), local_files_only=True)
    assert loaded.spec.family == encoder.spec.family
    assert loaded.spec.readout_tokens == encoder.spec.readout_tokens
    assert [path.suffix for path in tmp_path.iterdir() if path.suffix != ".json"] == [".safetensors"]
    picture = Image.fromarray(np.random.default_rng(1).integers(0, 256, (24, 24, 3), dtype=np.uint8))
    with torch.no_grad():
        wanted = encoder.embed(encoder.preprocess([picture]))
        torch.testing.assert_close(loaded.embed(loaded.preprocess([picture])), wanted, **CLOSE)


@pytest.mark.parametrize(
    ("kind", "wanted"),
    [
        ("CLIPModel", "CLIPVisionModelWithProjection"),
        ("SiglipModel", "SiglipVisionModel"),
        ("Siglip2Model", "Siglip2VisionModel"),
        ("MetaClip2Model", "MetaClip2VisionModelWithProjection"),
        ("ViTMAEForPreTraining", "ViTMAEModel"),
    ],
)
def test_of_a_whole_model_only_the_picture_side_is_loaded(kind: str, wanted: str, tmp_path: Path) -> None:
    loaded: Any = load_encoder(save_tiny_model(kind, tmp_path))
    assert type(loaded.model).__name__ == wanted


def edit_config(folder: Path, **changes: Any) -> None:
    path = folder / "config.json"
    config = json.loads(path.read_text(encoding="utf-8")) | changes
    path.write_text(json.dumps({key: value for key, value in config.items() if value is not None}), encoding="utf-8")


@pytest.mark.parametrize("kind", ["Dinov2Model", "SiglipModel", "DINOv3ViTModel", "ViTMAEForPreTraining"])
def test_a_config_without_architectures_is_told_by_its_model_type(kind: str, tmp_path: Path) -> None:
    edit_config(save_tiny_model(kind, tmp_path), architectures=None)
    assert load_encoder(tmp_path).spec.family == tiny_family_encoder(kind).spec.family


def test_a_config_of_a_model_that_no_adapter_takes_is_refused(tmp_path: Path) -> None:
    save_tiny_model("ViTModel", tmp_path)
    edit_config(tmp_path, architectures=["ViTForMaskedImageModeling"])
    with pytest.raises(ModelError):
        load_encoder(tmp_path)
    edit_config(tmp_path, architectures=["NoSuchModel"])
    with pytest.raises(ModelError, match="names no model of transformers"):
        load_encoder(tmp_path)
    with pytest.raises(ModelError, match=r"no encoder adapter takes a Linear; there are adapters for .*dinov2"):
        adapter_for(nn.Linear(2, 2))


def test_a_vit_saved_without_a_pooler_is_read_from_its_class_token(tmp_path: Path) -> None:
    import transformers

    model: Any = transformers.ViTModel(tiny_model("ViTModel").config, add_pooling_layer=False).eval()
    model.save_pretrained(tmp_path)
    tiny_family_processor("ViTModel").save_pretrained(tmp_path)
    loaded: Any = load_encoder(tmp_path)
    inputs = noise_pictures(loaded)
    with torch.no_grad():
        torch.testing.assert_close(loaded.embed(inputs), model(**inputs).last_hidden_state[:, 0], **CLOSE)


def test_the_classes_of_a_pairs_encoder_are_its_vocabulary(tmp_path: Path) -> None:
    pair_folder = save_tiny_pair(tmp_path / "pair", embedding_size=64, vocabulary=False)
    folder = save_tiny_model("DeiTForImageClassificationWithTeacher", tmp_path / "deit")
    pair = load(pair_folder, encoder=folder, dtype="float32")
    assert isinstance(pair.vocabulary, ClassVocabulary)
    assert pair.vocabulary.names[0] == "tench"
    assert load(pair_folder, dtype="float32").vocabulary is None


@pytest.mark.parametrize(
    ("mode", "resample"), [("bilinear", Image.Resampling.BILINEAR), ("bicubic", Image.Resampling.BICUBIC)]
)
@pytest.mark.parametrize("shape", [(40, 30), (9, 50)])
def test_dinov3_pictures_are_rescaled_resized_with_antialiasing_and_normalised(
    mode: str, resample: Image.Resampling, shape: tuple[int, int]
) -> None:
    picture = np.random.default_rng(0).integers(0, 256, (*shape, 3), dtype=np.uint8)
    processor = DINOv3Processor((16, 16), (0.1, 0.2, 0.3), (0.5, 0.6, 0.7), mode=mode)
    got = processor([Image.fromarray(picture)])["pixel_values"][0]
    for channel in range(3):
        plain = Image.fromarray(picture[..., channel].astype(np.float32) / 255).resize((16, 16), resample)
        wanted = (torch.from_numpy(np.array(plain)) - processor.mean[channel]) / processor.std[channel]
        torch.testing.assert_close(got[channel], wanted, rtol=1e-4, atol=1e-4)


def test_a_dinov3_processor_with_steps_of_its_own_is_refused() -> None:
    config = {"size": {"height": 16, "width": 16}, "resample": 2}
    assert DINOv3Processor.from_config(config).size == (16, 16)
    for changes in ({"do_resize": False}, {"do_center_crop": True}, {"resample": 0}, {"size": {"shortest_edge": 16}}):
        with pytest.raises(ModelError, match="other steps than DINOv3's"):
            DINOv3Processor.from_config({**config, **changes})


def test_adapters_are_registered_under_the_same_names_with_and_without_an_installation() -> None:
    text = (Path(__file__).parents[3] / "pyproject.toml").read_text(encoding="utf-8")
    groups = tomllib.loads(text)["project"]["entry-points"]
    assert groups["steerlens.encoders"] == registered("steerlens.encoders")


class Opener:
    """An adapter of another package, for folders that transformers does not know."""

    def __init__(self, model: Any, processor: Any, name: str = "") -> None:
        self.given = (model, processor, name)

    @classmethod
    def accepts(cls, model: object) -> bool:
        return False

    @classmethod
    def opens(cls, folder: Path) -> bool:
        return (folder / "theirs.json").is_file()

    @classmethod
    def from_folder(cls, folder: Path, processor: Any, **options: Any) -> "Opener":
        return cls(folder, processor, options["name"])


def test_an_adapter_of_another_package_opens_its_folders_and_a_broken_one_is_in_nobodys_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    entries = [
        SimpleNamespace(name="broken", value="nowhere_at_all:Mine"),
        SimpleNamespace(name="theirs", value=f"{__name__}:Opener"),
    ]
    monkeypatch.setattr(registry, "entry_points", lambda group: entries)
    save_tiny_model("ViTModel", tmp_path)
    assert load_encoder(tmp_path).spec.family == "vit"
    (tmp_path / "theirs.json").write_text("{}")
    opened: Any = load_encoder(tmp_path, name="mine")
    assert opened.given == (tmp_path, None, "mine")
    with pytest.raises(ModelError) as caught:
        load_encoder(nn.Linear(2, 2), tiny_family_processor("ViTModel"))
    told = str(caught.value)
    assert "broken is registered and cannot be loaded: No module named 'nowhere_at_all'." in told
    assert "adapters for clip" in told and "broken," not in told
