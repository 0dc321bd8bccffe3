"""`steerlens study` as real processes."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image

from steerlens.testing.tiny import save_tiny_pair


def steerlens(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "steerlens.cli.main", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    names = json.loads((save_tiny_pair(tmp_path / "pair") / "vocabulary.json").read_text())
    for place in range(10):
        name = names[place // 2]["name"] if isinstance(names[0], dict) else names[place // 2]
        (folder / name).mkdir(parents=True, exist_ok=True)
        generator = torch.Generator().manual_seed(place)
        pixels = torch.randint(0, 256, (16, 16, 3), generator=generator, dtype=torch.uint8)
        Image.fromarray(pixels.numpy()).save(folder / name / f"{place}.png")
    return folder


@pytest.mark.slow
def test_importance_of_a_pair_and_pictures_of_ones_own(photos: Path, tmp_path: Path) -> None:
    arguments = ("study", "importance", "--model", tmp_path / "pair", "--images", photos, "--out", tmp_path / "study")
    small = ("--count", "4", "--choose", "2", "--steps", "1", "--guidance", "1")
    done = steerlens(*arguments, *small)
    assert done.returncode == 0, done.stderr
    assert "steering minus diffusion, paired" in done.stdout and "exact direct effect (ceiling)" in done.stdout
    summary = json.loads((tmp_path / "study" / "summary.json").read_text())
    assert summary["n_pictures"] == 4
    again = steerlens(*arguments, *small, "--json")
    assert again.returncode == 0, again.stderr
    assert json.loads(again.stdout)["n_pictures"] == 4
    other = steerlens(*arguments, *small, "--seed", "1")
    assert other.returncode == 2 and "holds a study with another" in other.stderr
    page = steerlens("study", "page", tmp_path, "--out", tmp_path / "docs")
    assert page.returncode == 2 and "no finished study" in page.stderr
    (tmp_path / "study").rename(tmp_path / "importance")
    page = steerlens("study", "page", tmp_path, "--out", tmp_path / "docs")
    assert page.returncode == 0, page.stderr
    text = (tmp_path / "docs" / "studies.md").read_text()
    assert "## Head importance" in text and (tmp_path / "docs" / "studies" / "importance.json").is_file()
    for line in text.splitlines():
        if line.startswith("!["):
            assert (tmp_path / "docs" / line.partition("(")[2].rstrip(")")).is_file(), line


def test_a_study_without_pictures_says_what_to_give(tmp_path: Path) -> None:
    done = steerlens("study", "importance", "--out", tmp_path / "study")
    assert done.returncode == 2 and "--images FOLDER" in done.stderr and not (tmp_path / "study").exists()
    done = steerlens("study", "importance", "--out", tmp_path / "study", "--data", tmp_path)
    assert done.returncode == 2 and "steerlens train prepare" in done.stderr
    done = steerlens("study", "importance", "--out", tmp_path, "--images", tmp_path, "--count", "1")
    assert done.returncode == 2 and "at least 2 pictures" in done.stderr


@pytest.mark.slow
def test_overlays_of_ones_own_and_their_page(photos: Path, tmp_path: Path) -> None:
    arguments = ("study", "overlay", "--model", tmp_path / "pair", "--bases", photos, "--overlays", photos)
    small = ("--count", "2", "--choose", "2", "--steps", "1", "--guidance", "1", "--out", tmp_path / "overlay")
    alone = steerlens("study", "overlay", "--model", tmp_path / "pair", "--bases", photos, "--out", tmp_path / "none")
    assert alone.returncode == 2 and "--bases and --overlays go together" in alone.stderr
    done = steerlens(*arguments, *small)
    assert done.returncode == 0, done.stderr
    assert "normalised area" in done.stdout and "greedy reference" in done.stdout
    page = steerlens("study", "page", tmp_path, "--out", tmp_path / "docs")
    assert page.returncode == 0, page.stderr
    text = (tmp_path / "docs" / "studies.md").read_text()
    assert "## Overlay removal" in text
    for line in text.splitlines():
        if line.startswith("!["):
            assert (tmp_path / "docs" / line.partition("(")[2].rstrip(")")).is_file(), line
