"""Folders of timm and open_clip, as their repositories on the hub hold them, opened by `load_encoder`."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

import steerlens as sl
from steerlens.cli.main import main
from steerlens.encoders.clip import CLIPEncoder
from steerlens.encoders.open_clip import OpenCLIPEncoder, OpenCLIPTimmEncoder
from steerlens.encoders.timm import TimmEncoder
from steerlens.errors import ModelError
from steerlens.testing.tiny import save_tiny_pair
from steerlens.testing.tiny_families import save_tiny_model
from steerlens.testing.tiny_vit import randomise
from steerlens.zoo import locate_encoder
from steerlens.zoo.provenance import file_hashes

SIZE = 32


def save_timm(timm: Any, folder: Path, **args: Any) -> Any:
    """As `timm.models.push_to_hf_hub` saves a model."""
    model = randomise(timm.create_model("test_vit", num_classes=7, img_size=SIZE, **args))
    config = {
        "architecture": "test_vit",
        "num_classes": 7,
        "num_features": 64,
        "global_pool": model.global_pool,
        "model_args": {"img_size": SIZE, **args},
        "pretrained_cfg": {
            "input_size": [3, SIZE, SIZE],
            "fixed_input_size": True,
            "interpolation": "bicubic",
            "crop_pct": 0.95,
            "mean": [0.5, 0.5, 0.5],
            "std": [0.4, 0.4, 0.4],
            "num_classes": 7,
        },
    }
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    save_file(model.state_dict(), folder / "model.safetensors")
    return model


def save_open_clip(open_clip: Any, folder: Path, **vision: Any) -> Any:
    """As `open_clip.push_to_hf_hub` saves a model."""
    config = {
        "embed_dim": 12,
        "vision_cfg": {"layers": 2, "width": 16, "head_width": 8, "patch_size": 8, "image_size": SIZE, **vision},
        "text_cfg": {"context_length": 8, "vocab_size": 32, "width": 16, "heads": 2, "layers": 1},
        "quick_gelu": True,
    }
    model = randomise(open_clip.model.CLIP(**config))
    if hasattr(model.visual, "set_input_size"):
        model.visual.set_input_size(SIZE)
    preprocessing = {"mean": [0.5] * 3, "std": [0.4] * 3, "interpolation": "bilinear", "resize_mode": "squash"}
    content = {"model_cfg": config, "preprocess_cfg": {**preprocessing, "size": SIZE}}
    (folder / "open_clip_config.json").write_text(json.dumps(content), encoding="utf-8")
    save_file(
        {key: value.contiguous() for key, value in model.state_dict().items()}, folder / "open_clip_model.safetensors"
    )
    return model


def cached(root: Path, repository: str, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The empty folder of a repository in a hub's cache of its own."""
    commit, owner = "a" * 40, root / f"models--{repository.replace('/', '--')}"
    for folder in (owner / "refs", owner / "snapshots" / commit):
        folder.mkdir(parents=True)
    (owner / "refs" / "main").write_text(commit, encoding="utf-8")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(root))
    monkeypatch.setattr("huggingface_hub.file_download.HF_HUB_CACHE", str(root), raising=False)
    return owner / "snapshots" / commit


def test_a_folder_of_timm_is_opened_with_its_own_transform(timm: Any, tmp_path: Path) -> None:
    model = save_timm(timm, tmp_path, reg_tokens=2)
    encoder = sl.load_encoder(tmp_path, device="cpu")
    assert type(encoder) is TimmEncoder
    assert encoder.spec.image_size == (SIZE, SIZE)
    picture = sl.sample_picture().image
    transform = timm.data.create_transform(
        (3, SIZE, SIZE), interpolation="bicubic", crop_pct=0.95, mean=(0.5,) * 3, std=(0.4,) * 3
    )
    inputs = encoder.preprocess([picture])
    assert torch.equal(inputs["pixel_values"][0], transform(picture))
    with torch.no_grad():
        torch.testing.assert_close(encoder.model.head(encoder.embed(inputs)), model(inputs["pixel_values"]))  # type: ignore[attr-defined]
    assert sl.load_encoder(tmp_path, device="cpu", dtype="bfloat16").dtype == torch.bfloat16


