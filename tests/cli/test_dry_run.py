"""`--dry-run` of studies, profiles and indexes: says what would be computed, checks all inputs, and writes nothing."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from steerlens.cli.main import main
from steerlens.testing.tiny import save_tiny_pair

STUDIES = ("importance", "overlay", "strength", "decoder", "identification", "lenses")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny pair, and pictures of concepts that it knows."""
    folder = tmp_path_factory.mktemp("dry")
    names = json.loads((save_tiny_pair(folder / "pair") / "vocabulary.json").read_text())
    for number in range(40):
        entry = names[number % len(names)]
        concept = folder / "photos" / (entry["name"] if isinstance(entry, dict) else entry)
        concept.mkdir(parents=True, exist_ok=True)
        pixels = torch.randint(0, 256, (16, 16, 3), generator=torch.Generator().manual_seed(number), dtype=torch.uint8)
        Image.fromarray(pixels.numpy()).save(concept / f"{number}.png")
    return folder


def _study(place: Path, study: str, *more: object) -> list[str]:
    pictures: list[object] = ["--images", place / "photos"]
    if study == "overlay":
        pictures = ["--bases", place / "photos", "--overlays", place / "photos"]
    small: dict[str, list[object]] = {
        "importance": ["--count", 4, "--choose", 2],
        "overlay": ["--count", 2, "--choose", 2],
        "strength": ["--count", 3],
        "lenses": ["--count", 3, "--choose", 2],
    }
    model = [] if "--model" in more else ["--model", place / "pair"]
    counts = small.get(study, [])
    kept = [word for pair in zip(counts[::2], counts[1::2], strict=True) if pair[0] not in more for word in pair]
    words = ["study", study, *model, *pictures, *kept, "--out", place / "out", *more, "--dry-run"]
    return list(map(str, words))


def _priced(capsys: pytest.CaptureFixture[str], words: list[str]) -> dict[str, Any]:
    capsys.readouterr()
    code = main([*words, "--json"])
    printed = capsys.readouterr()
    assert code == 0, printed.err
    return json.loads(printed.out)


def _files(place: Path) -> set[Path]:
    return set(place.rglob("*"))


