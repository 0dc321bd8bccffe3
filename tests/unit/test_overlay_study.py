"""The overlay study on tiny random pairs: exact pasting, joint ablation against hooks, identities, resuming."""

import json
from collections.abc import Generator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor

import steerlens
from steerlens.cli.study_overlay import Overlay
from steerlens.errors import StoreError, UsageError
from steerlens.interventions import Resample
from steerlens.lenses.strength import Strength
from steerlens.scores import cosine_similarity
from steerlens.studies import overlay_scenes, removal
from steerlens.studies import removal_study as study_file
from steerlens.studies.importance import Bench, make_bench
from steerlens.studies.joint import (
    GREEDY_STEPS,
    RANDOM_ORDERS,
    REFERENCE,
    Scene,
    areas,
    by_score,
    direct_effect,
    greedy,
    objective,
    one_shot,
    points,
    projection,
    random_orders,
)
from steerlens.studies.overlay import Overlaid, OverlaySet, Placement, folder_pairs, paste, random_placement, square
from steerlens.studies.pictures import Redecoded, redecode
from steerlens.studies.removal import RemovalOptions, compares, first_order, lens_score, open_scene, strip_columns
from steerlens.studies.removal_study import removal_study
from steerlens.studies.removal_summary import (
    RANDOM,
    RemovalSummary,
    choose,
    curve,
    normalised,
    normalised_estimate,
)
from steerlens.studies.settings import LensSetting, lens_embeddings
from steerlens.sweep.engine import Advanced
from steerlens.testing.tiny import save_tiny_pair
from steerlens.training.data import HELD_OUT, TRAIN, UNSEEN, Concept, PictureSet
from steerlens.zoo.pair import Pair

CENTRE = Placement(0.5, 0.5, 0.5)


def picture(seed: int, size: int = 16, channels: int = 3) -> Image.Image:
    generator = torch.Generator().manual_seed(seed)
    pixels = torch.randint(0, 256, (size, size, channels), generator=generator, dtype=torch.uint8)
    return Image.fromarray(pixels.numpy())


def overlaid(number: int, names: tuple[str, ...]) -> Overlaid:
    base, overlay = picture(number), picture(50 + number)
    both = paste(base, overlay, replace(CENTRE, size=0.6))
    concepts = names[number % len(names)], names[(number + 1) % len(names)]
    return Overlaid(f"pair{number}", base, overlay, both, *concepts, CENTRE)


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Pair:
    return steerlens.load(save_tiny_pair(tmp_path_factory.mktemp("pair"), heads=4))


@pytest.fixture(scope="module")
def pairs(pair: Pair) -> OverlaySet:
    assert pair.vocabulary is not None
    made = [overlaid(number, tuple(pair.vocabulary.names)) for number in range(4)]
    return OverlaySet(tuple(made[:2]), tuple(made[2:]), tuple(picture(90 + n) for n in range(4)), "random pictures")


@pytest.fixture(scope="module")
def bench(pair: Pair, pairs: OverlaySet) -> Bench:
    return make_bench(pair, pairs.reference)


@pytest.fixture(scope="module")
def options(pair: Pair) -> RemovalOptions:
    return RemovalOptions(
        replace(pair.decoder.spec.defaults, steps=1, guidance=1.0),
        steering=(LensSetting("steering", Strength("rho", 1.0)), LensSetting("steering", Strength("rho", 2.0))),
        diffusion=(LensSetting("diffusion"), LensSetting("diffusion", centred=True)),
        batch=5,
        strips=1,
    )


@pytest.fixture(scope="module")
def scene(bench: Bench, pairs: OverlaySet, options: RemovalOptions) -> Scene:
    return open_scene(bench, pairs.reported[0], options)


def by_hooks(bench: Bench, pair: Overlaid, heads: list[int]) -> Tensor:
    """One full native pass, every head replaced by what it writes for the base."""
    encoder = bench.encoder
    sites = [bench.sites[head] for head in heads]
    base = encoder.record(encoder.preprocess([pair.base]), sites) if sites else {}
    changes = [Resample(site, value=base[site]) for site in sites]
    return encoder.embed(encoder.preprocess([pair.both]), changes)[0]


def test_an_overlay_of_fitting_size_is_pasted_pixel_by_pixel() -> None:
    base, overlay = picture(0, 16), picture(1, 8)
    both = np.asarray(paste(base, overlay, CENTRE))
    wanted = np.asarray(base).copy()
    wanted[4:12, 4:12] = np.asarray(overlay)
    assert (both == wanted).all()
    corner = np.asarray(paste(base, overlay, Placement(0.0, 1.0, 0.5)))  # kept inside
    assert (corner[8:, :8] == np.asarray(overlay)).all() and (corner[:8] == np.asarray(base)[:8]).all()


