"""Cards of heads in a run: their embeddings and pictures against plain code, storing, the report and the lines."""

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from steerlens.atlas import Atlas, Faithfulness
from steerlens.cli.lens.cards import card_lines, cards_json
from steerlens.cli.main import main
from steerlens.decoders import NeighboursDecoder, build_index
from steerlens.errors import ModelError, StoreError, UsageError
from steerlens.images import Picture, load_picture
from steerlens.profiles import write_head_cards
from steerlens.profiles.cards import bank_reference, checked_bank, input_cards
from steerlens.progress import run_to_end
from steerlens.report import picture_data, report_page
from steerlens.runs import load_run, merge_runs, run_summary, verify_run
from steerlens.runs.cards import StoredCards
from steerlens.scores import cosine_similarity
from steerlens.sweep import Job, LookOptions, look_in, make_job
from steerlens.zoo.pair import Pair

OPTIONS = LookOptions(sites="head.0-1.*", controls=0, steps=2)
MEASURED = Faithfulness("contrast pair", "a measure", 0.4, 0.3, 0.5, {"L0H0": 0.25}, 9)


@pytest.fixture(scope="module")
def bank(pair: Pair, tmp_path_factory: pytest.TempPathFactory) -> NeighboursDecoder:
    folder, rng = tmp_path_factory.mktemp("bank"), np.random.default_rng(3)
    for number in range(14):
        place = folder / f"thing {number % 4}"
        place.mkdir(exist_ok=True)
        Image.fromarray(rng.integers(0, 255, (24, 24, 3), dtype=np.uint8)).save(place / f"{number}.png")
    return build_index(pair.encoder, folder, tmp_path_factory.mktemp("index"))


def write(
    job: Job,
    atlas: Atlas,
    folder: Path,
    bank: NeighboursDecoder,
    count: int,
    faithfulness: tuple[Faithfulness, ...] = (MEASURED,),
) -> int:
    """Makes the cards that are not there; returns the number of inputs whose cards were made."""
    bank = checked_bank(job, bank)
    return run_to_end(write_head_cards(job, atlas, folder, bank, model="tiny", count=count, faithfulness=faithfulness))


def with_cards(
    pair: Pair,
    picture: Picture,
    folder: Path,
    bank: NeighboursDecoder,
    *,
    sites: str = OPTIONS.sites,
    faithfulness: tuple[Faithfulness, ...] = (MEASURED,),
) -> Atlas:
    """A run of one input with cards."""
    job = make_job(pair, [picture], replace(OPTIONS, sites=sites))
    assert write(job, run_to_end(look_in(pair, job, folder)), folder, bank, 2, faithfulness) == 1
    return load_run(folder)


@pytest.fixture(scope="module")
def run_with_cards(
    pair: Pair, bank: NeighboursDecoder, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Job, Atlas, Path]:
    """A run of two inputs, of which one is in the bank, with cards of 3 heads."""
    folder = tmp_path_factory.mktemp("run") / "run"
    inputs = [load_picture(bank.files[0]), Picture("other", Image.new("RGB", (30, 30), (200, 40, 40)), "0" * 64)]
    job = make_job(pair, inputs, OPTIONS)
    atlas = run_to_end(look_in(pair, job, folder))
    write(job, atlas, folder, bank, 3)
    return job, load_run(folder), folder


@torch.no_grad()
def test_both_ends_are_the_input_steered_along_the_centred_write_and_against_it(
    pair: Pair, bank: NeighboursDecoder, run_with_cards: tuple[Job, Atlas, Path]
) -> None:
    job, atlas, _ = run_with_cards
    reading, encoder = atlas.readings[1], pair.encoder
    card = atlas.cards[reading.id].heads[0]
    assert card.site == atlas.ranked("steering", reading.id)[0].site
    usable = [file for file in bank.files if load_picture(file).sha256 not in {p.sha256 for p in job.pictures.values()}]
    traces = [encoder.trace(encoder.preprocess([load_picture(file).image])) for file in usable]
    mean = torch.stack([trace.at(card.site)[0] for trace in traces]).mean(dim=0)
    trace = encoder.trace(encoder.preprocess([reading.picture.image]))
    change = trace.at(card.site)[0] - mean
    final = trace.final[0]
    seen, rest = (vector - vector.mean(-1, keepdim=True) for vector in (change, final))
    moved = rest.norm() / seen.norm() * change
    gains, clean = encoder.readout((final + moved)[None])[0], encoder.readout(final[None])[0]
    # Real pictures are ranked by their margin between the changed embedding and the opposite change.
    embeddings = torch.cat([encoder.embed(encoder.preprocess([load_picture(file).image])) for file in usable])
    margin = cosine_similarity(gains[None], embeddings) - cosine_similarity((2 * clean - gains)[None], embeddings)
    names = [file.parent.name for file in usable]
    for end, sign in ((card.gains, 1), (card.loses, -1)):
        assert 0 < len(end.real) <= 5
        for picture in end.real:
            assert any(
                name == picture.name and abs(sign * float(value) - picture.value) < 1e-3
                for name, value in zip(names, margin, strict=True)
            )
    assert {end.name for end in card.gains.real} <= {f"thing {number}" for number in range(4)}
    assert card.gains.decoded.png != card.loses.decoded.png


