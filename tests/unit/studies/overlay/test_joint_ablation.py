"""Joint ablation of the overlay study against hooks on full passes, its identities, greedy orders, first order."""

from dataclasses import replace

import pytest
import torch
from overlaid import overlay_options, overlay_set
from torch import Tensor

from steerlens.interventions import Resample
from steerlens.scores import cosine_similarity
from steerlens.studies.overlay.joint import (
    GREEDY_STEPS,
    Scene,
    by_score,
    direct_effect,
    greedy,
    objective,
    one_shot,
    projection,
)
from steerlens.studies.overlay.measure import first_order, open_scene, retained_embeddings, write_norms
from steerlens.studies.overlay.options import OverlayOptions
from steerlens.studies.overlay.pictures import Overlaid, OverlaySet
from steerlens.studies.shared.bench import Bench, make_bench
from steerlens.zoo.pair import Pair


@pytest.fixture(scope="module")
def pair(pair_of_many_heads: Pair) -> Pair:
    return pair_of_many_heads


@pytest.fixture(scope="module")
def pairs(pair: Pair) -> OverlaySet:
    return overlay_set(pair)


@pytest.fixture(scope="module")
def options(pair: Pair) -> OverlayOptions:
    return overlay_options(pair)


@pytest.fixture(scope="module")
def bench(pair: Pair, pairs: OverlaySet) -> Bench:
    return make_bench(pair, pairs.reference)


@pytest.fixture(scope="module")
def scene(bench: Bench, pairs: OverlaySet, options: OverlayOptions) -> Scene:
    return open_scene(bench, pairs.reported[0], options)


def by_hooks(bench: Bench, pair: Overlaid, heads: list[int]) -> Tensor:
    """One full native pass, every head replaced by what it writes for the base."""
    encoder = bench.encoder
    sites = [bench.sites[head] for head in heads]
    base = encoder.record(encoder.preprocess([pair.base]), sites) if sites else {}
    changes = [Resample(site, value=base[site]) for site in sites]
    return encoder.embed(encoder.preprocess([pair.both]), changes)[0]


def test_the_objective_and_the_projection_are_what_they_say(scene: Scene) -> None:
    base, overlay, mean = torch.randn(3, 6, generator=torch.Generator().manual_seed(0))
    both = base + 0.5 * overlay
    assert float(objective(overlay, base, overlay, mean)) == pytest.approx(
        1 - float(cosine_similarity(overlay - mean, base - mean))
    )
    torch.testing.assert_close(projection(torch.stack([base, both]), base, both), torch.tensor([0.0, 1.0]))
    torch.testing.assert_close(projection(base + 2 * (both - base), base, both), torch.tensor(2.0))
    clean = scene.prefix.embedding[0].float()
    assert float(scene.objective(clean)) == pytest.approx(
        float(objective(clean, scene.base, scene.overlay, scene.mean))
    )


def test_joint_ablation_is_the_native_pass_with_hooks(
    bench: Bench, pairs: OverlaySet, scene: Scene, options: OverlayOptions
) -> None:
    every = list(range(len(bench.sites)))
    sets = [[], [0], [7, 3], every[::2], every[1:], every, [3, 7], [11]]
    found = scene.ablated(sets)
    for heads, embedding in zip(sets, found, strict=True):
        torch.testing.assert_close(embedding, by_hooks(bench, pairs.reported[0], heads), atol=1e-5, rtol=1e-5)
    assert torch.equal(found[2], found[6])
    alone = scene.ablated([[head] for head in every])
    effect = scene.objective(found[0]) - scene.objective(alone)
    torch.testing.assert_close(one_shot(scene), effect)


def test_all_heads_resampled_from_the_base_give_the_base(
    bench: Bench, pairs: OverlaySet, scene: Scene, options: OverlayOptions
) -> None:
    """What a class token knows of the picture, it has from heads."""
    every = list(range(len(bench.sites)))
    torch.testing.assert_close(scene.ablated([every])[0], scene.base, atol=1e-5, rtol=1e-5)
    zeroed = open_scene(bench, pairs.reported[0], replace(options, ablation="zero"))
    assert not torch.allclose(zeroed.ablated([every])[0], scene.base, atol=1e-3)
    averaged = open_scene(bench, pairs.reported[0], replace(options, ablation="mean"))
    assert not torch.allclose(averaged.ablated([[0, 1]])[0], zeroed.ablated([[0, 1]])[0], atol=1e-4)


