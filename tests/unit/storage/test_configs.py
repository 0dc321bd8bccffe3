"""Configs, cards and indexes from elsewhere: sizes before memory, and no way out of a folder."""

import json
import os
from pathlib import Path
from typing import Any

import pytest

from steerlens.errors import ModelError, UsageError
from steerlens.limits import LIMITS, read_file, variable
from steerlens.loading import load
from steerlens.storage import check_library_folder, is_inside, read_json, read_yaml, too_large
from steerlens.storage.weights import read_tensors
from steerlens.testing.tiny import save_tiny_pair
from steerlens.zoo.vocabularies import read_texts


@pytest.mark.parametrize(
    ("content", "word"),
    [
        ({"num_hidden_layers": 10**9}, "config_number"),
        ({"vision_config": {"num_labels": 10**9}}, "classes"),
        ({"block_out_channels": [32, 10**12]}, "config_number"),
        ({"image_size": 30_000}, "config_side"),
        ({"size": {"height": 224, "width": 10**9}}, "config_side"),
        ({"crop_size": [30_000.5, 224]}, "config_side"),
        ({"pretrained_cfg": {"input_size": [3, 224, 10**5]}}, "config_side"),
        ({"num_train_timesteps": 10**8}, "noise_levels"),
        ({"image_size": 10**5000}, "config_side"),
    ],
)
def test_numbers_of_configs_are_limited(content: dict[str, Any], word: str) -> None:
    words = too_large(content)
    assert f"more than the {LIMITS[word].default:,}" in words and variable(word) in words


def test_a_limit_of_configs_can_be_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    assert too_large({"num_hidden_layers": 2_000_000})
    monkeypatch.setenv(variable("config_number"), "3000000")
    assert not too_large({"num_hidden_layers": 2_000_000})


def test_numbers_that_are_no_sizes_are_left_alone() -> None:
    content = {"rope_theta": 5_000_000, "bos_token_id": 10**7, "scale": 1e12, "size": [224, 224], "drop": float("nan")}
    assert not too_large(content)
    assert "without end" in too_large({"image_size": float("inf")})


@pytest.mark.parametrize(
    ("part", "change"),
    [
        ("image_encoder/config.json", {"num_hidden_layers": 900_000}),
        ("image_encoder/config.json", {"intermediate_size": 900_000}),
        ("image_encoder/config.json", {"num_hidden_layers": 10**9}),
        ("decoder/unet/config.json", {"layers_per_block": 900_000}),
        ("decoder/unet/config.json", {"cross_attention_dim": 900_000}),
        ("decoder/movq/config.json", {"block_out_channels": [900_000]}),
        ("image_processor/preprocessor_config.json", {"size": {"height": 30_000, "width": 30_000}}),
        ("decoder/scheduler/scheduler_config.json", {"num_train_timesteps": 10**8}),
    ],
)
def test_sizes_that_the_weights_do_not_have_are_refused_before_a_model_is_built(
    part: str, change: dict[str, Any], tmp_path: Path
) -> None:
    file = save_tiny_pair(tmp_path / "pair") / part
    file.write_text(json.dumps({**json.loads(file.read_text()), **change}))
    with pytest.raises(ModelError, match=r"far larger than its weights|has shape|more than the|cannot be loaded"):
        load(str(tmp_path / "pair"), device="cpu")


def index_naming(folder: Path, name: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"w": name}}))
    return folder


def test_an_index_names_files_of_its_own_folder_alone(tmp_path: Path) -> None:
    outside = tmp_path / "outside.safetensors"
    outside.write_bytes(b"weights of another")
    (tmp_path / "model" / "below").mkdir(parents=True)
    (tmp_path / "model" / "link.safetensors").symlink_to(outside)
    for name in (
        str(outside),
        "../outside.safetensors",
        "below/../../outside.safetensors",
        "link.safetensors",
        "..",
        "",
    ):
        folder = index_naming(tmp_path / "model", name)
        for refuses in (read_tensors, check_library_folder):
            with pytest.raises(ModelError, match="lies outside its folder"):
                refuses(folder, "image_encoder")


def test_links_of_the_hubs_cache_are_followed(tmp_path: Path) -> None:
    home = tmp_path / "models--owner--name"
    snapshot = home / "snapshots" / "abc" / "unet"
    snapshot.mkdir(parents=True)
    (home / "blobs").mkdir()
    (home / "blobs" / "0123").write_bytes(b"")
    (snapshot / "a.safetensors").symlink_to("../../../blobs/0123")
    (snapshot / "b.safetensors").symlink_to(tmp_path / "elsewhere")
    assert is_inside(snapshot, "a.safetensors")
    assert not is_inside(snapshot, "b.safetensors")


def test_an_adapter_does_not_lead_to_another_model(tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").write_text('{"base_model_name_or_path": "/elsewhere"}')
    with pytest.raises(ModelError, match="adapter of another model"):
        check_library_folder(tmp_path, "image_encoder")


@pytest.mark.parametrize("name", ["vocab.json", "merges.txt", "preprocessor_config.json"])
def test_files_without_end_are_not_given_to_a_library(name: str, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / name)
    with pytest.raises(ModelError, match="not a regular file"):
        check_library_folder(tmp_path, "tokenizer")


def test_vocabularies_without_end_are_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "sparse").touch()
    os.truncate(tmp_path / "sparse", 10**12)
    for path in (Path("/dev/zero"), tmp_path / "pipe", tmp_path / "sparse"):
        with pytest.raises(UsageError, match=r"not a regular file|more than the"):
            read_texts(path)
    with pytest.raises(UsageError, match="not a regular file"):
        read_file(tmp_path / "pipe", "config_bytes")


@pytest.mark.parametrize("text", ["[" * 100_000, '{"a": ' * 100_000, "{", "[]", '{"a": 1' + "0" * 5000 + "}", "\udc80"])
def test_broken_json_is_told_in_one_sentence(text: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(ModelError, match=r"config\.json") as told:
        read_json(tmp_path / "config.json", "unet")
    assert "\n" not in str(told.value) and len(str(told.value)) < 400


def test_cards_do_not_grow(tmp_path: Path) -> None:
    bomb = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
        f"{new}: &{new} [{', '.join([f'*{old}'] * 9)}]\n" for old, new in zip("abcdefghi", "bcdefghij", strict=True)
    )
    for text, words in (
        (bomb, "aliases"),
        ("[" * 500, "levels deep"),
        ("a: [", "cannot be read"),
        ("x" * 10**6, "more than"),
    ):
        (tmp_path / "card.yaml").write_text(text)
        with pytest.raises(ModelError, match=words):
            read_yaml(tmp_path / "card.yaml")


def test_a_config_neither_chooses_attention_nor_runs_code(tmp_path: Path) -> None:
    file = save_tiny_pair(tmp_path / "pair") / "image_encoder" / "config.json"
    asked: dict[str, Any] = {"attn_implementation": "owner/kernel", "_attn_implementation": "owner/kernel"}
    asked["auto_map"] = {"AutoModel": "x.Y"}
    file.write_text(json.dumps({**json.loads(file.read_text()), **asked}))
    (file.parent / "x.py").write_text("raise SystemExit('ran')")
    encoder = load(str(tmp_path / "pair"), device="cpu").encoder
    assert encoder.model.config._attn_implementation == "sdpa"  # type: ignore[attr-defined]
