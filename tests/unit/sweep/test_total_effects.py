"""Total effects, their controls and ablations, from a picture to a run, an export and a merge."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from steerlens.atlas import Atlas, Cell
from steerlens.errors import UsageError
from steerlens.images import Picture
from steerlens.interventions import Zero
from steerlens.lenses import Change, Group, Patches, RegionPart, SteeringLens, Strength, TokenTotalLens, TotalLens
from steerlens.lenses.real_pass import clean_pass
from steerlens.loading import Pair, load
from steerlens.progress import run_to_end
from steerlens.report.content import page_meta, picture_data
from steerlens.report.html import notebook_view, report_page
from steerlens.runs.export import export_parquet, export_pictures
from steerlens.runs.merge import merge_runs
from steerlens.runs.store import load_run
from steerlens.scores import cosine_similarity
from steerlens.sites import Site, all_heads
from steerlens.sweep.engine import run
from steerlens.sweep.look import look, look_in
from steerlens.sweep.options import LookOptions
from steerlens.sweep.prepare import make_job, parse_effects
from steerlens.sweep.ray.parts import PartQueue
from steerlens.sweep.ray.worker import PartWorker
from steerlens.testing.tiny_decoders import save_tiny_decoder

NAMED: dict[str, Any] = {
    "late": Group((Site("head", 1, 0), Site("mlp_out", 2))),
    "corner": RegionPart((Site("head", 1, 1),), Patches((0, 0), (0, 0))),
    "probe": torch.randn(16, generator=torch.Generator().manual_seed(1)),
}
OPTIONS: dict[str, Any] = {
    "sites": "L0H0,L0H1,L2H1,mlp_out.1",
    "steps": 1,
    "strength": "rho=0.5",
    "effect": "direct,total",
    "controls": 2,
}


def picture(seed: int = 0) -> Picture:
    pixels = np.random.default_rng(seed).integers(0, 255, (40, 40, 3), dtype=np.uint8)
    return Picture.from_image(Image.fromarray(pixels), f"noise {seed}")


def quick(pair: Pair, **changes: Any) -> Atlas:
    return look(pair, **{"pictures": picture(), **OPTIONS, **changes})


@pytest.fixture(scope="module")
def atlas(pair: Pair) -> Atlas:
    return quick(pair, directions=NAMED, vector_at="resid_post.0")


def test_every_cell_is_that_of_the_total_lens(pair: Pair, atlas: Atlas) -> None:
    assert [result.cell for result in atlas.results] == list(atlas.plan.cells)
    lens = TotalLens(pair.encoder, "rho=0.5", NAMED, "resid_post.0")
    clean = lens.clean(pair.encoder.preprocess([picture().image]))
    kinds: Any = {"total": "scaled", "ablation": "ablated", "total_control": "control"}
    checked = set[str]()
    for result in atlas.results:
        if result.cell.lens not in kinds:
            assert result.direct_cosine is None and result.change_cosine is None
            continue
        change = [Change(result.cell.site, kinds[result.cell.lens], result.cell.draw)]
        embedding, frozen = lens.changed(clean, change)[0, 0], lens.direct(clean, change)[0, 0]
        torch.testing.assert_close(result.conditioning, embedding, rtol=1e-4, atol=1e-5)
        assert result.rho == pytest.approx(float(lens.relative_strength(clean, change)), rel=1e-4)
        if result.cell.lens == "total_control":
            assert result.direct_cosine is None and result.rho == pytest.approx(0.5, rel=1e-4)
            continue
        own = clean.trace.embedding[0]
        assert result.direct_cosine == pytest.approx(float(cosine_similarity(embedding, frozen)), abs=1e-5)
        if result.change_cosine is not None:
            wanted = float(cosine_similarity(embedding - own, frozen - own))
            assert result.change_cosine == pytest.approx(wanted, abs=1e-2)
            checked.add(result.cell.lens)
    assert checked == {"total", "ablation"}
    assert {str(cell.strength) for cell in atlas.plan.cells if cell.lens == "ablation"} == {"s=0"}


def test_the_direct_picture_is_that_of_the_steering_lens(pair: Pair, atlas: Atlas) -> None:
    trace = pair.encoder.trace(pair.encoder.preprocess([picture().image]))
    site = Site("head", 0, 1)
    steered = SteeringLens(pair.encoder, "rho=0.5").embeddings(trace, [site])[0, 0]
    score = atlas.score("total", site)
    assert score.direct_cosine == pytest.approx(
        float(cosine_similarity(atlas.cells("total", site)[0].conditioning, steered)), abs=1e-5
    )
    assert score.control is not None and 0 <= (score.control_share or 0) <= 1
    assert atlas.score("ablation", site).control is None
    rows = atlas.to_arrow().to_pylist()
    assert {row["lens"] for row in rows} == {"diffusion", "steering", "total", "ablation"}


def test_every_head_is_ablated_whichever_are_decoded(pair: Pair, tmp_path: Path) -> None:
    chosen: dict[str, Any] = {"sites": "heads", "decode": "top:1", "controls": 0, "folder": tmp_path}
    atlas = quick(pair, **chosen)
    (reading,) = atlas.readings
    inputs, spec = pair.encoder.preprocess([picture().image]), pair.encoder.spec
    clean = pair.encoder.embed(inputs)[0]
    plain = [
        float(1 - cosine_similarity(pair.encoder.embed(inputs, [Zero(head)])[0], clean))
        for head in all_heads(spec.n_layers, spec.n_heads)
    ]
    assert min(plain) > 1e-5 and reading.ablation_effects is not None
    np.testing.assert_allclose(reading.ablation_effects.flatten().numpy(), plain, atol=1e-6)
    rows = [row for row in atlas.to_arrow().to_pylist() if row["lens"] == "ablation"]
    assert sum(row["similarity"] is not None for row in rows) == 1 and len({row["site"] for row in rows}) == len(rows)
    effects = {row["site"]: row["ablation_effect"] for row in rows}
    known = reading.ablation_effects.flatten().tolist()
    assert [effects[str(head)] for head in all_heads(spec.n_layers, spec.n_heads)] == known
    (stored,) = load_run(tmp_path).readings
    assert torch.equal(stored.ablation_effects, reading.ablation_effects)
    data = picture_data(load_run(tmp_path), stored)
    assert data["withoutHead"] == pytest.approx(known, abs=1e-4)


def test_nothing_but_the_reconstruction_is_decoded_for_scores_alone(pair: Pair) -> None:
    atlas = quick(pair, sites="heads", decode="none")
    assert [cell.lens for cell in atlas.finished] == ["diffusion"] and len(atlas.clean()) == 1
    rows = [row for row in atlas.to_arrow().to_pylist() if row["kind"] == "head"]
    assert {row["lens"] for row in rows} == {"steering", "ablation"}
    assert all(row["ablation_effect"] is not None for row in rows if row["lens"] == "ablation")
    assert page_meta(atlas)["steers"] and "Without it" in report_page(atlas)


def test_a_run_without_total_effects_ablates_nothing(pair: Pair) -> None:
    assert quick(pair, effect="direct").readings[0].ablation_effects is None
    rows = quick(pair, effect="total", sites="mlp_out.1").to_arrow().to_pylist()
    assert all(row["ablation_effect"] is None for row in rows) and any(row["lens"] == "ablation" for row in rows)


def test_a_run_begun_before_heads_were_ablated_resumes(pair: Pair, tmp_path: Path) -> None:
    quick(pair, folder=tmp_path)
    (tensors,) = [file for file in tmp_path.rglob("*.safetensors") if "ablation_effects" in load_file(file)]
    held = load_file(tensors)
    assert held.pop("ablation_effects").shape == (pair.encoder.spec.n_layers, pair.encoder.spec.n_heads)
    save_file(held, tensors)
    (tmp_path / "SHA256SUMS").unlink()
    for part in tmp_path.rglob("part-*"):
        part.unlink()
    atlas = quick(pair, folder=tmp_path)
    assert set(atlas.finished) == set(atlas.plan.cells)
    assert atlas.readings[0].ablation_effects is None and load_run(tmp_path).readings[0].ablation_effects is None


def test_a_total_effect_alone_is_ranked_and_reported(pair: Pair) -> None:
    only = quick(pair, effect="total", decode="top:1", controls=1)
    assert only.plan.lenses == {"diffusion", "total", "ablation", "total_control"}
    (best,) = only.sites("total")
    assert only.sites("ablation") == only.sites("total_control") == (best,)
    every = quick(pair, effect="total")
    undecoded = {site: every.score("total", site).steered_similarity for site in every.sites("total")}
    assert best == max(undecoded, key=lambda site: undecoded[site])
    assert "Total Lens" in report_page(only) and "Total Lens" in notebook_view(only)


def test_both_effects_are_decoded_of_the_same_sites(pair: Pair) -> None:
    both = quick(pair, decode="top:2")
    assert len(both.sites("steering")) == 2
    assert set(both.sites("total")) == set(both.sites("ablation")) == set(both.sites("steering"))


def test_a_resumed_run_computes_only_what_is_missing_and_the_same(
    pair: Pair, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = make_job(pair, [picture()], LookOptions(**OPTIONS))
    whole = run_to_end(look_in(pair, job, tmp_path / "run"))
    missing = next(cell for cell in whole.plan.cells if cell.lens == "ablation" and cell.site == Site("head", 2, 1))
    batches: list[Any] = []
    changed = TotalLens.changed

    def counted(self: TotalLens, clean: Any, changes: Any) -> Any:
        batches.append(changes)
        return changed(self, clean, changes)

    monkeypatch.setattr(TotalLens, "changed", counted)
    finished = frozenset(cell.key for cell in whole.plan.cells if cell != missing)
    events = list(run(job, finished, frozenset(job.pictures)))
    (result,) = [cell for event in events if hasattr(event.payload, "results") for cell in event.payload.results]  # type: ignore[union-attr]
    assert result.cell == missing
    assert torch.equal(result.conditioning, whole.cells("ablation", missing.site)[0].conditioning)
    assert len(batches) == 1 and {change.site for change in batches[0]} == {Site("head", 2, 1)}


def test_parts_of_workers_give_the_same(pair: Pair) -> None:
    options = LookOptions(**OPTIONS, vector_at="resid_pre.1")
    job = make_job(pair, [picture()], options, directions=NAMED)
    local = run_to_end(look_in(pair, job, None))
    names = ("plan", "options", "selection", "vocabulary", "target", "models", "directions", "vector_at")
    worker = PartWorker(lambda: pair, {name: getattr(job, name) for name in names}, 1)
    queue, results = PartQueue(job, frozenset(), frozenset()), dict[Cell, Any]()
    while queue.is_left:
        part = queue.take(4, 1)
        assert part is not None
        done = worker.do(part)
        queue.finish(part, done)
        results |= {cell.cell: cell for group in done.finished if hasattr(group, "results") for cell in group.results}
    assert set(results) == set(local.finished)
    for result in local.results:
        torch.testing.assert_close(results[result.cell].conditioning, result.conditioning, rtol=1e-4, atol=1e-5)
        assert results[result.cell].direct_cosine == pytest.approx(result.direct_cosine, abs=1e-5)


def test_a_run_stores_exports_and_merges_total_effects(pair: Pair, tmp_path: Path) -> None:
    quick(pair, effect="direct", folder=tmp_path / "direct")
    total = quick(
        pair, effect="total", folder=tmp_path / "total", directions={"probe": NAMED["probe"]}, vector_at="embed"
    )
    assert "vector_at" not in json.loads((tmp_path / "direct" / "manifest.json").read_text())
    assert json.loads((tmp_path / "total" / "manifest.json").read_text())["vector_at"] == "embed"
    extra = {"direct_cosine", "change_cosine"}
    for folder, more in (("direct", set[str]()), ("total", extra)):
        for part in (tmp_path / folder / "cells").glob("*.parquet"):
            assert extra & set(pq.read_schema(part).names) == more
        table = tmp_path / f"{folder}.parquet"
        list(export_parquet(load_run(tmp_path / folder), table))
        assert extra & set(pq.read_schema(table).names) == more
    with pytest.raises(UsageError, match="another"):
        quick(pair, effect="direct,total", folder=tmp_path / "direct")
    merged = run_to_end(merge_runs([tmp_path / "direct", tmp_path / "total"], tmp_path / "both"))
    assert merged.complete
    both = load_run(tmp_path / "both")
    assert both.plan.lenses == {"diffusion", "steering", "control", "total", "ablation", "total_control"}
    site = Site("head", 2, 1)
    assert both.score("total", site) == total.score("total", site)
    assert both.manifest["vector_at"] == "embed"
    list(export_pictures(both, tmp_path / "pictures"))
    assert len(list((tmp_path / "pictures").glob("*/total_control/head.2.1-seed0-draw*.png"))) == 2


def test_effects_of_image_tokens_reach_a_run(tmp_path: Path) -> None:
    pair = load(save_tiny_decoder("rae-dinov2", tmp_path / "rae"), dtype="float32", device="cpu")
    atlas = quick(pair, sites="L0H0,mlp_out.1", tokens="patches=0-1,0", folder=tmp_path / "run")
    job = make_job(pair, [picture()], LookOptions(**{**OPTIONS, "sites": "L0H0", "tokens": "patches=0-1,0"}))
    lens = TokenTotalLens(pair.encoder, Strength("rho", 0.5), decoder=pair.decoder, area=job.tokens)
    clean = clean_pass(pair.encoder, pair.encoder.preprocess([picture().image]))
    for lens_name, kind in (("total", "scaled"), ("ablation", "ablated"), ("total_control", "control")):
        (cell, *_) = atlas.cells(lens_name, "L0H0")  # type: ignore[arg-type]
        tokens = lens.changed(clean, [Change(Site("head", 0, 0), kind)])[0, 0]  # type: ignore[arg-type]
        torch.testing.assert_close(cell.conditioning, tokens.mean(dim=0), rtol=1e-4, atol=1e-5)
    assert -1 <= (atlas.score("total", "L0H0").direct_cosine or 9) <= 1
    assert "decode(" in report_page(load_run(tmp_path / "run"))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"effect": "later"}, "effect must be direct, total"),
        ({"lenses": "diffusion"}, "name the Steering Lens too"),
        ({"directions": {"probe": NAMED["probe"]}}, "say where it is added"),
        ({"directions": {"probe": NAMED["probe"]}, "vector_at": "L0H0"}, "a direction is added to the residual stream"),
        ({"directions": {"probe": NAMED["probe"]}, "vector_at": "resid_post.9"}, "the model has 3 layers"),
        ({"vector_at": "resid_post.1"}, "goes with directions"),
        (
            {"directions": {"wide": RegionPart((Site("head", 0, 0), Site("head", 1, 0)), Patches((0, 0), (0, 0)))}},
            "heads of layers 0, 1",
        ),
    ],
)
def test_what_has_no_total_effect_is_refused_before_anything_runs(pair: Pair, changes: Any, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        quick(pair, **changes)


def test_effects_are_named_at_once_or_one_by_one() -> None:
    assert parse_effects("total, direct") == parse_effects(("direct", "total")) == ("direct", "total")
    assert parse_effects(()) == parse_effects("direct") == ("direct",)
