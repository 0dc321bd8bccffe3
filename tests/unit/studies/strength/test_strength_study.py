"""The strength study on a tiny random pair: numbers against plain loops, resumable, its rule honest."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from studied import finish, quick, stored, subject_set
from torch import Tensor

from steerlens.errors import UsageError
from steerlens.lenses.strength import Strength
from steerlens.scores import cosine_similarity
from steerlens.studies import STUDIES
from steerlens.studies.page import Finished, study_page, verdict_page
from steerlens.studies.shared import run
from steerlens.studies.shared.bench import Bench, make_bench
from steerlens.studies.shared.effects import Effect
from steerlens.studies.shared.judge import judge_name
from steerlens.studies.shared.measurements import PicturePart, PictureTables
from steerlens.studies.shared.stats import Estimate, mean_estimate, ranks
from steerlens.studies.shared.subjects import Subject, SubjectSet
from steerlens.studies.shared.targets import target_for
from steerlens.studies.shared.typicality import fit_typicality
from steerlens.studies.strength.conclusion import strength_conclusion
from steerlens.studies.strength.experiment import strength_study
from steerlens.studies.strength.figures import sweep_figure
from steerlens.studies.strength.findings import choice_words, strength_bars
from steerlens.studies.strength.measure import steered_embeddings, unstudied_references
from steerlens.studies.strength.options import Bounds, StrengthOptions
from steerlens.studies.strength.scores import DECODED, JUDGED, UNDECODED, UNDECODED_SAME, Half
from steerlens.studies.strength.summary import correlations_of, recommend, sweep_point
from steerlens.testing.tiny import tiny_encoder
from steerlens.zoo.pair import Pair

SWEEP = (Strength("rho", 0.5), Strength("rho", 2.0), Strength("s", 20.0))


@pytest.fixture(scope="module")
def subjects(pair: Pair) -> SubjectSet:
    return subject_set(pair, 2, 2, 9)


@pytest.fixture(scope="module")
def bench(pair: Pair, subjects: SubjectSet) -> Bench:
    return make_bench(pair, subjects.reference)


@pytest.fixture(scope="module")
def options(pair: Pair) -> StrengthOptions:
    return StrengthOptions(quick(pair), SWEEP, heads_per_picture=3)


def test_the_study_resumes_to_the_same_summary(
    pair: Pair, subjects: SubjectSet, options: StrengthOptions, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = finish(strength_study(pair, subjects, options, tmp_path / "whole", draws=20))
    monkeypatch.setattr(run, "save_figure", lambda *_: None)  # once is enough
    broken = strength_study(pair, subjects, options, tmp_path / "broken")
    for event in broken:
        if event.stage == "decoding" and event.done > event.total / 2:
            break
    broken.close()
    kept = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "broken" / "parts").iterdir()}
    assert 0 < len(kept) < 4 and not (tmp_path / "broken" / "summary.json").exists()
    finish(strength_study(pair, subjects, options, tmp_path / "broken", draws=20))
    for name, time in kept.items():
        assert (tmp_path / "broken" / "parts" / name).stat().st_mtime_ns == time
    texts = [(tmp_path / name / "summary.json").read_text() for name in ("whole", "broken")]
    assert texts[0] == texts[1]
    assert json.loads(texts[0])["n_decoded"] == 3 and whole.n_references == 9
    table = pq.read_table(tmp_path / "whole" / "table.parquet")
    heads = pair.encoder.spec.n_layers * pair.encoder.spec.n_heads
    assert table.num_rows == 2 * heads * len(SWEEP)
    assert table["fidelity"].null_count == 2 * (heads - 3) * len(SWEEP) and table["rho"].null_count == 0
    for name in ("sweep", "choice", "pictures"):
        assert (tmp_path / "whole" / "figures" / f"{name}.png").read_bytes()[:4] == b"\x89PNG"
        assert b"<svg" in (tmp_path / "whole" / "figures" / f"{name}.svg").read_bytes()


def test_other_bounds_and_targets_need_no_new_measurement(
    pair: Pair, subjects: SubjectSet, options: StrengthOptions, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run, "save_figure", lambda *_: None)
    judge = tiny_encoder(5)
    loose, strict = Bounds(fidelity=-1.0, atypical=1.0), Bounds(fidelity=2.0, atypical=1.0)
    found = finish(strength_study(pair, subjects, options, tmp_path, bounds=loose, judge=judge, draws=10))
    assert found.recommendation.strength in {str(strength) for strength in SWEEP} and found.target == "text"
    assert {row.score for row in found.correlations} == {DECODED, UNDECODED, UNDECODED_SAME, JUDGED}
    assert {row.compare for row in found.correlations if row.score == JUDGED} == {"input"}  # a judge reads no texts
    for strength, correlation, step in (
        ("s=20", Estimate(-0.1, -0.2, 0.1), "take s=20 where steered embeddings should stay close to real ones, else"),
        ("s=20", Estimate(0.3, 0.2, 0.4), "steer with s=20 instead of the default, and read ranks of effects from"),
        (found.default, Estimate(0.1, -0.1, 0.3), "and do not read effects of ablation from pictures of any strength."),
        (found.default, Estimate(0.3, 0.2, 0.4), "and read ranks of effects from its pictures, but not sizes."),
    ):
        rule = replace(found.recommendation, strength=strength, correlation=correlation)
        conclusion = strength_conclusion(replace(found, recommendation=rule))
        assert step in conclusion.next_step and ("no correlation" in conclusion.sentences[0]) != correlation.above()
    parts = {path: path.stat().st_mtime_ns for path in (tmp_path / "parts").iterdir()}
    events = strength_study(pair, subjects, options, tmp_path, target="other", bounds=strict, judge=judge, draws=10)
    again = finish(events)
    assert again.recommendation.strength is None and not again.recommendation.runners_up and again.target == "other"
    assert {path: path.stat().st_mtime_ns for path in parts} == parts
    assert strength_bars(again)[0].value.startswith("none within the bounds")
    finished = Finished(STUDIES["strength"], stored(again))
    page = verdict_page([finished]) + study_page(finished)
    assert "| none within the bounds; the default is rho=1 |" in page and "The rule recommends **no strength**" in page
    # Decoded and undecoded scores stand side by side over the same heads, and say how many.
    n_heads = pair.encoder.spec.n_layers * pair.encoder.spec.n_heads
    headings = page.split("| strength | ")[1].split(" |\n")[0].split(" | ")
    assert headings[:2] == ["decoded (3 heads), other: signed", "not decoded (the same 3 heads), other: signed"]
    assert headings[-1] == f"not decoded (all {n_heads} heads), other: signed"
    figure = sweep_figure(again)
    assert {line.get_label() for line in figure.axes[0].lines if "decoded" in str(line.get_label())} == {
        f"{score}, with the {compare}" for score in ("decoded", "not decoded") for compare in ("other", "input")
    } | {"decoded, judged, with the input"}
    same = [row for row in again.correlations if row.score == UNDECODED_SAME and row.effect == again.main]
    wanted = [row.estimate.value for row in same if row.compare == "other" and row.statistic == "spearman"]
    drawn = next(line for line in figure.axes[0].lines if line.get_label() == "not decoded, with the other")
    assert list(drawn.get_ydata()) == wanted[:2]  # the two rho of the sweep
    assert "Few concepts (2): intervals are too narrow." in page and "3 heads" in figure.axes[0].get_ylabel()
    judged = judge_name(judge)
    assert judged is not None and again.judge == judged and judged.sha256[:12] in page
    with pytest.raises(UsageError, match="holds a study with another models"):
        finish(strength_study(pair, subjects, options, tmp_path))
    with pytest.raises(UsageError, match="holds a study with another options"):
        finish(strength_study(pair, subjects, replace(options, seeds=(1,)), tmp_path, judge=judge))


def test_no_steering_gives_the_clean_embedding_of_every_head(bench: Bench, subjects: SubjectSet) -> None:
    subject = subjects.reported[0]
    clean = bench.encoder.embed(bench.encoder.preprocess([subject.image]))
    for embeddings, rho in steered_embeddings(bench, subject, [Strength("rho", 0.0), Strength("s", 1.0)]).values():
        torch.testing.assert_close(embeddings, clean.expand_as(embeddings))
        assert rho.abs().max() == 0
        similarity = cosine_similarity(embeddings, subject_direction(bench, subject))
        torch.testing.assert_close(similarity, similarity[:1].expand_as(similarity))


def subject_direction(bench: Bench, subject: Subject) -> Tensor:
    return bench.pair.text_direction(subject.concept).float()


def test_relative_strengths_are_what_was_asked(bench: Bench, subjects: SubjectSet) -> None:
    steered = steered_embeddings(bench, subjects.reported[0], SWEEP[:2])
    for strength in SWEEP[:2]:
        _, rho = steered[str(strength)]
        torch.testing.assert_close(rho, torch.full_like(rho, strength.value))


def made_half(seed: int, quality: dict[str, float], strengths: tuple[Strength, ...], *, far: str = "") -> Half:
    """Parts whose decoded pictures know the effect as well as `quality` says; those of `far` are asked for far away."""
    generator = torch.Generator().manual_seed(seed)

    def noise(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    parts: list[PicturePart] = []
    for _ in range(6):
        clean, text = noise(8) + 2, noise(8)
        total = clean + 0.3 * noise(10, 8)
        effect = torch.cosine_similarity(clean, text, dim=0) - torch.cosine_similarity(total, text[None], dim=1)
        decoded: dict[tuple[str, int], Tensor] = {("clean", 0): clean[None] + 0.01 * noise(1, 8)}
        requested: dict[str, Tensor] = {}
        for strength in strengths:
            asked = -clean.expand(10, 8) if str(strength) == far else clean + 0.05 * noise(10, 8)
            known = quality[str(strength)] * effect[:, None] * text + (1 - quality[str(strength)]) * 0.3 * noise(10, 8)
            for number in (0, 1):
                # what the decoder makes of the far strength is no picture of what was asked for
                decoded[str(strength), number] = (clean + known + 0.001 * noise(10, 8))[2:]
            requested[str(strength)] = asked
        rho = {str(strength): torch.full((10,), strength.value) for strength in strengths}
        parts.append(
            PicturePart(
                clean, targets={"text": text}, total={"mean": total}, requested=requested, rho=rho, decoded=decoded
            )
        )
    real = torch.stack([part.clean for part in parts]) + 0.3 * noise(6, 8)
    typicality = fit_typicality(torch.cat([real, noise(20, 8) + 2]))
    concepts = [f"c{n}" for n in range(6)]
    return Half(PictureTables(parts), concepts, range(2, 10), Effect("total", "text", "mean"), typicality, 50)


def test_numbers_are_plain_loops() -> None:
    half = made_half(0, {"rho=1": 0.5}, (Strength("rho", 1.0),))
    one = Strength("rho", 1.0)
    rows = {(row.score, row.compare, row.effect, row.statistic): row.estimate for row in correlations_of(half, one)}
    point = sweep_point(half, one)
    decoded, asked, fidelity, similarity = [], [], [], []
    for part in half.tables.parts:

        def cosine(a: Tensor, b: Tensor) -> float:
            return float(a @ b / a.norm() / b.norm())

        text = part.targets["text"]
        effect = [cosine(part.clean, text) - cosine(row, text) for row in part.total["mean"]]
        per_seed = [[cosine(row, text) for row in part.decoded["rho=1", number]] for number in (0, 1)]
        score = np.mean(per_seed, axis=0)
        decoded.append(rank_correlation(score, effect[2:]))
        asked.append(rank_correlation([cosine(row, text) for row in part.requested["rho=1"]], effect))
        fidelity += [
            cosine(part.decoded["rho=1", number][head], part.requested["rho=1"][head + 2])
            for number in (0, 1)
            for head in range(8)
        ]
        similarity += list(score)
    signed = half.main
    assert rows[DECODED, "text", signed, "spearman"].value == pytest.approx(np.mean(decoded), abs=1e-6)
    assert rows[UNDECODED, "text", signed, "spearman"].value == pytest.approx(np.mean(asked), abs=1e-6)
    assert point.fidelity.value == pytest.approx(np.mean(fidelity), abs=1e-5)
    assert point.similarity[DECODED]["text"].value == pytest.approx(np.mean(similarity), abs=1e-5)
    assert point.rho == 1.0
    with_means = rows[UNDECODED, "text", signed, "interaction"]
    assert with_means.value != rows[UNDECODED, "text", signed, "spearman"].value and with_means.low <= with_means.high


def rank_correlation(a: object, b: object) -> float:
    first, second = (ranks(torch.tensor(np.asarray(side), dtype=torch.float64)[None])[0] for side in (a, b))
    return float(np.corrcoef(first, second)[0, 1])


def test_the_rule_takes_the_best_within_its_bounds_and_reports_elsewhere() -> None:
    strengths = (Strength("rho", 1.0), Strength("rho", 2.0), Strength("rho", 5.0))
    quality = {"rho=1": 0.0, "rho=2": 0.85, "rho=5": 1.0}
    chosen, reported = (made_half(seed, quality, strengths, far="rho=5") for seed in (1, 2))
    found = recommend(chosen, reported, strengths, Bounds(0.9, 0.9))
    assert found.strength == "rho=2", found.candidates  # rho=5 knows more, but nothing real is near it
    assert found.candidates["rho=5"].correlation > found.candidates["rho=2"].correlation
    assert not found.candidates["rho=5"].within and found.candidates["rho=5"].atypical == 1
    assert found.correlation is not None and found.differences is not None
    assert set(found.differences) == {"rho=1", "rho=5"} and "rho=1" not in found.runners_up
    assert found.correlation.value == pytest.approx(
        float(
            np.mean(
                [
                    rank_correlation(score, effect)
                    for score, effect in zip(
                        reported.scores(strengths[1], "text")[DECODED][0].numpy(),
                        reported.effects()[reported.main][:, 2:].numpy(),
                        strict=True,
                    )
                ]
            )
        ),
        abs=1e-6,
    )
    assert recommend(chosen, reported, strengths, Bounds(-1.0, 1.0)).strength == "rho=5"
    none = recommend(chosen, reported, strengths, Bounds(2.0, 1.0))
    assert none.strength is None and none.correlation is None
    assert "0.9" in found.rule and "text" in found.rule


def test_of_strengths_that_cannot_be_told_apart_the_one_that_moves_farthest_is_taken() -> None:
    strengths = (Strength("rho", 1.0), Strength("rho", 2.0))
    half = made_half(3, {"rho=1": 0.5, "rho=2": 0.5}, strengths)
    parts = [
        replace(part, decoded={**part.decoded, **{("rho=2", n): part.decoded["rho=1", n] for n in (0, 1)}})
        for part in half.tables.parts
    ]
    found = recommend(replace(half, tables=PictureTables(parts)), half, strengths, Bounds(-1.0, 1.0))
    assert (found.strength, found.best, found.runners_up) == ("rho=2", "rho=1", ("rho=2",))
    assert found.differences is not None and set(found.differences) == {"rho=1"}
    assert found.decided == "bounds" and "a convention" in found.rule
    words = choice_words(found)
    assert "**The correlation did not decide**" in words and "(rho=1, rho=2)" in words


def test_it_is_said_what_decided() -> None:
    strengths = (Strength("rho", 1.0), Strength("rho", 2.0), Strength("rho", 5.0))
    clear = [made_half(seed, {"rho=1": 0.0, "rho=2": 0.0, "rho=5": 0.97}, strengths) for seed in (1, 2)]
    found = recommend(*clear, strengths, Bounds(-1.0, 1.0))
    assert (found.decided, found.strength, found.runners_up) == ("correlation", "rho=5", ())
    assert "on the selection, rho=5 does better than every other" in choice_words(found)
    some = [made_half(seed, {"rho=1": 0.97, "rho=2": 0.0, "rho=5": 0.97}, strengths) for seed in (1, 2)]
    found = recommend(*some, strengths, Bounds(-1.0, 1.0))
    assert found.decided == "convention" and found.strength == "rho=5" and len(found.runners_up) == 1
    none = [made_half(seed, {"rho=1": 0.0, "rho=2": 0.0, "rho=5": 0.0}, strengths) for seed in (1, 2)]
    found = recommend(*none, strengths, Bounds(-1.0, 1.0))
    assert found.correlation is not None and not found.correlation.excludes_zero
    assert "**The interval includes 0**" in choice_words(found)


def test_references_that_are_studied_do_not_count(pair: Pair, subjects: SubjectSet) -> None:
    mixed = replace(subjects, reference=(subjects.reported[0].image, *subjects.reference, subjects.selection[1].image))
    found = unstudied_references(make_bench(pair, mixed.reference), mixed)
    torch.testing.assert_close(found, make_bench(pair, subjects.reference).reference.embeddings)


def test_a_target_that_is_not_there_is_told_before_anything_is_measured(pair: Pair, subjects: SubjectSet) -> None:
    lonely = replace(subjects, reported=tuple(replace(one, other=None) for one in subjects.reported))
    with pytest.raises(UsageError, match="no other picture of each concept"):
        target_for(pair, lonely, "other")
    assert target_for(pair, lonely) == "text"
    mute = replace(pair, vocabulary=None, texts=None)
    assert target_for(mute, subjects) == "other"
    with pytest.raises(UsageError, match="this model reads no texts"):
        target_for(mute, subjects, "text")


@given(st.integers(1, 5), st.integers(1, 6), st.integers(0, 100))
def test_intervals_of_means_hold_the_mean(pictures: int, heads: int, seed: int) -> None:
    table = torch.rand(pictures, heads, generator=torch.Generator().manual_seed(seed))
    found = mean_estimate(table, [f"c{row}" for row in range(pictures)], draws=20)
    assert found.value == pytest.approx(float(np.mean(table.numpy())), abs=1e-6)
    assert float(table.min()) - 1e-6 <= found.low <= found.high <= float(table.max()) + 1e-6
    same = mean_estimate(torch.full((pictures, heads), 0.25), ["c"] * pictures, draws=5)
    assert (same.value, same.low, same.high) == (0.25, 0.25, 0.25)


def test_options_refuse_what_makes_no_sweep(options: StrengthOptions) -> None:
    with pytest.raises(UsageError, match="at least 2 strengths"):
        replace(options, strengths=SWEEP[:1])
    with pytest.raises(UsageError, match="each of them once"):
        replace(options, strengths=(*SWEEP, SWEEP[0]))
    with pytest.raises(UsageError, match="at least 1 seed"):
        replace(options, seeds=())
