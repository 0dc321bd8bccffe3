"""Foils: each head's write for another input, steered as hard as its own, through sweep, runs, workers and report."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from steerlens.atlas import Atlas, CellResult, foil_of, make_plan
from steerlens.errors import UsageError
from steerlens.images import Picture
from steerlens.lenses import Strength, visible_norm
from steerlens.loading import Pair
from steerlens.progress import run_to_end
from steerlens.report.content import picture_data
from steerlens.report.findings import foil_counts, sentences
from steerlens.report.html import report_page
from steerlens.runs import load_run
from steerlens.runs.merge import merge_runs
from steerlens.sites import Site, parse_sites
from steerlens.sweep.engine import FinishedCells
from steerlens.sweep.look import look
from steerlens.sweep.options import LookOptions
from steerlens.sweep.prepare import make_job
from steerlens.sweep.ray.parts import PartQueue
from steerlens.sweep.ray.worker import PartWorker
from steerlens.testing.atlases import fake_atlas

RHO = Strength("rho", 1.0)


@pytest.fixture(scope="module")
def pictures() -> list[Picture]:
    pixels = np.random.default_rng(0).integers(0, 255, (3, 20, 20, 3), dtype=np.uint8)
    return [Picture.from_image(Image.fromarray(one), f"noise{index}") for index, one in enumerate(pixels)]


def seen(pair: Pair, pictures: list[Picture], **changes: object) -> Atlas:
    options = {"steps": 1, "sites": "head.1.*,mlp_out.2", "foils": 1, **changes}
    return look(pair, pictures, **options)  # type: ignore[arg-type]


def test_a_foil_is_the_same_site_of_the_next_input_steered_as_hard(pair: Pair, pictures: list[Picture]) -> None:
    atlas = seen(pair, pictures, strength="s=30", foils=2, lenses="steering")
    encoder = pair.encoder
    traces = [encoder.trace(encoder.preprocess([picture.image])) for picture in pictures]
    assert len([cell for cell in atlas.plan.cells if cell.lens == "foil"]) == 3 * 3 * 2
    for place, (reading, trace) in enumerate(zip(atlas.readings, traces, strict=True)):
        for site in atlas.sites("steering", reading.id):
            foils, own = atlas.cells("foil", site, reading.id), atlas.score("steering", site, reading.id)
            assert [foil.cell.draw for foil in foils] == [1, 2]
            for foil in foils:
                other = traces[(place + foil.cell.draw) % 3].at(site)[0].float()
                base = trace.final[0].float()
                size = visible_norm(base, centred=encoder.spec.centred) / visible_norm(
                    other, centred=encoder.spec.centred
                )
                steered = encoder.readout((base + own.rho * size * other)[None])[0]
                torch.testing.assert_close(foil.conditioning, steered.float(), rtol=1e-4, atol=1e-5)
                assert foil.rho == pytest.approx(own.rho)
            assert own.foil == pytest.approx(np.mean([foil.similarity for foil in foils]))
            assert own.beats_foil == (own.similarity > own.foil)


def test_a_direction_has_no_foil_and_a_run_of_one_input_none_at_all(pair: Pair, pictures: list[Picture]) -> None:
    width = pair.encoder.spec.width
    atlas = seen(pair, pictures[:2], sites="head.0.0", directions={"mine": torch.eye(width)[0]})
    assert {cell.site.kind for cell in atlas.plan.cells if cell.lens == "foil"} == {"head"}
    assert atlas.score("steering", Site("vector", name="mine")).foil is None
    with pytest.raises(UsageError, match="1 of them need 2 different inputs, not 1"):
        seen(pair, [pictures[0], pictures[0]])
    with pytest.raises(UsageError, match="cannot be negative"):
        seen(pair, pictures, foils=-1)
    assert foil_of(["a", "b", "c"], "c", 1) == "a" and foil_of(["a", "b", "c"], "a", 2) == "c"
    with pytest.raises(UsageError, match="there are 2 inputs"):
        foil_of(["a", "b"], "a", 2)


def test_without_foils_a_plan_is_as_before() -> None:
    sites = parse_sites("heads", 2, 2)
    before, after = (make_plan(["a", "b"], sites, 2, strength=RHO, foils=foils) for foils in (0, 1))
    assert [cell for cell in after.cells if cell.lens != "foil"] == list(before.cells)
    assert next(cell.key for cell in after.of("b") if cell.lens == "foil") == "b|foil|head.0.0|rho=1|0|1"


def test_a_stopped_run_is_resumed_and_another_number_of_foils_refused(
    pair: Pair, pictures: list[Picture], tmp_path: Path
) -> None:
    whole = seen(pair, pictures[:2], folder=tmp_path / "run")
    part = next(iter(sorted((tmp_path / "run" / "cells").glob("*.parquet"))))
    keys = {result.cell.key for result in load_run(tmp_path / "run").results}
    assert any("|foil|" in key for key in keys) and part.is_file()
    again = load_run(tmp_path / "run")
    one = again.only([again.readings[1].id])  # its page still names the other input
    (foil,) = picture_data(one, one.reading())["sites"]["head.1.0"]["steering"]["foils"]
    assert foil["of"] == "noise0"
    assert [result.cell for result in again.results] == [result.cell for result in whole.results]
    assert again.score("steering", Site("head", 1, 0)).foil == pytest.approx(
        whole.score("steering", Site("head", 1, 0)).foil
    )
    with pytest.raises(UsageError, match="plan"):
        seen(pair, pictures[:2], folder=tmp_path / "run", foils=0)


@pytest.mark.parametrize("decode", ["all", "top:1"])
def test_workers_make_the_same_foils(pair: Pair, pictures: list[Picture], decode: str) -> None:
    options = LookOptions(steps=1, sites="heads", batch_size=4, foils=1, decode=decode)
    job = make_job(pair, pictures, options)
    names = ("plan", "options", "selection", "vocabulary", "target", "models", "inputs")
    worker = PartWorker(lambda: pair, {name: getattr(job, name) for name in names}, 1)
    queue, results = PartQueue(job, frozenset(), frozenset()), dict[str, CellResult]()
    while queue.is_left:
        part = queue.take(4, 1)
        assert part is not None
        result = worker.do(part)
        queue.finish(part, result)
        for cells in result.finished:
            if isinstance(cells, FinishedCells):
                results |= {one.cell.key: one for one in cells.results}
    local = look(pair, pictures, steps=1, sites="heads", foils=1, decode=decode)
    assert set(results) == {result.cell.key for result in local.results}
    for one in local.results:
        torch.testing.assert_close(results[one.cell.key].conditioning, one.conditioning, rtol=1e-4, atol=1e-5)
    if decode == "top:1":  # a foil is decoded with its head
        chosen = {(cell.picture, cell.site) for cell in local.finished if cell.lens == "steering"}
        assert {(cell.picture, cell.site) for cell in local.finished if cell.lens == "foil"} == chosen


def test_runs_of_other_inputs_cannot_be_merged_with_their_foils(
    pair: Pair, pictures: list[Picture], tmp_path: Path
) -> None:
    seen(pair, pictures[:2], folder=tmp_path / "a", sites="head.0.0")
    seen(pair, pictures[1:], folder=tmp_path / "b", sites="head.0.0")
    seen(pair, pictures[:2], folder=tmp_path / "c", sites="head.0.1")
    with pytest.raises(UsageError, match="foils show the writes for other inputs of their own run"):
        run_to_end(merge_runs([tmp_path / "a", tmp_path / "b"], tmp_path / "out"))
    merged = run_to_end(merge_runs([tmp_path / "a", tmp_path / "c"], tmp_path / "out"))
    assert merged.complete
    assert {str(cell.site) for cell in load_run(tmp_path / "out").finished if cell.lens == "foil"} == {
        "head.0.0",
        "head.0.1",
    }


def test_the_report_shows_foils_with_the_names_of_their_inputs() -> None:
    atlas = fake_atlas(("apple", "boat", "moon"), foils=1)
    reading = atlas.reading("moon")
    data = picture_data(atlas, reading)
    head = data["sites"]["head.0.0"]["steering"]
    assert [foil["of"] for foil in head["foils"]] == ["apple"] and head["foils"][0]["src"].startswith("data:")
    counts = foil_counts(atlas, reading.id)
    assert counts is not None and counts[1] == 6
    words = f"{counts[0]} of 6 heads score above the same head's write for another input"
    assert any(sentence.startswith(words) and "about 3" in sentence for sentence in sentences(atlas, reading))
    page = report_page(atlas)
    assert "<dt>Other input</dt>" in page and "Other input" not in report_page(fake_atlas()).split("<script>")[0]
    table = atlas.to_arrow().to_pylist()
    assert any(row["foil"] is not None for row in table if row["lens"] == "steering")