def test_a_flat_config_of_timm_decides_size_transform_and_classes(timm: Any, tmp_path: Path) -> None:
    """Early configs have no `pretrained_cfg`; its entries stand at the top."""
    model = randomise(timm.create_model("test_vit", num_classes=3))
    side = model.patch_embed.img_size[0]
    assert side != timm.models.VisionTransformer(depth=1, embed_dim=8, num_heads=1).patch_embed.img_size[0]
    mean, std, names = (0.4, 0.3, 0.2), (0.21, 0.22, 0.23), ["cat", "dog", "owl"]
    config = {"architecture": "test_vit", "num_classes": 3, "input_size": [3, side, side], "crop_pct": 1.0}
    config |= {"interpolation": "bicubic", "mean": mean, "std": std, "labels": names}
    (tmp_path / "config.json").write_text(json.dumps(config), encoding="utf-8")
    save_file(model.state_dict(), tmp_path / "model.safetensors")
    encoder: Any = sl.load_encoder(tmp_path, device="cpu")
    assert encoder.spec.image_size == (side, side)
    picture = sl.sample_picture().image
    transform = timm.data.create_transform((3, side, side), interpolation="bicubic", crop_pct=1.0, mean=mean, std=std)
    inputs = encoder.preprocess([picture])
    assert torch.equal(inputs["pixel_values"][0], transform(picture))
    with torch.no_grad():
        torch.testing.assert_close(encoder.model.head(encoder.embed(inputs)), model(inputs["pixel_values"]))
    assert list(encoder.class_vocabulary().names) == names


