"""`steerlens bridge`: a bridge is fitted, shown, used by `lens`, and every mistake is one line."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from steerlens.cli.main import main
from steerlens.loading import load
from steerlens.testing.tiny import save_tiny_pair


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two pairs and pictures, and a bridge between them that the command made."""
    root = tmp_path_factory.mktemp("bridge")
    save_tiny_pair(root / "source", seed=1, embedding_size=8)
    save_tiny_pair(root / "target", seed=2)
    generator = np.random.default_rng(0)
    for folder, count in (("pictures", 55), ("others", 8)):
        (root / folder).mkdir()
        for number in range(count):
            corners = generator.integers(0, 256, (3, 3, 3), dtype=np.uint8)
            Image.fromarray(corners).resize((16, 16)).save(root / folder / f"{number:02d}.png")
    assert main([*fit(root), "--held-out", str(root / "others"), "--decode", "2", "--out", str(root / "bridge")]) == 0
    return root


def fit(root: Path, pictures: str = "pictures") -> list[str]:
    ends = ["--from", str(root / "source"), "--to", str(root / "target")]
    return ["bridge", "fit", *ends, "--images", str(root / pictures), "--map", "ridge", "--device", "cpu"]


def test_fit_prints_what_was_measured_and_where_it_is(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = [*fit(place), "--held-out", str(place / "others"), "--decode", "0"]
    assert main([*command, "--out", str(tmp_path / "b")]) == 0
    out, told = capsys.readouterr()
    assert "decoded and embedded again" not in out
    assert "fitted on 55 pictures" in out and "on 8 held-out pictures" in out
    assert "among 8" in out and f"--model bridge:{tmp_path / 'b'}" in out
    assert "embedding" in told and {path.name for path in (tmp_path / "b").iterdir()} == {
        "bridge.safetensors",
        "card.yaml",
    }


def test_fit_for_machines(place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--held-out", str(place / "others"), "--out", str(tmp_path / "b"), "--json"]
    assert main([*fit(place), *arguments]) == 0
    out, told = capsys.readouterr()
    content = json.loads(out)
    # The target has a decoder, so pictures are decoded unasked: as many as were held out, at most 24.
    assert content["measured"]["n_decoded"] == 8 and -1 <= content["measured"]["decoded"] <= 1
    assert told == "" and content["kind"] == "ridge" and content["measured"]["n_pictures"] == 8
    assert [candidate["kind"] for candidate in content["candidates"]] == ["ridge"]


def test_show(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bridge", "show", str(place / "bridge")]) == 0
    out = capsys.readouterr().out
    assert f"from  {place / 'source'} (clip, embeddings of 8 numbers)" in out and "(2 pictures)" in out
    assert main(["bridge", "show", str(place / "bridge"), "--json"]) == 0
    content = json.loads(capsys.readouterr().out)
    assert content["measured"]["n_decoded"] == 2 and content["to"]["embedding_size"] == 12
    assert len(content["from"]["sha256"]) == 3


def test_lens_looks_through_a_bridge(place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["lens", str(place / "others" / "00.png"), "--model", f"bridge:{place / 'bridge'}", "--device", "cpu"]
    command += ["--sites", "resid_post.2,head.2.*", "--steps", "1", "--out", str(tmp_path / "run"), "--json"]
    assert main(command) == 0
    content = json.loads(capsys.readouterr().out)
    assert {row["site"] for row in content["pictures"][0]["steering"]} == {"head.2.0", "head.2.1"}
    assert (tmp_path / "run" / "report.html").is_file()
    manifest = json.loads((tmp_path / "run" / "manifest.json").read_text())
    assert manifest["encoder"]["embedding_size"] == 12 and "through a bridge" in manifest["encoder"]["name"]
    assert "bridge/bridge.safetensors" in json.dumps(manifest)


def test_a_dry_run_prices_both_parts(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["lens", str(place / "others" / "00.png"), "--model", f"bridge:{place / 'bridge'}", "--device", "cpu"]
    assert main([*command, "--dry-run", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["pictures_to_decode"] > 0


def test_a_dry_run_fetches_nothing(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of an encoder of the hub the config alone is wanted, and with --local-files-only nothing is."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    bridge = Path(shutil.copytree(place / "bridge", tmp_path / "bridge"))
    card = yaml.safe_load((bridge / "card.yaml").read_text(encoding="utf-8"))
    card["source"]["source"] = f"owner/name@{'b' * 40}"
    (bridge / "card.yaml").write_text(yaml.safe_dump(card), encoding="utf-8")
    commit = Path(shutil.copytree(place / "source" / "image_encoder", tmp_path / ("b" * 40)))
    asked: list[tuple[str, ...]] = []

    def snapshot(repository: str, revision: str, patterns: tuple[str, ...], **options: object) -> Path:
        asked.append((repository, revision, *patterns))
        assert options["local_files_only"] is True and options["weights"] is None
        return commit

    monkeypatch.setattr("steerlens.zoo.encoder_locating.snapshot", snapshot)
    command = ["lens", str(place / "others" / "00.png"), "--model", f"bridge:{bridge}", "--device", "cpu"]
    assert main([*command, "--dry-run", "--json", "--local-files-only"]) == 0
    assert json.loads(capsys.readouterr().out)["pictures_to_decode"] > 0
    assert asked == [("owner/name", "b" * 40, "config.json")]


@pytest.mark.slow
def test_a_study_runs_through_a_bridge(place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for number, path in enumerate(sorted((place / "pictures").iterdir())[:16]):
        concept = tmp_path / "concepts" / "abcd"[number % 4]
        concept.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, concept)
    command = ["study", "strength", "--model", f"bridge:{place / 'bridge'}", "--images", str(tmp_path / "concepts")]
    small = ["--count", "2", "--steps", "1", "--guidance", "1", "--rho", "0.5", "2", "--heads-per-picture", "2"]
    assert main([*command, *small, "--device", "cpu", "--out", str(tmp_path / "study")]) == 0
    assert "the largest Spearman correlation" in capsys.readouterr().out
    assert (tmp_path / "study" / "summary.json").is_file()


def test_an_index_stands_for_the_decoder_of_a_target_without_one(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    target = tmp_path / "alone"
    for part in ("image_encoder", "image_processor"):
        shutil.copytree(place / "target" / part, target / part)
    command = fit(place)
    command[command.index("--to") + 1] = str(target)
    held_out = ["--held-out", str(place / "others")]
    # Without an index there is nothing to decode with, and the fit goes through all the same.
    assert main([*command, *held_out, "--out", str(tmp_path / "one"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["measured"]["n_decoded"] == 0
    index = ["neighbours", "index", str(place / "pictures"), "--encoder", str(target)]
    assert main([*index, "--out", str(target / "neighbours-index"), "--json"]) == 0
    capsys.readouterr()
    assert main([*command, *held_out, "--out", str(tmp_path / "two"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["measured"]["n_decoded"] == 8
    for bridge in ("one", "two"):
        pair = load(f"bridge:{tmp_path / bridge}", device="cpu")
        assert pair.decoder.spec.family == "neighbours" and pair.encoder.spec.embedding_size == 12
    # The index itself is a model too.
    command[command.index("--to") + 1] = str(target / "neighbours-index")
    assert main([*command, *held_out, "--out", str(tmp_path / "three"), "--json"]) == 0
    assert load(f"bridge:{tmp_path / 'three'}", device="cpu").decoder.spec.family == "neighbours"


def test_doctor_examines_a_bridged_model(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["doctor", f"bridge:{place / 'bridge'}", "--device", "cpu", "--json"])
    checks = {check["name"]: check["passed"] for check in json.loads(capsys.readouterr().out)["checks"]}
    assert checks["steering in closed form equals steering and patching"]
    assert checks["the readout equals the native embedding"]


@pytest.mark.parametrize(
    ("change", "code", "words"),
    [
        (["--images", "nowhere"], 2, "nowhere is not a folder"),
        (["--images", "others"], 2, "8 pictures are too few for a bridge; give at least 63"),
        (["--out", "bridge"], 2, "not empty"),
        (["--from", "no-such-model"], 2, "no-such-model"),
        (["--decode", "-1"], 2, "cannot be decoded"),
    ],
)
def test_mistakes_are_one_line(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], change: list[str], code: int, words: str
) -> None:
    option, value = change
    given = str(place / value) if option in ("--images", "--out") else value
    arguments = [*fit(place), "--out", str(tmp_path / "b")]
    if option in arguments:
        arguments[arguments.index(option) + 1] = given
    else:
        arguments += [option, given]
    assert main(arguments) == code
    told = capsys.readouterr().err.splitlines()[-1]
    assert told.startswith("steerlens: ") and words in told
    assert not (tmp_path / "b").exists()


def test_a_broken_picture_is_named(place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "pictures"
    folder.mkdir()
    for path in (place / "pictures").iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    for number in range(8):
        (folder / f"more-{number}.png").write_bytes(b"")
    arguments = fit(place)
    arguments[arguments.index("--images") + 1] = str(folder)
    assert main([*arguments, "--out", str(tmp_path / "b")]) == 1
    assert "more-0.png is empty" in capsys.readouterr().err