@pytest.mark.parametrize("study", STUDIES)
def test_a_study_says_its_work_and_writes_nothing(study: str, place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = _files(place)
    priced = _priced(capsys, _study(place, study))
    assert priced["pictures"] >= 4 and priced["pictures_to_decode"] > 20 and priced["encoder_passes"] >= 4
    assert priced["seconds"] > 0 and priced["seconds_are_measured"] and priced["weight_bytes"] > 1000
    assert not priced["resumes"]
    assert main(_study(place, study)) == 0
    printed = capsys.readouterr().out
    assert "forward passes" in printed and "time: about" in printed and "Nothing was computed or written." in printed
    assert _files(place) == before


def test_more_steps_take_more_time_and_fewer_heads_less(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    heads = [
        _priced(capsys, _study(place, "strength", "--heads-per-picture", count))["pictures_to_decode"]
        for count in (2, 4)
    ]
    assert heads[0] < heads[1]
    settings = _priced(capsys, _study(place, "decoder", "--sweep-steps", 3, "--reference-steps", 9))["decodings"]
    assert {setting["steps"] for setting in settings} >= {3, 9}


def test_without_a_decoder_nothing_is_decoded(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    priced = _priced(capsys, _study(place, "importance", "--no-decoder"))
    assert priced["pictures_to_decode"] == 0 and priced["decodings"] == []


@pytest.mark.parametrize("study", ["overlay", "decoder"])
def test_a_judge_embeds_what_is_decoded(study: str, place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    priced = _priced(capsys, _study(place, study, "--judge", place / "pair"))
    assert priced["judged"] == priced["pictures_to_decode"]


@pytest.mark.parametrize(
    ("study", "more", "said"),
    [
        ("importance", ("--target", "no such thing at all"), "does not hold"),
        ("importance", ("--strengths", "40"), "rho=40"),
        ("importance", ("--count", "1"), "at least 2 pictures"),
        ("importance", ("--judge", "./nowhere"), "nowhere"),
        ("importance", ("--steps", "0"), "step"),
        ("overlay", ("--opacity", "2"), "opacity"),
        ("strength", ("--heads-per-picture", "9999"), "only"),
        ("strength", ("--references", "2"), "reference"),
        ("identification", ("--heads-per-picture", "9999"), "only"),
        ("identification", ("--foils", "500"), "--foils"),
        ("decoder", ("--heads", "9999"), "only"),
        ("decoder", ("--guidance", "1", "--sweep-intervals", "0", "0.5"), "--sweep-intervals"),
        ("decoder", ("--share", "2"), "share"),
        ("lenses", ("--heads-per-picture", "9999"), "only"),
        ("lenses", ("--names", "99999"), "names"),
        ("lenses", ("--bank", "nowhere"), "nowhere"),
    ],
)
def test_what_the_study_would_refuse_is_refused(
    study: str, more: tuple[str, ...], said: str, place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = _study(place, study, *more)
    assert main(words) in (1, 2)
    dry = capsys.readouterr().err
    assert said in dry and "Traceback" not in dry
    assert main([word for word in words if word != "--dry-run"]) in (1, 2)
    assert capsys.readouterr().err.splitlines()[-1] == dry.splitlines()[-1]
    assert not (place / "out" / "study.json").exists()


def test_another_study_in_the_folder_is_told(place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "study").mkdir()
    (tmp_path / "study" / "notes.txt").write_text("mine")
    words = _study(place, "strength")
    words[words.index("--out") + 1] = str(tmp_path / "study")
    assert main(words) == 2 and "holds files but no study" in capsys.readouterr().err


@pytest.mark.parametrize("study", ["importance", "identification"])
def test_a_large_model_is_counted_and_not_loaded(
    study: str, place: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def unloaded(*_: object, **__: object) -> None:
        raise AssertionError("a model was loaded")

    monkeypatch.setattr("steerlens.cli.planned.load_study_pair", unloaded)
    priced = _priced(capsys, _study(place, study, "--model", "kandinsky-2.2"))
    assert priced["heads"] == 48 * 16 and priced["weight_bytes"] > 5e9 and not priced["seconds_are_measured"]
    assert priced["decodings"][0]["size"] == [512, 512]
    assert main(_study(place, study, "--model", "rae-dinov2")) == 2
    assert "image tokens" in capsys.readouterr().err


def test_a_profile_says_its_work_and_writes_nothing(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = _files(place)
    words = ["profile", "--model", str(place / "pair"), "--images", str(place / "photos"), "--out", str(place / "out")]
    words += ["--dry-run"]
    priced = _priced(capsys, words)
    assert priced["pictures"] == 40 and priced["pictures_to_decode"] > priced["heads"] and priced["seconds"] > 0
    fewer = _priced(capsys, [*words, "--ablate", "0"])
    assert fewer["encoder_passes"] < priced["encoder_passes"]
    for more in (["--top", "30"], ["--heads", "L99H0"], ["--vocabulary", "nowhere.txt"], ["--ablate", "50"]):
        assert main([*words, *more]) == 2
    assert _files(place) == before


def test_an_index_says_its_work_and_writes_nothing(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = _files(place)
    index = ["neighbours", "index", str(place / "photos"), "--encoder", str(place / "pair"), "--out", str(place / "i")]
    priced = _priced(capsys, [*index, "--dry-run"])
    assert priced["pictures"] == priced["encoder_passes"] == 40 and priced["pictures_to_decode"] == 0
    assert main([*index, "--dry-run", "--batch-size", "0"]) == 2
    assert main(["neighbours", "index", str(place / "none"), "--dry-run"]) == 2
    assert _files(place) == before


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--names", "omp", "--labels", "0"], "names 'omp' needs texts"),
        (["--names", "textspan"], "give several pictures"),
        (["sample", "--names", "textspan"], "give several pictures"),  # the same picture twice is one
        (["--tokens", "3"], "tokens '3' cannot be written to"),
        (["--out", __file__], "is a file; give a folder"),
    ],
)
def test_a_dry_run_of_lens_refuses_what_the_run_would(
    more: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["lens", "sample", *more, "--dry-run"]) == 2
    assert said in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["study", "importance", "--no-decoder", "--dtype", "bfloat16"], "--dtype: no effect"),
        (["study", "importance", "--strengths", "rho=0"], "rho=0 is the clean run"),
        (["study", "strength", "--count", "4", "--references", "99"], "there are only 16 pictures to compare with"),
        (["study", "overlay", "--strengths", "s=1"], "s=1 is the clean run"),
        (["study", "importance", "--seed", "-1"], "--seed: seeds are whole numbers from 0"),
        (["profile", "--count", "4", "--top", "2", "--strength", "rho=0"], "rho=0 is the clean run"),
        (["profile", "--count", "4", "--top", "2", "--texts", "99999"], "there are only"),
        (["profile", "--sae", "emoji-resid8", "--ablate", "5"], "--ablate (other than 0): no effect"),
        (["profile", "--sae", "emoji-resid8", "--decode", "1537"], "there are only 1536 features"),
        (["train", "emoji", "--scenes", "0"], "give at least as many"),
        (["train", "domain", "emoji", "--scenes", "0"], "--scenes must be at least 1"),
    ],
    ids=str,
)
def test_values_that_change_nothing_are_refused_before_any_work(
    words: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    for concept in "abcdefgh":
        for number in range(2):
            color = (30 * ord(concept) % 256, 120 * number, 200)
            Image.new("RGB", (16, 16), color).save(pictures / f"{concept} {number}.png")
    source = ["--data", str(tmp_path / "none")] if words[0] == "train" else ["--images", str(pictures)]
    if "overlay" in words:
        source = ["--bases", str(pictures), "--overlays", str(pictures)]
    out = [] if "domain" in words else ["--out", str(tmp_path / "out")]
    dry = [] if words[0] == "train" else ["--dry-run"]
    assert main([*words, *source, *out, *dry]) == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
