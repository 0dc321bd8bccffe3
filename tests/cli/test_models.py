"""`steerlens models`: the list, for people and for machines, and what is on this machine."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from steerlens.cli.main import main
from steerlens.cli.models import fits, lines_of_dry_run, on_this_machine
from steerlens.zoo.cards import card, cards
from steerlens.zoo.decoder_families import families, unbuildable
from steerlens.zoo.recommending import recommendations


def test_the_table_names_every_model(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models"]) == 0
    out, told = capsys.readouterr()
    assert told == ""
    assert "emoji" in out and "kandinsky-2.2" in out and "8.97 GB" in out
    assert max(map(len, out.splitlines()[: len(cards()) + 1])) < 160


def test_a_model_is_described_in_full(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models", "kandinsky-2.2"]) == 0
    out = capsys.readouterr().out
    assert "conditions on: image_embedding (1280)" in out and "licence: Apache-2.0" in out and "rae-dinov2" not in out
    assert main(["models", "kandinsky"]) == 2
    assert "Did you mean kandinsky-2.2?" in capsys.readouterr().err


def test_a_dry_run_names_the_domain_and_the_download(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.file_download.HF_HUB_CACHE", str(tmp_path), raising=False)
    domain, download = lines_of_dry_run("rae-dinov2", local=False)
    assert domain == "domain of the decoder: photographs (ImageNet-1k)"
    assert download == "download: about 2 GB, not in the cache"
    assert lines_of_dry_run("emoji", local=False)[1] == "download: none, all files are here"
    assert lines_of_dry_run("rae-dinov2", local=True) == [domain]


def test_weights_fit_a_memory_twice_or_once_or_not() -> None:
    assert [fits(2.0, memory) for memory in (4_000_000_000, 3_999_999_999, 1_999_999_999)] == ["yes", "tight", "no"]
    assert fits(2.0, None) is None


def test_what_the_installed_libraries_cannot_build_is_marked(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models"]) == 0
    lines = capsys.readouterr().out.splitlines()
    marked = [line.split()[0] for line in lines if " unusable " in line]
    assert marked == [name for name, known in cards().items() if unbuildable(known.family)]
    assert sum("cannot be used here: decoder: diffusers" in line for line in lines) == len(marked)


def test_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models", "--json"]) == 0
    rows = {row["name"]: row for row in json.loads(capsys.readouterr().out)}
    assert set(rows) == set(cards()) and {"emoji", "kandinsky-2.2", "neighbours"} < set(rows)
    assert rows["kandinsky-2.2"]["encoder"]["repository"] == "kandinsky-community/kandinsky-2-2-prior"
    assert rows["kandinsky-2.2"]["licence"] == "Apache-2.0"


def test_what_is_on_this_machine_is_read_from_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.file_download.HF_HUB_CACHE", str(tmp_path), raising=False)
    kandinsky = card("kandinsky-2.2")
    assert on_this_machine(kandinsky) == "no"
    for place, names, wanted in (
        (kandinsky.encoder, families()[kandinsky.family].encoder_files, "partly"),
        (kandinsky.decoder, families()[kandinsky.family].decoder_files, "downloaded"),
    ):
        assert place is not None
        root = tmp_path / f"models--{place.repository.replace('/', '--')}" / "snapshots" / place.revision
        for name in names:
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).touch()
        assert on_this_machine(kandinsky) == wanted


def test_a_decoder_of_the_package_is_there_in_part_without_its_encoder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.file_download.HF_HUB_CACHE", str(tmp_path), raising=False)
    known = replace(card("dinov2-small"), bundled=str(tmp_path))
    assert on_this_machine(replace(known, bundled="absent")) == "no"
    assert on_this_machine(known) == "partly"
    assert known.encoder is not None
    root = tmp_path / "models--facebook--dinov2-small" / "snapshots" / str(known.encoder.revision)
    root.mkdir(parents=True)
    for name in ("config.json", "model.safetensors"):
        (root / name).touch()
    assert on_this_machine(known) == "downloaded"


def test_a_preset_is_recommended_for_each_need_by_the_numbers_of_its_card(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models"]) == 0
    out = capsys.readouterr().out
    known = cards()["rae-dinov2"]
    wanted = f"rae-dinov2 (one pass, {known.gigabytes:g} GB, 12 x 12 heads; domain: {known.domain})"
    assert f"a laptop without GPU, photographs: {wanted}" in out
    by_need = {advice.need: advice.name for advice in recommendations()}
    assert by_need["nothing to download, a first look"] == "emoji"
    assert by_need["the paper's own pair, on a GPU"] == "kandinsky-2.2"
    smaller = {name: card for name, card in cards().items() if name != "rae-dinov2"}
    changed = {advice.need: advice for advice in recommendations(smaller)}["a laptop without GPU, photographs"]
    assert changed.name != "rae-dinov2" and f"{cards()[changed.name].gigabytes:g} GB" in changed.reason
    assert recommendations({}) == ()


def test_terms_are_part_of_a_recommendation() -> None:
    limited = [advice for advice in recommendations() if cards()[advice.name].terms]
    assert all(cards()[advice.name].terms in advice.reason for advice in limited)


def test_a_preset_that_has_to_be_saved_again_first_is_not_recommended() -> None:
    pickled = {name for name, known in cards().items() if known.pickled}
    assert pickled and not pickled & {advice.name for advice in recommendations()}
