"""Weights in folders: variants are loaded, and messages about missing files are true."""

import json
from pathlib import Path

import pytest
import torch
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from safetensors.torch import save_file
from torch import nn

from steerlens.encoders.structure import refuse_kind
from steerlens.errors import ModelError
from steerlens.loading import load
from steerlens.storage.weights import load_module, read_tensors
from steerlens.testing.tiny import save_tiny_pair


def weights(path: Path) -> None:
    save_file({"weight": torch.ones(2, 3)}, path)


def test_a_pair_of_which_only_a_variant_is_there_is_the_same_pair(tmp_path: Path) -> None:
    folder = save_tiny_pair(tmp_path / "pair")
    plain = load(str(folder), dtype="float32").encoder.zero_embedding()
    for path in sorted(folder.rglob("*model.safetensors")):
        path.rename(path.with_suffix(".fp16.safetensors"))
    variant = load(str(folder), dtype="float32")
    assert torch.equal(variant.encoder.zero_embedding(), plain)
    assert "image_encoder/model.fp16.safetensors" in variant.provenance.sha256


@pytest.mark.parametrize(
    ("names", "variant"),
    [
        (["model.safetensors", "model.fp16.safetensors"], None),
        (["diffusion_pytorch_model.bf16.safetensors"], "bf16"),
        (["model.non_ema.safetensors", "model.config.json"], "non_ema"),
    ],
)
def test_plain_weights_come_before_a_variant(names: list[str], variant: str | None, tmp_path: Path) -> None:
    for name in names:
        weights(tmp_path / name)
    found = read_tensors(tmp_path, "unet")
    assert (found.variant, found.files) == (variant, (tmp_path / names[0],))
    assert found.shapes == {"weight": (2, 3)}


def test_a_variant_in_shards_is_read_by_its_index(tmp_path: Path) -> None:
    shard = "model.fp16-00001-of-00001.safetensors"
    weights(tmp_path / shard)
    (tmp_path / "model.safetensors.index.fp16.json").write_text(f'{{"weight_map": {{"weight": "{shard}"}}}}')
    found = read_tensors(tmp_path, "image_encoder")
    assert (found.variant, found.files) == ("fp16", (tmp_path / shard,))


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (["model.fp16.safetensors", "model.fp32.safetensors"], r"several variants \(fp16, fp32\)"),
        (["open_clip_model.safetensors"], r"named otherwise: open_clip_model\.safetensors"),
        (["pytorch_model.bin"], r"pytorch_model\.bin is pickled"),
        ([], r"holds no weights in safetensors files\.$"),
    ],
)
def test_what_is_there_instead_of_weights_is_named(names: list[str], said: str, tmp_path: Path) -> None:
    for name in names:
        weights(tmp_path / name)
    with pytest.raises(ModelError, match=said):
        read_tensors(tmp_path, "unet")


def test_a_class_that_is_refused_is_told_from_one_of_its_name() -> None:
    other = type("Linear", (nn.Linear,), {"__module__": "quantised.layers"})
    with pytest.raises(
        ModelError, match=r"is a quantised\.layers\.Linear, .*; known: torch\.nn\.modules\.linear\.Linear"
    ):
        refuse_kind("a ViT", "blocks.0", other(2, 2), nn.Linear)


class PluginModel(ModelMixin, ConfigMixin):
    """A diffusers model that no module of diffusers defines, as a plug-in's decoder has it."""

    @register_to_config
    def __init__(self, width: int = 3) -> None:
        super().__init__()
        self.layer = nn.Linear(width, width)


def test_a_model_of_diffusers_that_a_plug_in_defines_is_loaded(tmp_path: Path) -> None:
    model = PluginModel(4)
    model.save_pretrained(tmp_path)
    loaded = load_module(PluginModel, tmp_path, "decoder", dtype=torch.float16, device=torch.device("cpu"))
    assert torch.equal(loaded.layer.weight, model.layer.weight.half())


def test_tensors_that_overlap_are_told_with_the_name_of_their_file(tmp_path: Path) -> None:
    header = {
        "a": {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]},
        "b": {"dtype": "F32", "shape": [4], "data_offsets": [8, 24]},
    }
    for change, length in ((header, 24), ({"a": {**header["a"], "shape": [5]}}, 16)):
        text = json.dumps(change).encode()
        (tmp_path / "model.safetensors").write_bytes(len(text).to_bytes(8, "little") + text + bytes(length))
        with pytest.raises(ModelError, match=r"model\.safetensors is damaged: .*\. Fetch it again\.$"):
            read_tensors(tmp_path, "image_encoder")
