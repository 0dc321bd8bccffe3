"""`steerlens study`: the four studies on a tiny pair, their page, and what makes no study."""

import json
from pathlib import Path

import pytest
import torch
from commands import steerlens, steerlens_process
from PIL import Image

from steerlens.testing.tiny import save_tiny_pair


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    names = json.loads((save_tiny_pair(tmp_path / "pair") / "vocabulary.json").read_text())
    for place in range(16):
        name = names[place % len(names)]["name"] if isinstance(names[0], dict) else names[place % len(names)]
        (folder / name).mkdir(parents=True, exist_ok=True)
        generator = torch.Generator().manual_seed(place)
        pixels = torch.randint(0, 256, (16, 16, 3), generator=generator, dtype=torch.uint8)
        Image.fromarray(pixels.numpy()).save(folder / name / f"{place}.png")
    return folder


@pytest.mark.slow
def test_importance_of_a_pair_and_pictures_of_ones_own(photos: Path, tmp_path: Path) -> None:
    arguments = ("study", "importance", "--model", tmp_path / "pair", "--images", photos, "--out", tmp_path / "study")
    small = ("--count", "4", "--choose", "2", "--steps", "1", "--guidance", "1", "--strengths", "rho=1", "--no-extras")
    done = steerlens_process(*arguments, *small)
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
    # A study's own folder may have any name.
    text = page_of(tmp_path / "study", "importance", tmp_path / "docs")
    assert "# Head importance" in text and (tmp_path / "docs" / "studies" / "importance.json").is_file()
    assert "## Head importance" in (tmp_path / "docs" / "studies.md").read_text()


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
    assert "# Overlays" in page_of(tmp_path, "overlay", tmp_path / "docs")


def page_of(folder: Path, study: str, docs: Path) -> str:
    """The page of a study; every figure that it shows is there."""
    page = steerlens("study", "page", folder, "--out", docs)
    assert page.returncode == 0, page.stderr
    text = (docs / "studies" / f"{study}.md").read_text()
    for line in text.splitlines():
        if line.startswith("!["):
            assert (docs / "studies" / line.partition("(")[2].rstrip(")")).is_file(), line
    return text


@pytest.mark.slow
def test_strengths_of_ones_own_pictures_and_their_page(photos: Path, tmp_path: Path) -> None:
    arguments = ("study", "strength", "--model", tmp_path / "pair", "--images", photos, "--out", tmp_path / "strength")
    small = ("--count", "2", "--steps", "1", "--guidance", "1", "--rho", "0.5", "2", "--s", "20")
    done = steerlens(*arguments, *small, "--heads-per-picture", "3", "--judge", tmp_path / "pair")
    assert done.returncode == 0, done.stderr
    assert "the largest Spearman correlation" in done.stdout and "rho=0.5" in done.stdout
    other = steerlens(*arguments, *small)
    assert other.returncode == 2 and "holds a study with another" in other.stderr
    text = page_of(tmp_path, "strength", tmp_path / "docs")
    assert "# Strength" in text and "| s=20 |" in text and "judged" in text
    none = steerlens(
        *arguments, *small, "--heads-per-picture", "3", "--judge", tmp_path / "pair", "--max-atypical", "0"
    )
    if "none is recommended" in none.stdout:
        page_of(tmp_path, "strength", tmp_path / "docs")
        assert "none within the bounds" in (tmp_path / "docs" / "studies.md").read_text()


@pytest.mark.slow
def test_decoders_and_their_page(photos: Path, tmp_path: Path) -> None:
    arguments = ("study", "decoder", "--model", tmp_path / "pair", "--images", photos, "--out", tmp_path / "decoder")
    small = ("--seeds", "2", "--heads", "3", "--reference-steps", "3", "--reference-seeds", "2", "--steps", "2")
    swept = ("--sweep-steps", "1", "2", "--sweep-guidance", "1", "--sweep-schedulers", "ddim", "--sweep-intervals")
    done = steerlens(*arguments, *small, *swept, "0", "0.5", "--json")
    assert done.returncode == 0, done.stderr
    rows = json.loads(done.stdout)["rows"]
    assert {row["axis"] for row in rows} >= {"default", "steps", "guidance", "guidance_interval"}
    again = steerlens(*arguments, *small, *swept, "0", "0.5", "--share", "0.5")
    assert again.returncode == 0 and "seconds per picture" in again.stdout and "invented" in again.stdout
    text = page_of(tmp_path, "decoder", tmp_path / "docs")
    assert "# Decoder" in text and "(reference)" in text and "0.5 of the reference's self-agreement" in text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("importance", "--seeds", "1"), "at least 2 seeds"),
        (("importance", "--strengths", "rho=1", "hard"), "is not a strength"),
        (("importance", "--strengths", "s=2", "s=3", "s=4", "s=5", "s=6", "s=7"), "at most 5 strengths"),
        (("strength", "--count", "1"), "at least 2 pictures"),
        (("strength", "--min-fidelity", "2"), "shares between 0 and 1"),
        (("strength", "--rho", "nan"), "finite number"),
        (("decoder", "--count", "3"), "at least 4 pictures"),
        (("decoder", "--strength", "hard"), "is not a strength"),
        (("decoder", "--sweep-schedulers", "magic"), "magic"),
        (
            ("importance", "--no-decoder", "--no-extras", "--seeds", "3", "--judge", "x"),
            "--judge, --seeds, --no-extras: no effect",
        ),
        (("identification", "--no-decoder", "--foils", "2"), "--foils: no effect, because nothing is decoded"),
        (("lenses", "--bank-size", "9", "--neighbours", "3"), "--bank-size, --neighbours: no effect"),
    ],
)
def test_what_makes_no_study_is_told(arguments: tuple[str, ...], message: str, tmp_path: Path) -> None:
    done = steerlens("study", *arguments, "--images", tmp_path, "--out", tmp_path / "study")
    assert done.returncode == 2 and message in done.stderr, done.stderr
    assert "Traceback" not in done.stderr and not (tmp_path / "study").exists()
