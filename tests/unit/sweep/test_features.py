"""Features of sparse autoencoders in a sweep: which are shown, their numbers, runs that resume, and refusals."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from tiny_saes import tiny_sae

from steerlens.atlas import Atlas, CellsByPicture
from steerlens.encoders import Encoder
from steerlens.errors import UsageError
from steerlens.images import Picture
from steerlens.interventions import Zero
from steerlens.lenses import DiffusionLens, SecondOrder, SteeringLens
from steerlens.loading import load
from steerlens.progress import Progress
from steerlens.runs import load_run, merge_runs, verify_run
from steerlens.runs.units import read_units
from steerlens.saes import SparseAutoencoder, TopK, value_at
from steerlens.scores import cosine_similarity
from steerlens.sites import Site
from steerlens.sweep.look import look
from steerlens.sweep.neurons import native
from steerlens.testing.tiny import save_tiny_pair
from steerlens.zoo import Pair


def picture(seed: int = 0, name: str = "noise") -> Picture:
    pixels = np.random.default_rng(seed).integers(0, 255, (40, 40, 3), dtype=np.uint8)
    return Picture.from_image(Image.fromarray(pixels), name)


def quick(pair: Pair, *saes: SparseAutoencoder, **changes: Any) -> Atlas:
    options = {"pictures": picture(), "steps": 2, "strength": "rho=0.5", "strongest": 4, **changes}
    return look(pair, saes=saes, **options)  # type: ignore[arg-type]


def test_autoencoders_may_come_from_an_iterator(pair: Pair) -> None:
    atlas = look(pair, picture(), saes=(sae for sae in [tiny_sae(pair.encoder)]), sites="features", steps=1)  # type: ignore[arg-type]
    assert features(atlas)


def features(atlas: Atlas, id: str | None = None) -> list[Site]:
    return [site for site in atlas.sites("steering", id) if site.kind == "feature"]


def trace_of(pair: Pair, seed: int = 0) -> Any:
    return pair.encoder.trace(pair.encoder.preprocess([picture(seed).image]))


def test_the_strongest_features_of_each_picture_are_shown_with_error_and_bias(pair: Pair) -> None:
    sae = tiny_sae(pair.encoder, activation=TopK(6))
    atlas = quick(pair, sae, pictures=[picture(0, "a"), picture(1, "b")])
    assert isinstance(atlas.plan.cells, CellsByPicture)
    for seed, reading in enumerate(atlas.readings):
        activations = sae.encode(value_at(sae, trace_of(pair, seed)))[0, 0]
        expected = activations.topk(4).indices.tolist()
        assert [site.index for site in features(atlas, reading.id)] == expected
        assert [str(site) for site in atlas.sites("steering", reading.id)[-2:]] == ["error.tiny", "bias.tiny"]
        assert reading.unit(sae.feature(expected[0])) is not None
        first = reading.units[0]
        assert first.activation == pytest.approx(float(activations.max()))
        assert first.tokens is not None and first.tokens.shape == (pair.encoder.spec.n_tokens,)
        assert float(first.tokens[0]) == pytest.approx(first.activation, abs=1e-5)
    assert features(atlas, atlas.readings[0].id) != features(atlas, atlas.readings[1].id)
    kinds = {cell.site.kind for cell in atlas.plan.cells}
    assert kinds == {"resid_post", "feature", "error", "bias"}


@pytest.mark.parametrize("place", ["resid_post.1", "embedding", "head.1.0"])
def test_numbers_of_features_are_those_of_the_lenses(pair: Pair, place: str) -> None:
    sae = tiny_sae(pair.encoder, place)
    atlas = quick(pair, sae, controls=2)
    trace, directions, e = trace_of(pair), {"tiny": sae}, atlas.reading().embedding
    steering, alone = SteeringLens(pair.encoder, "rho=0.5", directions), DiffusionLens(pair.encoder, directions)
    removed = SteeringLens(pair.encoder, "s=0", directions)
    for unit in atlas.reading().units:
        (steered,) = atlas.cells("steering", unit.site)
        (shown,) = atlas.cells("diffusion", unit.site)
        assert torch.allclose(steered.conditioning, steering.embeddings(trace, [unit.site])[0, 0], atol=1e-5)
        assert torch.allclose(shown.conditioning, alone.embeddings(trace, [unit.site])[0, 0], atol=1e-5)
        assert unit.similarity == pytest.approx(float(cosine_similarity(steered.conditioning, e)), abs=1e-5)
        change = removed.embeddings(trace, [unit.site])[0, 0] - e
        assert unit.effect == pytest.approx(float(change.norm() / e.norm()), abs=1e-5)
        controls = atlas.cells("control", unit.site)
        assert len(controls) == 2
        assert all(control.rho == pytest.approx(steered.rho) for control in controls)
        assert (unit.tokens is None) == (place == "embedding")
    score = atlas.ranked("steering", kind="feature")[0]
    assert score.rho == pytest.approx(0.5) and score.control is not None


@pytest.mark.parametrize("rank", ["effect", "target"])
def test_features_are_ranked_by_effect_or_by_similarity_with_the_target(pair: Pair, rank: Any) -> None:
    sae = tiny_sae(pair.encoder)
    atlas = quick(pair, sae, rank=rank, target=picture(5))
    every = quick(pair, sae, rank=rank, target=picture(5), strongest=40)
    key = "effect" if rank == "effect" else "similarity"
    values = {unit.site: getattr(unit, key) for unit in every.reading().units if unit.site.kind == "feature"}
    assert len(values) > 4
    best = sorted(values, key=lambda site: -values[site])[:4]
    assert features(atlas) == best


def test_sites_name_features_by_number_and_decode_selects_among_them(pair: Pair) -> None:
    sae = tiny_sae(pair.encoder)
    awake = [unit.site for unit in quick(pair, sae, strongest=40).reading().units if unit.site.kind == "feature"]
    named = ",".join(map(str, awake[-2:]))
    assert features(quick(pair, sae, sites=named, strongest=24)) == awake[-2:]
    selected = quick(pair, sae, sites="features", decode="top:2")
    cells = [cell for cell in selected.finished if cell.lens == "steering"]
    assert len(cells) == 2 and len(selected.reading().units) == 6
    few = tiny_sae(pair.encoder, activation=TopK(2))
    every = quick(pair, few, sites="features", decode="top:5")
    assert len([cell for cell in every.finished if cell.lens == "steering"]) == 4


def test_a_run_stores_features_resumes_and_opens_as_it_was(pair: Pair, tmp_path: Path) -> None:
    sae, pictures = tiny_sae(pair.encoder), [picture(0, "a"), picture(1, "b")]
    whole = quick(pair, sae, pictures=pictures)

    class StopError(Exception):
        pass

    def stop(event: Progress) -> None:
        if event.stage == "decoding" and event.done >= 12:
            raise StopError

    with pytest.raises(StopError):
        quick(pair, sae, pictures=pictures, folder=tmp_path / "run", progress=stop, batch_size=6)
    begun = len(load_run(tmp_path / "run").results)
    assert 0 < begun < len(whole.results)
    run = quick(pair, sae, pictures=pictures, folder=tmp_path / "run", batch_size=6)
    assert run.manifest["resumed"] is True
    again = load_run(tmp_path / "run")
    assert [result.cell for result in again.results] == [result.cell for result in whole.results]
    for one, other in zip(again.readings, whole.readings, strict=True):
        assert [unit.site for unit in one.units] == [unit.site for unit in other.units]
        for first, second in zip(one.units, other.units, strict=True):
            assert first.activation == pytest.approx(second.activation, abs=1e-6)
            assert torch.allclose(first.tokens, second.tokens, atol=1e-6)
    assert again.manifest["saes"]["tiny"]["fit"]["n_values"] == 2
    table = pq.read_table(tmp_path / "run" / "units")
    assert table.num_rows == 12 and set(table["kind"].to_pylist()) == {"feature", "error", "bias"}
    assert not verify_run(tmp_path / "run").damaged
    with pytest.raises(UsageError, match="another directions"):
        quick(pair, tiny_sae(pair.encoder, seed=1), pictures=pictures, folder=tmp_path / "run")


def test_runs_of_features_merge_with_runs_of_heads(pair: Pair, tmp_path: Path) -> None:
    sae = tiny_sae(pair.encoder)
    quick(pair, sae, folder=tmp_path / "features")
    quick(pair, sites="head.1.*", strongest=24, folder=tmp_path / "heads")
    for _ in merge_runs([tmp_path / "heads", tmp_path / "features"], tmp_path / "both"):
        pass
    both = load_run(tmp_path / "both")
    assert len(both.reading().units) == 6
    assert {"head", "feature"} <= {cell.site.kind for cell in both.plan.cells}
    assert both.manifest["saes"] == load_run(tmp_path / "features").manifest["saes"]


def test_merged_runs_of_features_keep_the_poorest_fit(pair: Pair, tmp_path: Path) -> None:
    """A fit to all inputs was never measured, so the poorest of the runs stands for it, and is called so."""
    sae, names = replace(tiny_sae(pair.encoder), trained_on="all"), ("a", "b")
    for seed, name in enumerate(names):
        quick(pair, sae, pictures=picture(seed, name), folder=tmp_path / name)
    for _ in merge_runs([tmp_path / name for name in names], tmp_path / "both"):
        pass
    single = [load_run(tmp_path / name).manifest["saes"]["tiny"] for name in names]
    both = load_run(tmp_path / "both").manifest["saes"]["tiny"]
    explained = [facts["fit"]["explained_variance"] for facts in single]
    assert explained[0] != explained[1] and both["fit"]["explained_variance"] == min(explained)
    assert both["fit"]["tokens"].endswith("; the poorest fit of 2 merged runs")
    assert both["active"] == single[0]["active"] | single[1]["active"] and len(both["active"]) == 2


def test_total_effects_of_features_follow_the_real_pass(pair: Pair) -> None:
    sae = tiny_sae(pair.encoder, "resid_post.0")
    atlas = quick(pair, sae, effect="direct,total", sites="features", strongest=2)
    for site in features(atlas):
        assert atlas.cells("total", site) and atlas.cells("ablation", site)
    last = quick(pair, tiny_sae(pair.encoder, "resid_post.2"), effect="direct,total", sites="features", strongest=2)
    for site in features(last):
        (total,), (direct,) = last.cells("total", site), last.cells("steering", site)
        assert torch.allclose(total.conditioning, direct.conditioning, atol=1e-4)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"sites": "feature.tiny.40"}, "no feature 40"),
        ({"sites": "feature.other.1"}, "no sparse autoencoder is called 'other'"),
        ({"sites": "heads", "strongest": 24}, "has no effect"),
        ({"strongest": 0}, "at least one feature"),
        ({"sites": "feature.tiny.3", "rank": "effect", "strongest": 24}, "rank effect: no effect"),
        ({"rank": "size"}, "not by 'size'"),
        ({"effect": "total", "site": "embedding"}, "leave out effect total"),
        ({"site": "resid_post.9"}, "reads resid_post.9: the model has 3 layers"),
    ],
)
def test_what_makes_no_sense_is_refused(pair: Pair, changes: dict[str, Any], message: str) -> None:
    sae = tiny_sae(pair.encoder, changes.pop("site", "resid_post.1"))
    with pytest.raises(UsageError, match=message):
        quick(pair, sae, **changes)


def test_what_is_silent_or_does_not_fit_is_refused(pair: Pair) -> None:
    awake = tiny_sae(pair.encoder)
    silent = replace(awake, b_enc=torch.full_like(awake.b_enc, -100.0))
    with pytest.raises(UsageError, match="0 active features: every feature of tiny"):
        quick(pair, silent)
    with pytest.raises(UsageError, match="it was trained on another model"):
        quick(pair, _narrower(pair.encoder))
    with pytest.raises(UsageError, match="none was given"):
        quick(pair, sites="features")
    activations = awake.encode(value_at(awake, trace_of(pair)))[0, 0]
    asleep = int((activations == 0).nonzero()[0])
    with pytest.raises(UsageError, match=rf"^feature.tiny.{asleep} is silent on .* other features of tiny are"):
        quick(pair, awake, sites=f"feature.tiny.{asleep}", strongest=24)
    with pytest.raises(UsageError, match="rename one"):
        quick(pair, awake, directions={"tiny": torch.ones(pair.encoder.spec.width)})


def test_half_precision_keeps_features_finite(tmp_path: Path) -> None:
    half = load(save_tiny_pair(tmp_path / "pair"), dtype="bfloat16", device="cpu")
    for place in ("resid_post.1", "embedding"):
        atlas = quick(half, tiny_sae(half.encoder, place), sites="features,neurons")
        assert len(atlas.results) == len(atlas.plan)
        assert all(np.isfinite([cell.similarity, cell.fidelity, cell.rho]).all() for cell in atlas.results)


def test_the_strongest_neurons_of_all_layers_are_shown(pair: Pair) -> None:
    atlas = quick(pair, sites="neurons")
    trace = pair.encoder.trace(pair.encoder.preprocess([picture().image]), neurons=True)
    norms = {
        Site("neuron", layer, index=index): float(trace.neurons.write(Site("neuron", layer, index=index)).norm())
        for layer in range(3)
        for index in range(32)
    }
    shown = list(atlas.sites("steering"))
    assert shown == sorted(norms, key=lambda site: -norms[site])[:4]
    steering = SteeringLens(pair.encoder, "rho=0.5")
    for unit in atlas.reading().units:
        (cell,) = atlas.cells("steering", unit.site)
        assert torch.allclose(cell.conditioning, steering.embeddings(trace, [unit.site])[0, 0], atol=1e-5)
        activation = trace.neurons.activations[unit.site.layer][0, 0, unit.site.index]
        assert unit.activation == pytest.approx(float(activation), abs=1e-6)
        assert unit.tokens is not None and float(unit.tokens[0]) == pytest.approx(float(activation), abs=1e-5)
    layer = quick(pair, sites="neuron.1,neuron.0.5", rank="effect")
    of_layer = [site for site in norms if site.layer == 1]
    removed = SteeringLens(pair.encoder, "s=0").embeddings(trace, of_layer)[0] - trace.embedding[0]
    best = removed.norm(dim=-1).argsort(descending=True)[:4].tolist()
    assert list(layer.sites("steering")) == [*(of_layer[row] for row in best), Site("neuron", 0, index=5)]
    with pytest.raises(UsageError, match="layers 0 to 2"):
        quick(pair, sites="neuron.3")
    with pytest.raises(UsageError, match="neurons 0 to 31"):
        quick(pair, sites="neuron.1.99", strongest=24)


def _narrower(encoder: Encoder) -> SparseAutoencoder:
    sae = tiny_sae(encoder)
    return replace(sae, W_enc=sae.W_enc[:-1], W_dec=sae.W_dec[:, :-1], b_dec=sae.b_dec[:-1])


def test_neurons_have_second_order_effects_beside_real_ablation(pair: Pair, tmp_path: Path) -> None:
    atlas = quick(pair, sites="neurons", folder=tmp_path / "run")
    encoder = native(pair.encoder)
    inputs = encoder.preprocess([picture().image])
    second, clean = SecondOrder.of(encoder, inputs), encoder.embed(inputs)

    def change(embedding: torch.Tensor) -> float:
        return float((embedding.detach() - clean).norm() / clean.norm())

    for unit in atlas.reading().units:
        through, own = second.writes([unit.site])[:, 0], second.direct([unit.site])[:, 0]
        final = second.trace.final
        assert unit.second_order == pytest.approx(change(encoder.readout(final - through)), abs=1e-5)
        assert unit.together == pytest.approx(change(encoder.readout(final - through - own)), abs=1e-5)
        assert unit.ablated == pytest.approx(change(encoder.embed(inputs, [Zero(unit.site)])), abs=1e-5)
    assert any(unit.second_order for unit in atlas.reading().units)
    again = load_run(tmp_path / "run").reading().units
    assert [unit.ablated for unit in again] == [unit.ablated for unit in atlas.reading().units]
    table = tmp_path / "run" / "units" / f"{atlas.reading().id}.parquet"
    pq.write_table(pq.read_table(table).drop_columns(["second_order", "together", "ablated"]), table)
    (old, *_) = read_units(table)  # as runs of before were written
    assert old.ablated is None and old.effect == again[0].effect