def test_cards_are_kept_until_what_they_show_changes(
    bank: NeighboursDecoder, run_with_cards: tuple[Job, Atlas, Path]
) -> None:
    job, atlas, folder = run_with_cards
    id = atlas.readings[0].id
    file = folder / "cards" / f"{id}.json"
    before, key = file.stat().st_mtime_ns, StoredCards(folder, (id,)).key_of(id)
    write(job, atlas, folder, bank, 3)
    assert file.stat().st_mtime_ns == before
    write(job, atlas, folder, bank, 2)
    assert StoredCards(folder, (id,)).key_of(id) != key and len(load_run(folder).cards[id].heads) == 2
    write(job, atlas, folder, bank, 3)
    assert StoredCards(folder, (id,)).key_of(id) == key


def test_report_and_lines_show_cards_with_what_was_measured_and_what_was_not(
    run_with_cards: tuple[Job, Atlas, Path],
) -> None:
    _, atlas, _ = run_with_cards
    reading = atlas.readings[0]
    cards = atlas.cards[reading.id]
    data = picture_data(atlas, reading)["cards"]
    best = cards.heads[0]
    shown = data["heads"][str(best.site)]
    assert shown["ends"][0]["decoded"]["src"].startswith("data:image/") and len(shown["ends"][1]["real"]) > 0
    assert shown["faithful"][0][:2] == ("contrast pair", "0.40 [0.30, 0.50]")
    assert "real pictures and own writes" in data["missing"] and "steerlens study lenses" in data["missing"]
    assert "http" not in json.dumps(data) and '"cards":{' in report_page(atlas)
    lines = list(card_lines(cards))
    assert any(line.strip().startswith(f"{best.site.label} gains ") for line in lines)
    assert any("contrast pair, measured on" in line for line in lines)
    assert cards_json(cards)["heads"][0]["site"] == str(best.site)
    assert cards.head(best.site) == best and cards.head("L11H99") is None
    assert picture_data(replace(atlas, cards={}), reading)["cards"] is None and not list(card_lines(None))


def test_names_are_those_gained_over_the_other_end(
    run_with_cards: tuple[Job, Atlas, Path], bank: NeighboursDecoder
) -> None:
    job, atlas, _ = run_with_cards
    assert job.vocabulary is not None
    reading = atlas.readings[0]
    bank = bank.leaving_out(bank.known([reading.picture.sha256]))
    reference = bank_reference(job.encoder, bank)
    cards, chance = run_to_end(input_cards(job, atlas, reading, bank, reference, 2))
    assert chance is not None and chance > 0
    for card in cards:
        for end in (card.gains, card.loses):
            excess = [name.excess for name in end.names]
            assert excess == sorted(excess, reverse=True) and all(
                name.text in job.vocabulary.names for name in end.names
            )
        gained, lost = ({name.text for name in end.names} for end in (card.gains, card.loses))
        assert not gained & lost


def test_a_bank_of_another_encoder_or_a_tiny_one_is_refused(
    pair: Pair, bank: NeighboursDecoder, run_with_cards: tuple[Job, Atlas, Path]
) -> None:
    job, _, _ = run_with_cards
    inputs = [load_picture(file) for file in bank.files[:8]]
    with pytest.raises(UsageError, match="too few for a bank"):
        checked_bank(make_job(pair, inputs, OPTIONS), bank)
    tokens: Any = SimpleNamespace(spec=replace(job.decoder.spec, consumes="image_tokens"))
    with pytest.raises(UsageError, match="leave --bank out"):
        checked_bank(replace(job, decoder=tokens), bank)
    other = bank.leaving_out([])
    other.embeddings = -bank.embeddings
    with pytest.raises(ModelError, match="not with"):
        checked_bank(job, other)
    assert len(checked_bank(job, bank).rows) == len(bank.rows) - 1  # one of the inputs is in the bank


