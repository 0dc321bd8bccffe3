"""`steerlens doctor`: an intact model passes, and every kind of damage is found."""

import json
from pathlib import Path

import pytest
from PIL import Image
from safetensors.torch import load_file, save_file

from steerlens.cli.main import main
from steerlens.testing.tiny import save_tiny_pair


@pytest.fixture
def picture(tmp_path: Path) -> str:
    Image.new("RGB", (20, 20), "orange").save(tmp_path / "orange.png")
    return str(tmp_path / "orange.png")


def test_a_sound_pair_passes(tmp_path: Path, picture: str, capsys: pytest.CaptureFixture[str]) -> None:
    folder = save_tiny_pair(tmp_path / "pair")
    # Random weights decode noise, so that only the last check is given a threshold that it cannot miss.
    assert main(["doctor", str(folder), "--picture", picture, "--dtype", "float32", "--threshold", "-1"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 6 and all(line.startswith("ok ") for line in lines[:-1])
    assert "cosine distance" in lines[3] and lines[-1].endswith("is fine.")


def test_a_picture_that_does_not_come_back_fails(
    tmp_path: Path, picture: str, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = save_tiny_pair(tmp_path / "pair")
    assert main(["doctor", str(folder), "--picture", picture, "--threshold", "0.9999", "--json"]) == 1
    told = json.loads(capsys.readouterr().out)
    assert told["passed"] is False
    assert [check["passed"] for check in told["checks"]] == [True, True, True, True, False]


def test_weights_of_another_size_are_told_from_the_published_ones(tmp_path: Path) -> None:
    from steerlens.cli import doctor
    from steerlens.loading import load

    folder = save_tiny_pair(tmp_path / "hub", layout="hub")
    pair = load("kandinsky-2.2", local=folder, dtype="float32")
    passed, detail = doctor._manifest(pair, "kandinsky-2.2")
    assert not passed and "differences, first: image_encoder:" in detail


def test_broken_weights_end_it_with_one_message(
    tmp_path: Path, picture: str, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = save_tiny_pair(tmp_path / "pair")
    path = folder / "decoder" / "movq" / "diffusion_pytorch_model.safetensors"
    tensors = dict(load_file(path))
    tensors["decoder.conv_in.bias"][0] = float("inf")
    save_file(tensors, path)
    assert main(["doctor", str(folder), "--picture", picture]) == 1
    told = capsys.readouterr().err
    assert told == "steerlens: movq: weights are not finite in decoder.conv_in.bias.\n"


def test_a_pair_with_a_manifest_is_held_to_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import hashlib

    pair = save_tiny_pair(tmp_path / "pair")
    config = pair / "image_processor" / "preprocessor_config.json"
    entry = {"sha256": hashlib.sha256(config.read_bytes()).hexdigest()}
    files = {"image_processor/preprocessor_config.json": entry}
    (pair / "manifest.json").write_text(json.dumps({"files": files}))
    main(["doctor", str(pair), "--threshold", "-1"])
    assert "ok    the files are those" in capsys.readouterr().out
    config.write_text(config.read_text().replace("0.48", "0.49"))
    assert main(["doctor", str(pair), "--threshold", "-1"]) == 1
    assert "preprocessor_config.json is not the file" in capsys.readouterr().out