def test_masks_transparency_and_opacity_let_the_base_through() -> None:
    base, overlay = picture(0, 16), picture(1, 8)
    half = np.zeros((8, 8), dtype=np.uint8)
    half[:, 4:] = 255
    ground, top = np.asarray(base)[4:12, 4:12], np.asarray(overlay)
    masked = np.asarray(paste(base, overlay, CENTRE, Image.fromarray(half)))[4:12, 4:12]
    assert (masked[:, :4] == ground[:, :4]).all() and (masked[:, 4:] == top[:, 4:]).all()
    cut = overlay.convert("RGBA")
    cut.putalpha(Image.fromarray(half))
    assert (np.asarray(paste(base, cut, CENTRE))[4:12, 4:12] == masked).all()
    faint = np.asarray(paste(base, overlay, replace(CENTRE, opacity=0.25)))[4:12, 4:12]
    assert np.abs(faint - (0.75 * ground + 0.25 * top)).max() < 2
    with pytest.raises(UsageError, match="does not fit"):
        paste(base, overlay, CENTRE, Image.fromarray(half[:4]))
    with pytest.raises(UsageError, match="inside of its base"):
        replace(CENTRE, opacity=0.0)
    with pytest.raises(UsageError, match="inside of its base"):
        replace(CENTRE, y=1.5)


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
    bench: Bench, pairs: OverlaySet, scene: Scene, options: RemovalOptions
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
    bench: Bench, pairs: OverlaySet, scene: Scene, options: RemovalOptions
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


def test_first_order_and_direct_effects(bench: Bench, pairs: OverlaySet, scene: Scene, options: RemovalOptions) -> None:
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


