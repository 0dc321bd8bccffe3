"""Decoding only what ranks first without decoding."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from steerlens.atlas.plan import make_plan
from steerlens.errors import UsageError
from steerlens.images import Picture
from steerlens.lenses.strength import Strength
from steerlens.loading import Pair
from steerlens.progress import Progress
from steerlens.report.findings import sentences
from steerlens.runs.store import load_run
from steerlens.sites import Site, all_heads, layer_sites
from steerlens.sweep.look import look, look_in
from steerlens.sweep.options import LookOptions
from steerlens.sweep.prepare import make_job
from steerlens.sweep.selection import Selection


def noise(seed: int) -> Picture:
    pixels = np.random.default_rng(seed).integers(0, 255, (20, 20, 3), dtype=np.uint8)
    return Picture.from_image(Image.fromarray(pixels), f"noise{seed}")


@pytest.mark.parametrize(
    "text",
    [
        "all",
        "top:0",
        "top:12",
        "top:1234567",
        "above:0",
        "above:1",
        "above:0.25",
        "above:0.3",
        "above:0.1234567",
        "above:-1",
    ],
)
def test_a_choice_has_one_text_form(text: str) -> None:
    assert str(Selection.parse(text)) == text


@pytest.mark.parametrize("text", ["", "some", "all:3", "top", "top:-1", "top:1.5", "above:2", "above:nan", "above:"])
def test_other_texts_are_no_choice(text: str) -> None:
    with pytest.raises(UsageError, match="decode must be all, top:K"):
        Selection.parse(text)


def test_the_best_sites_of_each_lens_their_controls_and_the_residual_stream_are_picked() -> None:
    sites = [*layer_sites("resid_post", 2), *all_heads(2, 3)]
    plan = make_plan(["a"], sites, 2, strength=Strength("rho", 1.0), seeds=(0, 1), controls=2)
    value = {site: float(index) for index, site in enumerate(all_heads(2, 3))}

    def similarity(lens: str, site: Site) -> float:
        return 9.0 if not site.is_write else -value[site] if lens == "diffusion" else value[site]

    picked = Selection.parse("top:2").select((cell, similarity(cell.lens, cell.site)) for cell in plan.cells)
    kept = {(cell.lens, str(cell.site)) for cell in plan.cells if cell.key in picked and cell.site.is_write}
    assert kept == {
        *(("steering", site) for site in ("head.1.1", "head.1.2")),
        *(("control", site) for site in ("head.1.1", "head.1.2")),
        *(("diffusion", site) for site in ("head.0.0", "head.0.1")),
    }
    assert {cell.key for cell in plan.cells if not cell.site.is_write} <= picked
    # two residuals, two heads under the Diffusion Lens, two steered with two controls each; for two seeds
    assert len(picked) == Selection.parse("top:2").at_most(plan.cells) == 2 * (2 + 2 + 2 * 3)
    above = Selection.parse("above:0.5").select((cell, value.get(cell.site, 0.0) / 6) for cell in plan.cells)
    assert {str(cell.site) for cell in plan.cells if cell.key in above and cell.site.is_write} == {
        "head.1.1",
        "head.1.2",
    }
    everything = Selection().select((cell, 0.0) for cell in plan.cells)
    assert len(everything) == len(plan) == Selection().at_most(plan.cells)


def test_what_is_decoded_is_what_ranks_first_without_decoding(pair: Pair) -> None:
    every = look(pair, noise(0), steps=2, strength="rho=1")
    few = look(pair, noise(0), steps=2, strength="rho=1", decode="top:2")
    scores = every.score_map("steering", decoded=False)
    by_hand = [every.score("steering", site).steered_similarity for site in all_heads(*scores.shape)]
    np.testing.assert_allclose(scores.flatten(), by_hand, atol=1e-5)
    best = {all_heads(*scores.shape)[index] for index in np.argsort(-scores.flatten(), kind="stable")[:2]}
    assert set(few.sites("steering")) == best
    # the ranking of all heads is there, though few were decoded
    np.testing.assert_allclose(few.score_map("steering", decoded=False), scores, atol=1e-6)
    assert np.isfinite(few.score_map("steering")).sum() == 2
    for result in few.results:
        other = next(one for one in every.results if one.cell == result.cell)
        assert np.abs(result.picture.astype(int) - other.picture.astype(int)).max() <= 2
    assert any("--decode top:2" in said for said in sentences(few, few.readings[0]))
    assert not any("--decode" in said for said in sentences(every, every.readings[0]))


def test_a_run_that_goes_on_chooses_what_it_chose_before(pair: Pair, tmp_path: Path) -> None:
    options = LookOptions(steps=2, decode="top:2", batch_size=3)
    pictures = [noise(0), noise(1)]
    job = make_job(pair, pictures, options)
    events = look_in(pair, job, tmp_path / "run")
    totals: list[float] = []
    for event in events:
        if event.stage == "decoding":
            totals.append(event.total)
            if event.done >= 6:
                break
    events.close()
    held = len(load_run(tmp_path / "run").results)
    assert 0 < held < totals[0] == job.selection.at_most(job.plan.cells)
    rest = list(look_in(pair, make_job(pair, pictures, options), tmp_path / "run"))
    assert rest[-1].done == rest[-1].total == totals[0] - held
    resumed, whole = load_run(tmp_path / "run"), look(pair, pictures, steps=2, decode="top:2")
    assert resumed.manifest["complete"]
    assert [result.cell for result in resumed.results] == [result.cell for result in whole.results]
    with pytest.raises(UsageError, match="another decode"):
        look(pair, pictures, steps=2, decode="top:3", folder=tmp_path / "run", batch_size=3)


def mtimes(folder: Path) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file() and path.name != ".lock"}


@pytest.mark.parametrize("decode", ["top:1", "above:0.99", "all"])
def test_a_finished_run_is_neither_traced_nor_written_again(
    decode: str, pair: Pair, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = {"pictures": [noise(0), noise(1)], "steps": 2, "decode": decode, "folder": tmp_path / "run"}
    first = look(pair, **asked)
    before = mtimes(tmp_path / "run")
    monkeypatch.setattr(type(pair.encoder), "preprocess", lambda *_: pytest.fail("traced again"))
    again = look(pair, **asked, progress=lambda event: pytest.fail(f"worked again: {event}"))
    assert mtimes(tmp_path / "run") == before
    assert [result.cell for result in again.results] == [result.cell for result in first.results]


@pytest.mark.parametrize("decode", ["top:2", "all"])
def test_pictures_that_are_finished_are_not_traced_again_and_no_reading_is_written_twice(
    decode: str, pair: Pair, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options, pictures = LookOptions(steps=2, decode=decode, batch_size=4), [noise(0), noise(1), noise(2)]
    job = make_job(pair, pictures, options)
    each = job.selection.at_most(job.plan.of(job.plan.pictures[0]))
    events = look_in(pair, job, tmp_path / "run")
    for event in events:
        if event.stage == "decoding" and event.done >= each + 4:  # of which the last batch is not finished
            break
    events.close()
    # the first picture is finished, the second begun, and its reading there
    before = mtimes(tmp_path / "run" / "inputs")
    assert len(list((tmp_path / "run" / "inputs").glob("????????????.parquet"))) == 2
    traced: list[int] = []
    real = type(pair.encoder).trace

    def counting(self: object, *arguments: object, **options: object) -> object:
        traced.append(1)
        return real(self, *arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(type(pair.encoder), "trace", counting)
    told = list(look_in(pair, make_job(pair, pictures, options), tmp_path / "run"))
    assert len(traced) == 2
    assert told[-1].done == told[-1].total
    after = mtimes(tmp_path / "run" / "inputs")
    assert {path: after[path] for path in before} == before
    assert load_run(tmp_path / "run").manifest["complete"]


def test_progress_of_a_choice_by_similarity_reaches_its_end(pair: Pair) -> None:
    told: list[Progress] = []
    atlas = look(pair, [noise(0), noise(1)], steps=2, decode="above:0.9", progress=told.append)
    most = Selection.parse("above:0.9").at_most(atlas.plan.cells)
    bar = [event for event in told if event.stage in ("decoding", "re-encoding")]
    assert len(atlas.results) < bar[0].total == most
    assert bar[-1].done == bar[-1].total == len(atlas.results)
    assert [event.done for event in bar] == sorted(event.done for event in bar)
    assert {event.stage for event in told} == {"tracing", "decoding", "re-encoding"}