def test_merged_runs_keep_their_cards_and_the_command_for_all_makes_none_anew(
    pair: Pair, bank: NeighboursDecoder, tmp_path: Path
) -> None:
    inputs = [Picture(name, Image.new("RGB", (30, 30), colour), name * 64) for name, colour in (("a", 9), ("b", 99))]
    runs = [with_cards(pair, picture, tmp_path / picture.name, bank) for picture in inputs]
    result = run_to_end(merge_runs([tmp_path / "a", tmp_path / "b"], tmp_path / "all"))
    assert (result.cards, result.cards_left_out) == (2, 0)
    assert run_summary(tmp_path / "all").cards == 2
    atlas = load_run(tmp_path / "all")
    for single in runs:
        id = single.readings[0].id
        assert atlas.cards[id] == single.cards[id]
    job = make_job(pair, inputs, OPTIONS)
    assert write(job, run_to_end(look_in(pair, job, tmp_path / "all")), tmp_path / "all", bank, 2) == 0
    assert verify_run(tmp_path / "all").damaged == () and verify_run(tmp_path / "all").without_hash == 0


def test_cards_of_one_input_in_several_runs_are_united_if_their_options_agree(
    pair: Pair, bank: NeighboursDecoder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    picture = Picture("a", Image.new("RGB", (30, 30), 9), "a" * 64)
    first = with_cards(pair, picture, tmp_path / "first", bank, sites="head.0.*")
    second = with_cards(pair, picture, tmp_path / "second", bank, sites="head.1.*")
    id = first.readings[0].id
    with_cards(pair, picture, tmp_path / "third", bank, sites="head.2.*", faithfulness=())
    command = ["runs", "merge", *(str(tmp_path / name) for name in ("first", "second", "third"))]
    assert main([*command, "--out", str(tmp_path / "all")]) == 0
    said = capsys.readouterr().out
    assert "cards of heads: 1 input\n" in said and "some cards of 1 input left out" in said
    heads = [card.site for card in load_run(tmp_path / "all").cards[id].heads]
    assert heads == [card.site for card in (*first.cards[id].heads, *second.cards[id].heads)] and len(heads) == 4


def test_damaged_cards_are_left_out_of_a_merge(
    pair: Pair, bank: NeighboursDecoder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    inputs = [Picture(name, Image.new("RGB", (30, 30), colour), name * 64) for name, colour in (("a", 9), ("b", 99))]
    runs = [with_cards(pair, picture, tmp_path / picture.name, bank, sites="head.0.*") for picture in inputs]
    (file,) = (tmp_path / "a" / "cards").iterdir()
    file.write_bytes(file.read_bytes()[:-20])
    assert main(["runs", "merge", str(tmp_path / "a"), str(tmp_path / "b"), "--out", str(tmp_path / "all")]) == 0
    said = capsys.readouterr().out
    assert "cards of heads: 1 input\n" in said and "damaged cards of 1 input left out" in said
    assert "not complete" not in said
    kept = runs[1].readings[0].id
    assert dict(load_run(tmp_path / "all").cards) == {kept: runs[1].cards[kept]}
    assert verify_run(tmp_path / "all").redo == ""
    again = run_to_end(merge_runs([tmp_path / "a", tmp_path / "a", tmp_path / "b"], tmp_path / "all"))
    assert (again.cards, again.cards_left_out, again.cards_damaged, again.complete) == (1, 0, 1, True)


def test_damaged_cards_say_what_to_do(run_with_cards: tuple[Job, Atlas, Path]) -> None:
    _, atlas, folder = run_with_cards
    id = atlas.readings[1].id
    file = folder / "cards" / f"{id}.json"
    whole = file.read_bytes()
    file.write_bytes(whole[:-20])
    try:
        assert StoredCards(folder, (id,)).key_of(id) == ""
        with pytest.raises(StoreError, match="Remove it"):
            _ = load_run(folder).cards[id]
    finally:
        file.write_bytes(whole)