def test_points_and_areas() -> None:
    for n_heads in (1, 6, 12, 72, 768):
        counts = points(n_heads)
        quarter = max(1, n_heads // 4)
        assert counts[0] == 0 and counts[-1] == n_heads and quarter in counts and len(counts) <= 22
        assert list(counts) == sorted(set(counts))
        assert [counts[place] for place in strip_columns(counts)][-2:] == [quarter, n_heads]
        straight = torch.tensor(counts, dtype=torch.float32) / quarter
        # A drop that grows in proportion has half of its final value as its mean, however the points lie.
        assert areas(1 - straight, counts) == pytest.approx(0.5)
        assert areas(torch.zeros(len(counts)), counts) == 0


def made_parts(n_pairs: int = 6) -> tuple[list[dict[str, Tensor]], list[dict[str, Tensor]], tuple[int, ...]]:
    """Pairs whose embeddings go from the overlay to the base at the speed that an order is given."""
    counts, generator = points(48), torch.Generator().manual_seed(5)
    parts, ways = list[dict[str, Tensor]](), list[dict[str, Tensor]]()
    for _ in range(n_pairs):
        base, overlay = torch.randn(2, 16, generator=generator)
        speeds = {REFERENCE: 3.0, "fast|overlay": 2.0, "slow|overlay": 0.7}
        speeds |= {f"random {n}": 0.8 + 0.4 * float(torch.rand(1, generator=generator)) for n in range(RANDOM_ORDERS)}
        share = torch.tensor(counts) / 48
        ways.append(
            {
                f"way.{name}": overlay + (base - overlay) * (1 - (1 - share) ** speed)[:, None]
                for name, speed in speeds.items()
            }
        )
        parts.append({"base": base, "overlay": overlay, "both": overlay, "mean": torch.zeros(16)})
    return parts, ways, counts


def test_the_reference_gets_one_and_random_orders_nought() -> None:
    parts, ways, counts = made_parts()
    assert normalised(parts, ways, REFERENCE, counts) == pytest.approx(1)
    assert normalised(parts, ways, RANDOM, counts) == pytest.approx(0)
    each = [normalised(parts, ways, f"random {n}", counts) for n in range(RANDOM_ORDERS)]
    assert sum(each) / len(each) == pytest.approx(0, abs=1e-6) and min(each) < 0 < max(each)
    fast = normalised_estimate(parts, ways, "fast|overlay", counts)
    assert 0.4 < fast.low <= fast.value <= fast.high < 1 and fast.excludes_zero
    assert normalised(parts, ways, "slow|overlay", counts) < 0
    same = normalised_estimate(parts, ways, "fast|overlay", counts, less="fast|overlay")
    assert (same.value, same.low, same.high) == (0, 0, 0)
    apart = normalised_estimate(parts, ways, "fast|overlay", counts, less="slow|overlay")
    assert apart.value == pytest.approx(fast.value - normalised(parts, ways, "slow|overlay", counts), abs=1e-6)
    line = curve(parts, ways, "fast|overlay", "projection")
    assert line.values[0] == pytest.approx(1) and line.values[-1] == pytest.approx(0, abs=1e-6)
    assert all(low <= value <= high for low, value, high in zip(line.low, line.values, line.high, strict=True))


def test_the_choice_goes_to_the_order_that_removes_most() -> None:
    parts, ways, counts = made_parts()

    class Named(LensSetting):
        def __str__(self) -> str:
            return "fast" if self.centred else "slow"

    choice = choose(parts, ways, [Named("diffusion"), Named("diffusion", centred=True)], ("overlay",), counts)
    assert choice.setting.centred and choice.compare == "overlay" and len(choice.candidates) == 2
    assert choice.area == pytest.approx(normalised(parts, ways, "fast|overlay", counts))


def test_random_orders_are_each_pairs_own() -> None:
    first, again, other = (random_orders(12, seed) for seed in ("0 a", "0 a", "0 b"))
    assert first == again != other and len(first) == RANDOM_ORDERS
    assert all(sorted(order) == list(range(12)) for order in first.values())
    assert len({tuple(order) for order in first.values()}) > 1


def finish(events: Generator[Advanced, None, RemovalSummary]) -> RemovalSummary:
    while True:
        try:
            event = next(events)
        except StopIteration as end:
            return end.value
        assert isinstance(event, Advanced) and 0 <= event.done <= event.total


def test_the_study_resumes_to_the_same_summary(
    pair: Pair, pairs: OverlaySet, options: RemovalOptions, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = finish(removal_study(pair, pairs, options, tmp_path / "whole", draws=20))
    monkeypatch.setattr(study_file, "save_figure", lambda *_: None)  # once is enough
    broken = removal_study(pair, pairs, options, tmp_path / "broken")
    for event in broken:
        if event.stage == "decoding to report" and event.done > event.total / 2:
            break
    broken.close()
    kept = {path.name: path.read_bytes() for path in (tmp_path / "broken" / "parts").iterdir()}
    assert "report-pair2.safetensors" in kept and "report-pair3.safetensors" not in kept
    finish(removal_study(pair, pairs, options, tmp_path / "broken", draws=20))
    texts = [(tmp_path / name / "summary.json").read_text() for name in ("whole", "broken")]
    assert texts[0] == texts[1]
    assert all((tmp_path / "broken" / "parts" / name).read_bytes() == data for name, data in kept.items())

    summary = json.loads(texts[0])
    assert summary["n_pairs"] == 2 and summary["n_heads"] == 12 and summary["ablation"] == "resample"
    rows = {row["name"]: row for row in summary["orders"]}
    assert rows[REFERENCE]["area"]["value"] == 1 and rows[RANDOM]["area"]["value"] == 0
    assert summary["bar"] == rows["steering, chosen"]["area"]
    for lens in ("steering", "diffusion"):
        assert (
            len(summary["choices"][lens]["candidates"]) == 6
        )  # two settings, compared with picture, objective and name
        assert {f"{lens}, plain", f"{lens}, plain, not decoded", f"{lens}, chosen"} <= rows.keys()
    # Nothing ablated is the picture with the overlay; all heads ablated is the base, whatever the order.
    for line in whole.curves["projection"].values():
        assert line.values[0] == pytest.approx(1, abs=1e-4) and line.values[-1] == pytest.approx(0, abs=1e-4)
    for lines in whole.decoded.values():
        assert len({(line.values[0], line.values[-1]) for line in lines.values()}) == 1 and len(lines) == 6
    table = pq.read_table(tmp_path / "whole" / "table.parquet")
    n_orders = len(rows) - 1 + RANDOM_ORDERS
    assert table.num_rows == 2 * n_orders * len(points(12))
    figures = {path.stem for path in (tmp_path / "whole" / "figures").glob("*.svg")}
    assert figures == {"trajectories", "decoded", "orders", "strip-0"}
    frozen = tmp_path / "whole" / "choice.json"
    assert set(json.loads(frozen.read_text())["choices"]) == {"steering", "diffusion"}
    frozen.write_text(json.dumps({"choices": {"steering": {"setting": "steering rho=9", "compare": "text"}}}))
    with pytest.raises(StoreError, match="says that steering rho=9 was chosen for steering; now it would be"):
        finish(removal_study(pair, pairs, options, tmp_path / "whole"))

    with pytest.raises(UsageError, match="holds a study with another options"):
        finish(removal_study(pair, pairs, replace(options, ablation="zero"), tmp_path / "whole"))
    with pytest.raises(UsageError, match="another pairs"):
        finish(removal_study(pair, replace(pairs, reported=pairs.chosen), options, tmp_path / "whole"))


def test_an_outside_judge_orders_heads_too(
    pair: Pair, pairs: OverlaySet, options: RemovalOptions, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(study_file, "save_figure", lambda *_: None)
    judged = make_bench(pair, pairs.reference)
    judge: Any = steerlens.load(save_tiny_pair(tmp_path / "judge", seed=3, embedding_size=8)).encoder
    one = replace(options, steering=options.steering[:1], diffusion=options.diffusion[:1], strips=0, seeds=2)
    summary = finish(removal_study(pair, pairs, one, tmp_path / "study", judge=judge, draws=20))
    assert {"steering, plain, judged", "diffusion, plain, judged"} <= {row.name for row in summary.orders}
    assert json.loads((tmp_path / "study" / "study.json").read_text())["models"]["judge"] == judge.spec.name
    part = load_file(tmp_path / "study" / "parts" / "report-pair2.safetensors")
    setting = str(one.steering[0])
    assert part[f"made.{setting}"].shape == (2, 12, pair.encoder.spec.embedding_size)
    # The mean of two seeds, each of which decodes what one alone would.
    by_seed = [
        lens_score({**part, f"made.{setting}": rows[None]}, setting, "overlay") for rows in part[f"made.{setting}"]
    ]
    torch.testing.assert_close(lens_score(part, setting, "overlay"), (by_seed[0] + by_seed[1]) / 2)
    assert not torch.equal(*by_seed)
    asked = lens_embeddings(
        judged.encoder,
        pair.encoder.trace(pair.encoder.preprocess([pairs.reported[0].both])),
        judged.sites,
        one.steering[0],
        judged.reference,
    )[0]
    alone = list(redecode(pair.encoder, pair.decoder, asked[3:4], [1], one.decode))[-1]
    assert isinstance(alone, Redecoded)
    # A batch of another size rounds otherwise, which may change an 8-bit level here and there.
    likeness = cosine_similarity(part[f"made.{setting}"][:, 3], alone.embeddings)
    assert float(likeness[1]) > 0.9995 > float(likeness[0])


def test_names_are_compared_only_where_all_are_known(pair: Pair, pairs: OverlaySet) -> None:
    assert compares(pair, pairs.chosen) == ("overlay", "objective", "text")
    strange = replace(pairs.chosen[0], overlay_concept="IMG 0042")
    assert compares(pair, [*pairs.chosen, strange]) == ("overlay", "objective")
    assert removal.overlay_text(replace(pair, vocabulary=None, texts=None), pairs.chosen[0]) is None


def test_both_lenses_choose_from_as_many_settings(options: RemovalOptions) -> None:
    with pytest.raises(UsageError, match="same number of settings"):
        replace(options, diffusion=options.diffusion[:1])
    with pytest.raises(UsageError, match="at least 1 seed"):
        replace(options, seeds=0)


def test_folders_make_pairs_that_share_no_concept(tmp_path: Path) -> None:
    bases, overlays = tmp_path / "bases", tmp_path / "overlays"
    for number in range(8):
        path = bases / f"thing{number % 4}" / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.asarray(picture(number, 24))[:16]).save(path)  # 24 x 16
    overlays.mkdir()
    for number in range(3):
        cut = Image.fromarray(np.asarray(picture(40 + number, 12, 4))[:8])  # 12 x 8, transparent in part
        cut.save(overlays / f"flower{'abc'[number]}.png")
    found = folder_pairs(bases, overlays, 2, 4, seed=1, n_reference=5)
    assert len(found.chosen) == 2 and len(found.reported) == 4 and len(found.reference) == 5
    sides = [
        {concept for pair in side for concept in (pair.base_concept, pair.overlay_concept)}
        for side in (found.chosen, found.reported)
    ]
    assert not sides[0] & sides[1]
    everyone = (*found.chosen, *found.reported)
    assert len({pair.id for pair in everyone}) == 6
    for pair in everyone:
        # What encoders crop away cannot hold the overlay.
        assert pair.base.size == pair.both.size == (16, 16) and pair.overlay.size == (12, 12)
        changed = (np.asarray(pair.base) != np.asarray(pair.both)).any(axis=-1)
        assert 0 < changed.mean() < 0.3
    assert folder_pairs(bases, overlays, 2, 4, seed=1, n_reference=5).identity() == found.identity()
    assert folder_pairs(bases, overlays, 2, 4, seed=2, n_reference=5).identity() != found.identity()
    fixed = folder_pairs(bases, overlays, 2, 2, placement=CENTRE)
    assert {pair.placement for pair in (*fixed.chosen, *fixed.reported)} == {CENTRE}
    with pytest.raises(UsageError, match="too few to choose on"):
        folder_pairs(bases, overlays, 4, 6)
    with pytest.raises(UsageError, match="not a folder"):
        folder_pairs(tmp_path / "none", overlays, 1, 1)
    for path in list(overlays.iterdir())[1:]:
        path.unlink()
    with pytest.raises(UsageError, match="fewer than two"):
        folder_pairs(bases, overlays, 1, 1)


def test_photographs_are_cut_to_their_central_square() -> None:
    wide = Image.fromarray(np.asarray(picture(0, 24))[:16])
    assert (np.asarray(square(wide)) == np.asarray(wide)[:, 4:20]).all()


def prepared() -> PictureSet:
    """12 training pictures, 10 held out, 4 concepts never seen in either of two styles; all of different concepts."""
    splits = [TRAIN] * 12 + [HELD_OUT] * 10 + [UNSEEN] * 8
    concept = [*range(22), *(22 + number // 2 for number in range(8))]
    style = [number % 2 for number in range(30)]
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (30, 4, 64, 64), generator=generator, dtype=torch.uint8)
    concepts = tuple(Concept(f"thing {number}", "made", str(number)) for number in range(26))
    return PictureSet(
        pixels, torch.tensor(concept), torch.tensor(style), torch.tensor(splits), concepts, ("a", "b"), ()
    )


def test_scenes_never_show_what_was_trained_or_chosen_on(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(overlay_scenes, "open_pictures", lambda data: prepared())
    found = overlay_scenes.scene_pairs(tmp_path, 2, 8, n_reference=3)
    sides = [
        {concept for pair in side for concept in (pair.base_concept, pair.overlay_concept)}
        for side in (found.chosen, found.reported)
    ]
    assert len(found.chosen) == 2 and len(found.reported) == 8 and len(found.reference) == 3
    assert not sides[0] & sides[1]
    assert sides[0] | sides[1] <= {f"thing {number}" for number in range(12, 26)}
    for pair in (*found.chosen, *found.reported):
        assert pair.base_concept != pair.overlay_concept
        changed = (np.asarray(pair.base) != np.asarray(pair.both)).any(axis=-1)
        assert 0.05 < changed.mean() < 0.3
    assert len({pair.base_concept for pair in found.reported}) == 8
    assert overlay_scenes.scene_pairs(tmp_path, 2, 8, n_reference=3).identity() == found.identity()
    fixed = overlay_scenes.scene_pairs(tmp_path, 2, 2, n_reference=3, placement=CENTRE)
    assert {pair.placement for pair in (*fixed.chosen, *fixed.reported)} == {CENTRE}
    with pytest.raises(UsageError, match="too few"):
        overlay_scenes.scene_pairs(tmp_path, 2, 10)


def test_random_placements_are_seeded_and_inside() -> None:
    import random

    assert random_placement(random.Random(0), opacity=0.5).opacity == 0.5
    drawn = [random_placement(random.Random(seed)) for seed in range(20)]
    assert drawn == [random_placement(random.Random(seed)) for seed in range(20)]
    assert len({(place.x < 0.5, place.y < 0.5) for place in drawn}) == 4
    for place in drawn:
        assert place.size / 2 <= place.x <= 1 - place.size / 2


def test_the_command_says_what_pictures_to_give(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="go together"):
        Overlay(tmp_path / "out", bases=tmp_path).run()
    with pytest.raises(UsageError, match="is seen"):
        Overlay(tmp_path / "out", place=(0.5, 0.5, 2.0), bases=tmp_path, overlays=tmp_path).run()
    with pytest.raises(UsageError, match="at least 2 pairs"):
        Overlay(tmp_path / "out", count=1).run()
    with pytest.raises(UsageError, match="--bases"):
        Overlay(tmp_path / "out").run()
    assert str(tmp_path) in Overlay(tmp_path / "out").interrupted() and not (tmp_path / "out").exists()