def test_a_hub_id_of_timm_is_opened_though_it_holds_no_image_processor(
    timm: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = cached(tmp_path, "timm/test_vit", monkeypatch)
    save_timm(timm, folder)
    encoder = sl.load_encoder("timm/test_vit", device="cpu", local_files_only=True)
    assert type(encoder) is TimmEncoder
    assert encoder.spec.name == "timm/test_vit"
    (folder / "config.json").write_text('{"architectures": ["ViTModel"], "model_type": "vit"}', encoding="utf-8")
    with pytest.raises(ModelError, match=r"is in the cache without preprocessor_config\.json"):
        sl.load_encoder("timm/test_vit", device="cpu", local_files_only=True)


def test_a_hub_id_of_open_clip_is_opened_with_and_without_its_mark(
    open_clip: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = cached(tmp_path, "laion/tiny", monkeypatch)
    model = save_open_clip(open_clip, folder)
    for source in ("laion/tiny", "hf-hub:laion/tiny", "hf-hub:laion/tiny@main"):
        encoder = sl.load_encoder(source, device="cpu", local_files_only=True)
        assert type(encoder) is OpenCLIPEncoder and encoder.spec.name == source
    inputs = encoder.preprocess([sl.sample_picture().image])
    with torch.no_grad():
        torch.testing.assert_close(encoder.embed(inputs), model.encode_image(inputs["pixel_values"]))
    # Beside a model of transformers, the mark decides.
    (folder / "config.json").write_text('{"architectures": ["ViTModel"], "model_type": "vit"}', encoding="utf-8")
    assert type(sl.load_encoder("hf-hub:laion/tiny", device="cpu", local_files_only=True)) is OpenCLIPEncoder
    with pytest.raises(ModelError, match=r"is in the cache without model\.safetensors"):
        sl.load_encoder("laion/tiny", device="cpu", local_files_only=True)


@pytest.mark.parametrize(
    ("vision", "kind"),
    [({}, OpenCLIPEncoder), ({"timm_model_name": "test_vit", "timm_pool": "token"}, OpenCLIPTimmEncoder)],
    ids=["own tower", "tower of timm"],
)
def test_a_folder_of_open_clip_is_opened_with_its_own_transform(
    open_clip: Any, tmp_path: Path, vision: dict[str, Any], kind: type
) -> None:
    model = save_open_clip(open_clip, tmp_path, **vision)
    encoder = sl.load_encoder(tmp_path, device="cpu")
    assert type(encoder) is kind
    picture = sl.sample_picture().image
    transform = open_clip.image_transform(
        SIZE, is_train=False, mean=[0.5] * 3, std=[0.4] * 3, interpolation="bilinear", resize_mode="squash"
    )
    inputs = encoder.preprocess([picture])
    assert torch.equal(inputs["pixel_values"][0], transform(picture))
    assert not encoder.spec.crops
    with torch.no_grad():
        torch.testing.assert_close(encoder.embed(inputs), model.encode_image(inputs["pixel_values"]))
    assert sl.load_encoder(tmp_path, transform, device="cpu", name="mine").spec.name == "mine"


def test_broken_folders_are_refused_in_one_line(timm: Any, open_clip: Any, tmp_path: Path) -> None:
    first, second = tmp_path / "timm", tmp_path / "open_clip"
    first.mkdir()
    second.mkdir()
    save_timm(timm, first)
    weights = load_file(first / "model.safetensors")
    cases = (
        ({**weights, "more": torch.zeros(1)}, "hold, without a place for it in the model, more"),
        ({key: value for key, value in weights.items() if key != "norm.weight"}, r"lack .*norm\.weight"),
        ({**weights, "head.bias": torch.zeros(9)}, r"head\.bias has shape \(9,\)"),
        ({**weights, "head.bias": torch.full((7,), torch.nan)}, r"not finite in head\.bias"),
    )
    for changed, words in cases:
        save_file(changed, first / "model.safetensors")
        with pytest.raises(ModelError, match=words):
            sl.load_encoder(first, device="cpu")
    (first / "config.json").write_text('{"architecture": "vit_of_nobody"}', encoding="utf-8")
    with pytest.raises(ModelError, match="timm cannot build vit_of_nobody"):
        sl.load_encoder(first, device="cpu")
    save_open_clip(open_clip, second)
    (second / "open_clip_model.safetensors").rename(second / "open_clip_pytorch_model.bin")
    with pytest.raises(ModelError, match="pickled weights are not read"):
        sl.load_encoder(second, device="cpu")
    (second / "open_clip_config.json").write_text('{"model_cfg": {"embed_dim": 3}}', encoding="utf-8")
    (second / "open_clip_pytorch_model.bin").rename(second / "open_clip_model.safetensors")
    with pytest.raises(ModelError, match="open_clip cannot build the model"):
        sl.load_encoder(second, device="cpu")


def test_the_config_of_open_clip_is_a_part_of_what_identifies_its_models(open_clip: Any, tmp_path: Path) -> None:
    save_open_clip(open_clip, tmp_path)
    before = file_hashes(locate_encoder(tmp_path).files)
    config = tmp_path / "open_clip_config.json"
    config.write_text(config.read_text(encoding="utf-8").replace('"quick_gelu": true', '"quick_gelu": false'))
    after = file_hashes(locate_encoder(tmp_path).files)
    differ = {name for name in {*before, *after} if before.get(name) != after.get(name)}
    assert differ == {"image_encoder/open_clip_config.json"}


def test_the_mark_of_open_clip_holds_for_a_pairs_encoder_and_for_a_bridge(
    open_clip: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A repository may hold a model of transformers beside it, which is another one."""
    folder = cached(tmp_path / "hub", "laion/tiny", monkeypatch)
    save_open_clip(open_clip, folder)
    save_tiny_model("CLIPVisionModelWithProjection", folder, seed=5)
    pair = save_tiny_pair(tmp_path / "pair")
    marked, plain = (
        sl.load(pair, encoder=f"{mark}laion/tiny", device="cpu", local_files_only=True) for mark in ("hf-hub:", "")
    )
    assert (type(marked.encoder), type(plain.encoder)) == (OpenCLIPEncoder, CLIPEncoder)
    assert marked.encoder.spec.name == "hf-hub:laion/tiny"

    found = locate_encoder("hf-hub:laion/tiny", local_files_only=True)
    assert found.source == f"hf-hub:laion/tiny@{'a' * 40}"
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    generator = np.random.default_rng(0)
    for number in range(63):
        corners = generator.integers(0, 256, (3, 3, 3), dtype=np.uint8)
        Image.fromarray(corners).resize((16, 16)).save(pictures / f"{number:02d}.png")
    command = ["bridge", "fit", "--from", "hf-hub:laion/tiny", "--to", str(pair), "--images", str(pictures)]
    options = ["--map", "ridge", "--decode", "0", "--device", "cpu", "--local-files-only"]
    assert main([*command, *options, "--out", str(tmp_path / "bridge")]) == 0
    bridged: Any = sl.load(f"bridge:{tmp_path / 'bridge'}", device="cpu", local_files_only=True)
    assert type(bridged.encoder.source) is OpenCLIPEncoder


def test_a_config_of_timm_leads_to_no_other_files(timm: Any, tmp_path: Path) -> None:
    save_timm(timm, tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    for change, words in (
        ({"model_args": {"checkpoint_path": "/elsewhere/model.pth"}}, "checkpoint_path in model_args"),
        ({"model_args": {"pretrained": True}}, "pretrained in model_args"),
        ({"architecture": "local-dir:/elsewhere"}, "no name of an architecture"),
        ({"architecture": "hf-hub:owner/name"}, "no name of an architecture"),
        ({"model_args": {"depth": 900_000}}, "far larger than its weights"),
    ):
        (tmp_path / "config.json").write_text(json.dumps({**config, **change}))
        with pytest.raises(ModelError, match=words):
            sl.load_encoder(tmp_path, device="cpu")
