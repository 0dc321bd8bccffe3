"""The identification study on a tiny random pair: numbers against plain loops, resumable, chance where it belongs."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from studied import finish, picture, quick, stored, subject_set
from torch import Tensor

from steerlens.errors import UsageError
from steerlens.lenses import Strength, control_direction, visible_norm
from steerlens.sites import Site
from steerlens.studies import STUDIES
from steerlens.studies.identification.conclusion import compared, identification_claims, layers_words, share
from steerlens.studies.identification.experiment import identification_study
from steerlens.studies.identification.figures import shares_figure
from steerlens.studies.identification.findings import identification_bars
from steerlens.studies.identification.measure import (
    DIFFUSION,
    NEUTRAL,
    OWN,
    RANDOM,
    IdentificationPart,
    RandomPart,
    mean_residual,
    trace_all,
    undecoded,
)
from steerlens.studies.identification.options import IdentificationOptions, foils_of
from steerlens.studies.identification.results import IdentificationSummary
from steerlens.studies.identification.scores import STEERING, STEERING_NEUTRAL, Contest, Identified, wins
from steerlens.studies.identification.summary import summarise
from steerlens.studies.page import Finished, study_page, verdict_page
from steerlens.studies.shared import run
from steerlens.studies.shared.arguments import StudySettings
from steerlens.studies.shared.sampling import head_variance, widened
from steerlens.studies.shared.stats import Estimate, drawn_batches, mean_estimate
from steerlens.studies.shared.subjects import Subject, SubjectSet
from steerlens.studies.shared.undecoded import open_undecoded
from steerlens.testing.tiny import tiny_encoder
from steerlens.zoo.pair import Pair

RHO = Strength("rho", 1.0)


@pytest.fixture(scope="module")
def subjects(pair: Pair) -> SubjectSet:
    return subject_set(pair, 2, 3, 4)


@pytest.fixture(scope="module")
def options(pair: Pair) -> IdentificationOptions:
    return IdentificationOptions(quick(pair), RHO, heads_per_picture=3)


def test_the_study_resumes_to_the_same_summary(
    pair: Pair, subjects: SubjectSet, options: IdentificationOptions, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = finish(identification_study(pair, subjects, options, tmp_path / "whole", draws=20))
    for name in ("shares", "pictures"):
        assert (tmp_path / "whole" / "figures" / f"{name}.png").read_bytes()[:4] == b"\x89PNG"
    monkeypatch.setattr(run, "save_figure", lambda *_: None)  # once is enough
    broken = identification_study(pair, subjects, options, tmp_path / "broken")
    for event in broken:
        if event.stage == "decoding" and event.done > event.total / 2:
            break
    broken.close()
    kept = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "broken" / "parts").iterdir()}
    assert 0 < len(kept) < 5 and not (tmp_path / "broken" / "summary.json").exists()
    finish(identification_study(pair, subjects, options, tmp_path / "broken", draws=20))
    for name, time in kept.items():
        assert (tmp_path / "broken" / "parts" / name).stat().st_mtime_ns == time
    texts = [(tmp_path / name / "summary.json").read_text() for name in ("whole", "broken")]
    assert texts[0] == texts[1]
    values = json.loads(texts[0])
    assert values["n_studied"] == 3 and values["n_pictures"] == 3
    assert values["conclusion"]["sentences"] == list(whole.conclusion.sentences)
    assert set(values["heads"]) == {site.label for site in options.sites(pair.encoder.spec)}
    table = pq.read_table(tmp_path / "whole" / "table.parquet")
    assert table.num_rows == 9 and table["steering, decoded, input"].null_count == 0
    with pytest.raises(UsageError, match="holds a study with another options"):
        finish(identification_study(pair, subjects, replace(options, n_foils=2), tmp_path / "whole"))


def test_its_pages_say_what_was_measured(
    pair: Pair, subjects: SubjectSet, options: IdentificationOptions, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run, "save_figure", lambda *_: None)
    judge = tiny_encoder(5)
    several = replace(options, n_foils=2, seeds=(0, 1))
    summary = finish(identification_study(pair, subjects, several, tmp_path, judge=judge, draws=10))
    again = stored(summary)
    finished = Finished(STUDIES["identification"], again, "tiny")
    page, verdict = study_page(finished), verdict_page([finished])
    first = again.conclusion.sentences[0]
    assert first in page and first in verdict and first.startswith(f"On {pair_of(pair)}, ")
    assert "2 other pictures" in page and "As the outside judge sees the pictures" in page and "`tiny`" in page
    lines = STUDIES["identification"].report.lines(again, tmp_path)
    assert any(first in line for line in lines) and any(line.startswith("by layer") for line in lines)
    figure = shares_figure(again)
    drawn = next(line for line in figure.axes[1].lines if line.get_label() == "Steering Lens, decoded")
    assert list(drawn.get_ydata()) == [100 * estimate.value for estimate in again.main.by_layer]
    row = again.row("diffusion", "requested")
    assert row is not None and row.candidates == 3


def pair_of(pair: Pair) -> str:
    return Path(pair.name).name


def test_requested_embeddings_follow_their_equations(
    pair: Pair, subjects: SubjectSet, options: IdentificationOptions
) -> None:
    encoder, sites = pair.encoder, options.sites(pair.encoder.spec)
    reference = mean_residual(encoder, subjects, sites)
    traced = trace_all(encoder, subjects.reported, sites)
    part = undecoded(traced, 1, subjects.reported[1], (2,), options, reference)
    centred = encoder.spec.centred
    own, other = (encoder.trace(encoder.preprocess([subjects.reported[place].image])) for place in (1, 2))

    def size(vector: Tensor) -> Tensor:
        return visible_norm(vector, centred=centred)

    for row, site in enumerate(sites):
        base, h = own.final[0], own.at(site)[0]
        directions = {
            OWN: h,
            "foil0": other.at(site)[0],
            RANDOM: control_direction(site, 0, base),
        }
        for kind, direction in directions.items():
            steered = base + size(base) / size(direction) * direction  # rho = 1
            torch.testing.assert_close(part.requested[kind][row], encoder.readout(steered[None])[0])
        neutral = reference.final + size(reference.final) / size(h) * h
        torch.testing.assert_close(part.requested[NEUTRAL][row], encoder.readout(neutral[None])[0])
        torch.testing.assert_close(part.requested[DIFFUSION][row], encoder.readout(h[None])[0])
    wanted = torch.cosine_similarity(part.requested["foil0"], part.clean, dim=-1)
    torch.testing.assert_close(part.similarities["input"][2], wanted)


def made(seed: int, pictures: int = 4, heads: int = 3, *, foils: int = 2, known: float = 0.0) -> Identified:
    """Measurements of random embeddings; `known` of each own embedding is its picture's own."""
    generator = torch.Generator().manual_seed(seed)

    def noise(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    subjects = [Subject(str(place), picture(place), f"c{place // 2}") for place in range(pictures)]
    parts: list[IdentificationPart] = []
    for _ in range(pictures):
        clean = noise(8)

        def own(clean: Tensor = clean) -> Tensor:
            return known * clean + (1 - known) * noise(heads, 8)

        kinds = {OWN: own(), RANDOM: noise(heads, 8), NEUTRAL: own(), DIFFUSION: own()}
        kinds |= {f"foil{number}": noise(heads, 8) for number in range(foils)}
        decoded = {(kind, number): rows + 0.01 * noise(heads, 8) for kind, rows in kinds.items() for number in (0, 1)}
        parts.append(
            IdentificationPart(clean, requested=kinds, decoded=decoded, similarities={"input": noise(pictures, heads)})
        )
    random = RandomPart(noise(heads, 8), {0: noise(heads, 8), 1: noise(heads, 8)})
    sites = [Site("head", head // 2, head % 2) for head in range(heads)]
    concepts = [subject.concept for subject in subjects]
    return Identified(parts, random, concepts, foils_of(subjects, foils), sites, 20)


def cosine(a: Tensor, b: Tensor) -> float:
    return float(a @ b / a.norm() / b.norm())


def test_shares_are_plain_loops() -> None:
    found = made(0)
    summary = summarise(found, n_heads=3, strength=RHO, seeds=(0, 1), model="made")
    decoded, undecoded_, neutral, ranks = [], [], [], []
    for place, part in enumerate(found.parts):
        for head in range(3):

            def seen(kind: str, of: int = place, part: IdentificationPart = part, head: int = head) -> float:
                views = [found.parts[of].decoded[kind, number][head] for number in (0, 1)]
                return float(np.mean([cosine(view, part.clean) for view in views]))

            decoded += [float(seen(OWN) > seen(f"foil{number}")) for number in (0, 1)]
            others = [row for row in range(4) if found.concepts[row] != found.concepts[place]]
            similar = part.similarities["input"][:, head]
            undecoded_ += [float(similar[place] > similar[row]) for row in others]
            neutral += [float(seen(NEUTRAL) > seen(NEUTRAL, row)) for row in others]
            ranks.append(1 + sum(seen(NEUTRAL, row) > seen(NEUTRAL) for row in others))
    assert summary.main.share.value == pytest.approx(np.mean(decoded))
    row = summary.row(STEERING, "requested")
    assert row is not None and row.share.value == pytest.approx(np.mean(undecoded_)) and row.candidates == 3
    row = summary.row(STEERING_NEUTRAL, "decoded")
    assert row is not None and row.share.value == pytest.approx(np.mean(neutral))
    assert row.rank.value == pytest.approx(np.mean(ranks))
    assert summary.main.by_layer[1].value == pytest.approx(summary.heads["L1H0"])


def test_known_writes_are_identified_and_unknown_ones_at_chance() -> None:
    known = summarise(made(1, 8, known=0.9), n_heads=3, strength=RHO, seeds=(0, 1), model="made")
    assert known.main.share.value > 0.9 and known.main.share.above(0.6)
    assert (
        identification_bars(known)[0].verdict == "met" and "carry what a head writes" in known.conclusion.sentences[0]
    )
    shares = [
        float(made(seed, 8, 6).contest(lens, "decoded", "input").share().mean())
        for seed in range(12)
        for lens in (STEERING, STEERING_NEUTRAL, DIFFUSION)
    ]
    assert abs(np.mean(shares) - 0.5) < 0.05


def hubs(strength: float, pictures: int = 30) -> Identified:
    """Undecoded similarities, in which some pictures' writes are close to every input."""
    generator = torch.Generator().manual_seed(4)
    found = made(4, pictures, known=0.0)
    close = strength * torch.randn(pictures, 3, generator=generator)
    parts = [replace(part, similarities={"input": part.similarities["input"] + close}) for part in found.parts]
    return replace(found, parts=parts, draws=400, concepts=[str(place) for place in range(pictures)])


def test_intervals_draw_a_picture_as_input_and_as_a_source_of_writes() -> None:
    found = hubs(0.5)
    summary = summarise(found, n_heads=3, strength=RHO, seeds=(0, 1), model="made")
    row = summary.row(STEERING, "requested")
    assert row is not None and "other pictures alike" in summary.bootstrap
    contest = found.contest(STEERING, "requested", "input")
    pictures, _ = zip(*drawn_batches(found.concepts, 3, draws=400, heads=False), strict=True)
    drawn = torch.cat(pictures)
    values: list[float] = []
    for rows in drawn.tolist():
        each = [torch.stack([contest.won[row, foil].mean() for foil in rows if foil != row]).mean() for row in rows]
        values.append(float(torch.stack(each).mean()))
    low, high = np.quantile(values, [0.025, 0.975])
    assert (row.share.low, row.share.high) == pytest.approx((low, high), abs=1e-6)
    # An interval over inputs alone takes the other pictures for given.
    alone = contest.share().mean(dim=1)[drawn].mean(dim=1)
    assert row.share.high - row.share.low != pytest.approx(float(alone.quantile(0.975) - alone.quantile(0.025)), 0.02)


def test_a_sample_of_heads_widens_intervals_and_random_directions_always_do() -> None:
    found = made(1, 12, heads=4, known=0.3)
    # The second head of each layer is steered with the input itself.
    parts = [
        replace(part, decoded={key: _told(rows, part.clean, key[0] == OWN) for key, rows in part.decoded.items()})
        for part in found.parts
    ]
    found = replace(found, parts=parts)
    every = summarise(found, n_heads=4, strength=RHO, seeds=(0, 1), model="made")
    some = summarise(found, n_heads=12, strength=RHO, seeds=(0, 1), model="made")
    own, control = found.contest(STEERING, "decoded", "input"), found.control(STEERING, "decoded", "input")
    assert control is not None
    spread = head_variance(own.share(), [0, 0, 1, 1])
    wide = widened(every.main.share, 2 / 3 * spread)
    assert spread > 0 and some.main.share.low == pytest.approx(wide.low)
    assert some.main.share.low < every.main.share.low
    assert some.main.share.high == pytest.approx(min(1.0, wide.high))  # a share ends at 1
    drawn = mean_estimate(wins(own.own, control).mean(dim=1, keepdim=True), found.concepts, draws=20, heads=False)
    wanted = widened(drawn, head_variance(wins(own.own, control), [0, 0, 1, 1]))
    for summary in (every, some):  # one random direction of each head
        against = summary.main.own_against_random
        assert against is not None and against.low == pytest.approx(max(0.0, wanted.low), abs=1e-9)
    shares = [estimate for row in some.rows for estimate in (row.share, *row.by_layer, *row.random_by_layer, row.first)]
    assert all(0 <= estimate.low <= estimate.high <= 1 for estimate in shares)
    assert "of which a sample was studied" in some.bootstrap and "a sample" not in every.bootstrap
    page = study_page(Finished(STUDIES["identification"], stored(some), "tiny"))
    assert f"95 % intervals: {some.bootstrap}." in page
    # Summaries of earlier versions drew concepts alone, and say so.
    values = some.to_json()
    del values["bootstrap"]
    earlier = IdentificationSummary.from_json(values, "summary.json")
    page = study_page(Finished(STUDIES["identification"], earlier, "tiny"))
    assert "95 % intervals: bootstrap over concepts." in page


def _told(rows: Tensor, clean: Tensor, own: bool) -> Tensor:
    changed = rows.clone()
    if own:
        changed[1::2] = clean
    return changed


def test_the_variance_of_heads_is_that_of_a_model_with_random_heads() -> None:
    generator = torch.Generator().manual_seed(0)
    found: list[float] = []
    for _ in range(200):
        heads, pictures = 0.3 * torch.randn(24, generator=generator), torch.randn(30, 1, generator=generator)
        found.append(
            head_variance(pictures + heads + torch.randn(30, 24, generator=generator), [n // 2 for n in range(24)])
        )
    assert np.mean(found) == pytest.approx(0.09 / 24, rel=0.1)
    none = [
        head_variance(torch.randn(30, 24, generator=generator), [n // 2 for n in range(24)]) * 24 for _ in range(50)
    ]
    assert np.mean(none) < 0.01  # noise of single entries is no spread of heads
    assert head_variance(torch.rand(5, 1), [0]) == head_variance(torch.rand(1, 5), [0] * 5) == 0
    assert head_variance(torch.arange(4.0).expand(3, 4), [0, 1, 2, 3]) == pytest.approx(5 / 3 / 4)
    wide = widened(Estimate(0.5, 0.47, 0.54), 0.01**2)
    assert (wide.low, wide.high) == pytest.approx((0.5 - np.hypot(0.03, 0.0196), 0.5 + np.hypot(0.04, 0.0196)))
    assert widened(Estimate(0.5, 0.4, 0.6), 0.0) == Estimate(0.5, 0.4, 0.6)


def test_the_isotropic_control_stands_beside_every_layer_of_a_lens_that_has_one() -> None:
    identified = made(5, pictures=6, heads=3, known=0.5)
    summary = summarise(identified, n_heads=3, strength=RHO, seeds=(0, 1))
    row = summary.main
    own, random = (
        torch.stack([torch.stack([part.decoded[kind, seed] for seed in (0, 1)]) for part in identified.parts])
        for kind in (OWN, RANDOM)
    )
    clean = torch.stack([part.clean for part in identified.parts])[:, None, None]
    sides = [torch.cosine_similarity(rows, clean, dim=-1).mean(dim=1) for rows in (own, random)]
    won = (sides[0] > sides[1]).double()
    # Heads 0 and 1 are of layer 0, head 2 of layer 1.
    wanted = [float(won[:, :2].mean()), float(won[:, 2:].mean())]
    assert [estimate.value for estimate in row.random_by_layer] == pytest.approx(wanted)
    neutral = summary.row("steering, neutral base", "decoded")
    assert neutral is not None and neutral.random_by_layer == ()
    page = study_page(Finished(STUDIES["identification"], stored(summary), "tiny"))
    assert "The isotropic control: share" in page.split("## By layer")[1]
    assert "\n1. On this pair, " in page and "\n4. " in page


def with_shares(
    summary: IdentificationSummary, decoded: Estimate, requested: Estimate, layers: Sequence[Estimate]
) -> IdentificationSummary:
    """The summary with other shares of the Steering Lens, and with shares of its layers before decoding."""
    rows = {"decoded": {"share": decoded}, "requested": {"share": requested, "by_layer": tuple(layers)}}
    own = (replace(row, **rows[row.view]) if row.lens == STEERING and row.view in rows else row for row in summary.rows)
    return replace(summary, rows=tuple(own), layers=tuple(range(len(layers))))


def test_a_conclusion_claims_no_more_and_no_less_than_its_intervals() -> None:
    summary = summarise(made(2), n_heads=3, strength=RHO, seeds=(0, 1), model="tiny")
    below, high = Estimate(0.58, 0.57, 0.59), Estimate(0.97, 0.96, 0.98)
    low = Estimate(0.5, 0.4, 0.6)
    for estimate, words, together in (
        (Estimate(0.72, 0.65, 0.75), "decoded pictures carry what a head writes for this very picture: ", 1),
        (Estimate(0.65, 0.61, 0.68), "carry something of what a head writes for this very picture, but not enough", 2),
        (Estimate(0.66, 0.55, 0.76), "carry little of what a head writes for this very picture", 2),
        (Estimate(0.525, 0.505, 0.545), "hardly carry what a head writes for this very picture", 2),
        (Estimate(0.55, 0.45, 0.65), "are not shown to carry what a head writes", 2),
        (Estimate(0.3, 0.2, 0.4), "farther from the input more often than not", 2),
    ):
        conclusion = with_shares(summary, estimate, below, [low, high]).conclusion
        first = conclusion.sentences[0]
        assert words in first and first.startswith("On tiny, ") and "(guessing: 50%)" in first
        assert first.endswith(f"is {'met' if together == 1 else 'missed'}.") and share(estimate) in first
        assert conclusion.together == together and len(conclusion.sentences) <= 5
        # Foils are recommended only where pictures carry enough to compare.
        readable = "are not shown" not in first and "hardly" not in first and "farther" not in first
        assert ("--foils 1" in conclusion.next_step) == readable
    missed = Estimate(0.65, 0.61, 0.68)
    for before, layers, words in (
        (
            below,
            [low, low, high],
            "The decoder is not the limit, since one that returned the requested embedding would not reach the bar "
            "either: before decoding it is 58% [57, 59], and only layer 2 reaches 70% (97% [96, 98]), while the others "
            "have 50% to 50%.",
        ),
        (high, [high, high, low], "The decoder is the limit: before decoding it is 97% [96, 98], and 2 of 3 layers"),
        (Estimate(0.7, 0.5, 0.9), [low, low], "which leaves open whether the decoder is the limit; no layer reaches"),
        (high, [high, high], "and every layer reaches 70% by itself."),
        (below, [high, low, high, low], "and only layers 0 and 2 reach 70%, while"),
    ):
        assert words in with_shares(summary, missed, before, layers).conclusion.sentences[1]
    assert share(Estimate(0.5246, 0.505, 0.545)) == "52.5% [50.5, 54.5]" and share(high) == "97% [96, 98]"
    assert share(Estimate(0.5, 0.5, 0.5)) == "50% [50, 50]"


def test_layers_above_guessing_are_named_with_the_number_tested() -> None:
    summary = summarise(made(2), n_heads=3, strength=RHO, seeds=(0, 1), model="tiny")
    high, low = Estimate(0.9, 0.8, 1.0), Estimate(0.5, 0.4, 0.6)

    def words(*by_layer: Estimate) -> str:
        rows = tuple(replace(row, by_layer=by_layer) if row is summary.main else row for row in summary.rows)
        return layers_words(replace(summary, rows=rows, layers=(9, 10, 11)))

    assert "1 of 3 layers lies above guessing by itself: 11. Of 3 layers tested, one may" in words(low, low, high)
    assert "2 of 3 layers lie above guessing by themselves: 10 and 11. The intervals are" in words(low, high, high)
    assert words(low, low, low) == "In pictures, no single layer lies above guessing."
    assert words(high, high, high).endswith("every layer lies above guessing, from 90% [80, 100] on.")
    assert compared(Estimate(-0.1, -0.2, -0.05)) == "worse than"
    claims = identification_claims(summary)
    assert [claim.level for claim in claims[:4]] == [0.5, 0.7, 0.5, 0.7] and claims[2].estimate == summary.main.share


def test_an_encoder_without_a_decoder_is_studied_undecoded(
    pair: Pair, pair_folder: Path, subjects: SubjectSet, tmp_path: Path
) -> None:
    undecoded_pair = open_undecoded(StudySettings(model=str(pair_folder), device="cpu"))
    options = IdentificationOptions(undecoded_pair.decoder.spec.defaults, RHO, heads_per_picture=3)
    alone = finish(identification_study(undecoded_pair, subjects, options, tmp_path / "alone", draws=10))
    decoded = IdentificationOptions(quick(pair), RHO, heads_per_picture=3)
    whole = finish(identification_study(pair, subjects, decoded, tmp_path / "whole", draws=10))
    for row in alone.rows:
        same = whole.row(row.lens, "requested", row.compare)
        assert row.view == "requested" and same is not None and row.share.value == pytest.approx(same.share.value)
    assert alone.seeds == () and alone.fidelity is None and alone.main.view == "requested"
    again = stored(alone)
    page = study_page(Finished(STUDIES["identification"], again, "tiny"))
    assert "steered embeddings" in page and "nothing is decoded" in page and "identification-pictures" not in page
    assert not (tmp_path / "alone" / "figures" / "pictures.png").exists()
    assert [bar.verdict for bar in identification_bars(again)] in (["above chance"], ["NOT above chance"])
    resumed = finish(identification_study(undecoded_pair, subjects, options, tmp_path / "alone", draws=10))
    assert resumed == alone


def test_writes_that_never_differ_are_at_chance_exactly(pair: Pair, subjects: SubjectSet, tmp_path: Path) -> None:
    # The same picture under different concepts: own and foil are the same, and all ties count half.
    same = subjects.reported[0].image
    equal = tuple(replace(subject, image=same, other=None) for subject in subjects.reported)
    options = IdentificationOptions(quick(pair), RHO, heads_per_picture=3)
    summary = finish(identification_study(pair, replace(subjects, reported=equal), options, tmp_path, draws=10))
    for row in summary.rows:
        assert row.share.value == 0.5 and row.rank.value == (row.candidates + 1) / 2
        assert row.first.value == pytest.approx(1 / row.candidates)
    assert "not shown to carry" in summary.conclusion.sentences[0]


@given(st.integers(2, 5), st.integers(1, 4), st.integers(0, 1000))
def test_share_rank_and_first_agree(foils: int, heads: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    own = torch.randint(4, (3, heads), generator=generator).float()
    rows = torch.randint(4, (3, foils, heads), generator=generator).float()
    counts = torch.rand(3, foils, generator=generator) > 0.3
    counts[:, 0] = True
    contest = Contest(own, rows, counts)
    number = counts.sum(dim=1, keepdim=True)
    torch.testing.assert_close(contest.rank(), 1 + (1 - contest.share()) * number)
    assert bool(((contest.first() == 1) == (contest.rank() == 1)).all())
    assert bool(((contest.first() > 0) == ~((rows > own[:, None]) & counts[..., None]).any(dim=1)).all())


def test_foils_show_other_concepts_and_each_is_used_equally_often() -> None:
    subjects = [Subject(str(place), picture(place), f"c{place}") for place in range(5)]
    foils = foils_of(subjects, 3)
    assert all(place not in own and len(set(own)) == 3 for place, own in enumerate(foils))
    assert [sum(own.count(place) for own in foils) for place in range(5)] == [3] * 5
    with pytest.raises(UsageError, match="fewer than 5; give more pictures"):
        foils_of(subjects, 5)
    alike = [replace(subject, concept="cat") for subject in subjects]
    with pytest.raises(UsageError, match="0 pictures of other concepts"):
        foils_of(alike, 1)


def test_options_refuse_what_makes_no_study(options: IdentificationOptions) -> None:
    with pytest.raises(UsageError, match="at least 1 other picture"):
        replace(options, n_foils=0)
    with pytest.raises(UsageError, match="at least 1 seed"):
        replace(options, seeds=())