def test_one_more_head_on_top_of_others_is_the_joint_ablation(scene: Scene) -> None:
    for taken in ([], [5], [2, 9, 6]):
        left = [head for head in range(len(scene.sites)) if head not in taken]
        plain = scene.ablated([[*taken, head] for head in left])
        torch.testing.assert_close(scene.one_more(taken, left), plain, atol=1e-5, rtol=1e-5)


def test_norms_and_retained_heads_are_the_plain_ones(
    bench: Bench, pairs: OverlaySet, scene: Scene, options: OverlayOptions
) -> None:
    """Norms against writes of the trace, centred by hand; retaining heads against ablating all others."""
    shown = pairs.reported[0]
    both, base = (bench.encoder.trace(bench.encoder.preprocess([image])) for image in (shown.both, shown.base))
    norm, change = write_norms(bench, shown)
    for place, site in enumerate(bench.sites):
        write, difference = both.at(site)[0], both.at(site)[0] - base.at(site)[0]
        for found, own in ((norm, write), (change, difference)):
            assert float(found[place]) == pytest.approx(float((own - own.mean()).norm()), rel=1e-4)
    order = list(range(len(bench.sites)))[::-1]
    counts = (0, 3, len(order))
    kept = retained_embeddings(scene, {"way": order}, counts)["way"]
    for row, count in enumerate(counts):
        torch.testing.assert_close(kept[row], scene.ablated([order[count:]])[0])


def test_greedy_takes_the_best_head_at_every_step(bench: Bench, pairs: OverlaySet, scene: Scene) -> None:
    single = one_shot(scene)
    order = greedy(scene, single)
    N = len(bench.sites)
    assert sorted(order) == list(range(N))
    steps = min(GREEDY_STEPS, N // 4)
    assert steps == 3
    for step in range(steps):
        left = [head for head in range(N) if head not in order[:step]]
        after = [float(scene.objective(by_hooks(bench, pairs.reported[0], [*order[:step], head]))) for head in left]
        taken = float(scene.objective(by_hooks(bench, pairs.reported[0], order[: step + 1])))
        assert taken <= min(after) + 1e-5
    # The first step is the one-shot order's, and what follows the last is in that order.
    assert order[0] == by_score(single)[0]
    assert order[steps:] == [head for head in by_score(single) if head not in order[:steps]]
    assert set(greedy(scene, single, pool=2)[:2]) == set(by_score(single)[:2])


def test_first_order_and_direct_effects(bench: Bench, pairs: OverlaySet, scene: Scene, options: OverlayOptions) -> None:
    """The direct effect from the traces of both pictures; attribution patching as the slope of a small replacement."""
    pair = pairs.reported[0]
    encoder = bench.encoder
    trace = encoder.trace(encoder.preprocess([pair.both]))
    base = encoder.trace(encoder.preprocess([pair.base]))
    found = direct_effect(scene)
    clean = scene.objective(trace.embedding[0].float())
    for head, site in enumerate(bench.sites):
        moved = encoder.readout(trace.final - trace.at(site) + base.at(site))[0].detach()
        assert float(found[head]) == pytest.approx(float(clean - scene.objective(moved)), abs=1e-5)
    step, linear = 1e-2, first_order(bench, pair, scene, options)
    for head in (0, 6, 11):
        site = bench.sites[head]
        own = encoder.record(encoder.preprocess([pair.both]), [site])[site]
        near = Resample(site, value=own + step * (scene.put[site] - own))
        moved = encoder.embed(encoder.preprocess([pair.both]), [near])[0]
        slope = float(clean - scene.objective(moved)) / step
        assert slope == pytest.approx(float(linear[head]), abs=2e-2 * float(linear.abs().max()) + 2e-4)
