"""The decoder study on a tiny random pair: numbers against plain loops, resumable, times kept out of the summary."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file
from studied import finish, noise, picture, quick, stored
from torch import Tensor

from steerlens.errors import StoreError, UsageError
from steerlens.lenses.strength import Strength
from steerlens.scores import seed_agreement
from steerlens.studies import STUDIES
from steerlens.studies.decoder.conclusion import decoder_claims, decoder_conclusion
from steerlens.studies.decoder.experiment import decoder_study
from steerlens.studies.decoder.figures import seeds_figure
from steerlens.studies.decoder.findings import decoder_bars, decoder_findings, steps_words
from steerlens.studies.decoder.measure import SeedPicturesPart, SettingPart, SubjectPart, sampled_heads
from steerlens.studies.decoder.options import DecoderOptions, axis_of, setting_name, sweep
from steerlens.studies.decoder.results import DecoderSummary, SettingRow, SettingView
from steerlens.studies.decoder.scores import (
    Decodings,
    agreements,
    ceiling_statistic,
    noiseless_ceiling,
    noiseless_statistic,
    ranking_statistic,
    unrelated,
)
from steerlens.studies.decoder.summary import summarise
from steerlens.studies.page import Finished, study_page, verdict_page
from steerlens.studies.shared import run
from steerlens.studies.shared.judge import weights_hash
from steerlens.studies.shared.stats import Estimate, ranks
from steerlens.studies.shared.subjects import Subject, SubjectSet
from steerlens.testing.tiny import tiny_encoder
from steerlens.zoo.pair import Pair


def page_of(summary: DecoderSummary) -> str:
    """Both pages of the study, from its summary as a file keeps it."""
    finished = Finished(STUDIES["decoder"], stored(summary))
    return verdict_page([finished]) + study_page(finished)


@pytest.fixture(scope="module")
def subjects(pair: Pair) -> SubjectSet:
    assert pair.vocabulary is not None
    names = pair.vocabulary.names
    made = [Subject(f"p{n}", picture(n), names[n], picture(100 + n)) for n in range(3)]
    return SubjectSet(tuple(made[:1]), tuple(made[1:]), (), "random pictures")


@pytest.fixture(scope="module")
def options(pair: Pair) -> DecoderOptions:
    default = quick(pair, steps=2, guidance=2.0)
    settings = sweep(default, (1, 2), (1.0,), ("ddim",), ((0.0, 0.5),))
    return DecoderOptions(settings, Strength("rho", 1.0), seeds=(3, 4), reference_steps=3, reference_seeds=2, heads=3)


def test_a_sweep_differs_from_the_default_in_one_option_each(options: DecoderOptions) -> None:
    default = options.default
    assert [axis_of(one, default) for one in options.settings] == [
        "default",
        "steps",
        "guidance",
        *(["scheduler"] if default.scheduler != "ddim" else []),
        "guidance_interval",
    ]
    assert len({setting_name(one) for one in options.settings}) == len(options.settings)
    unguided = replace(default, guidance=1.0)
    assert all(one.guidance_interval == (0.0, 1.0) for one in sweep(unguided, (1,), (), (), ((0.0, 0.5),)))
    with pytest.raises(UsageError, match="in several options: steps, guidance"):
        replace(options, settings=(default, replace(default, steps=9, guidance=9.0)))


def test_no_seed_is_shared_with_the_reference(options: DecoderOptions) -> None:
    reference, *others = options.decodings()
    assert reference.setting.steps == 3 and reference.seeds == (5, 6)
    assert all(decoding.seeds == (3, 4) for decoding in others)
    assert len({decoding.name for decoding in options.decodings()}) == 1 + len(options.settings)


def test_pictures_of_seeds_are_labelled_with_the_seeds_that_made_them(
    pair: Pair, subjects: SubjectSet, options: DecoderOptions, tmp_path: Path
) -> None:
    few = replace(options, settings=options.settings[:1])
    summary = finish(decoder_study(pair, subjects, few, tmp_path, draws=5))
    assert summary.seeds == (3, 4) and summary.reference_seeds == (5, 6)
    part = SeedPicturesPart.from_tensors(load_file(tmp_path / "parts" / "pictures.safetensors"), "pictures")
    figure = seeds_figure(part, subjects.selection[0], sampled_heads(pair, few), summary)
    labels = [text.get_text() for text in figure.texts if "seed " in text.get_text()]
    assert labels == ["2 steps\nseed 3", "2 steps\nseed 4", "3 steps\nseed 5", "3 steps\nseed 6"]


def test_the_study_resumes_to_the_same_summary(
    pair: Pair, subjects: SubjectSet, options: DecoderOptions, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    judge = tiny_encoder(5)
    whole = finish(decoder_study(pair, subjects, options, tmp_path / "whole", judge=judge, draws=20))
    monkeypatch.setattr(run, "save_figure", lambda *_: None)  # once is enough
    broken = decoder_study(pair, subjects, options, tmp_path / "broken", judge=judge)
    for event in broken:
        if event.stage == "decoding" and event.done > event.total / 2:
            break
    broken.close()
    kept = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "broken" / "parts").iterdir()}
    assert any(name.startswith("reference") for name in kept) and not (tmp_path / "broken" / "summary.json").exists()
    finish(decoder_study(pair, subjects, options, tmp_path / "broken", judge=judge, draws=20))
    for name, time in kept.items():
        assert (tmp_path / "broken" / "parts" / name).stat().st_mtime_ns == time
    texts = [(tmp_path / name / "summary.json").read_text() for name in ("whole", "broken")]
    assert texts[0] == texts[1] and "seconds" not in texts[0]
    summary = json.loads(texts[0])
    assert summary["n_pictures"] == 3 and summary["n_decoded"] == 3 and summary["reference"]["judged"] is not None
    assert [row["passes"] for row in summary["rows"]] == [one.passes for one in options.settings]
    times = json.loads((tmp_path / "whole" / "timings.json").read_text())
    assert set(times) == {"reference", *(setting_name(one) for one in options.settings)}
    assert all(one["seconds"] > 0 for one in times.values())
    table = pq.read_table(tmp_path / "whole" / "table.parquet")
    assert table.num_rows == 3 * 3 * (1 + len(options.settings))
    assert set(table["site"].to_pylist()) == {str(site) for site in sampled_heads(pair, options)}
    for name in ("steps", "settings", "seeds"):
        assert (tmp_path / "whole" / "figures" / f"{name}.png").read_bytes()[:4] == b"\x89PNG"
        assert b"<svg" in (tmp_path / "whole" / "figures" / f"{name}.svg").read_bytes()
    assert summary["judge"] == {"name": Path(judge.spec.name).name, "sha256": weights_hash(judge)}
    page = page_of(whole)
    assert f"outside encoder, {summary['judge']['name']} (weights {summary['judge']['sha256'][:12]})" in page
    assert "**Few concepts (3): intervals are too narrow.**" in page
    with pytest.raises(UsageError, match="holds a study with another options"):
        finish(decoder_study(pair, subjects, replace(options, reference_steps=4), tmp_path / "whole", judge=judge))
    # The same judge from another folder is the same judge; another one of the same name is not.
    judge.declare(replace(judge.spec, name="elsewhere/copy"))
    finish(decoder_study(pair, subjects, options, tmp_path / "whole", judge=judge, draws=5))
    stranger = tiny_encoder(6)
    stranger.declare(replace(stranger.spec, name=judge.spec.name))
    with pytest.raises(UsageError, match="holds a study with another models"):
        finish(decoder_study(pair, subjects, options, tmp_path / "whole", judge=stranger))


def test_the_judge_compares_pictures_with_pictures_only(
    pair: Pair, subjects: SubjectSet, options: DecoderOptions, tmp_path: Path
) -> None:
    few = replace(options, settings=options.settings[:1], target="text")
    summary = finish(decoder_study(pair, subjects, few, tmp_path / "text", judge=tiny_encoder(5), draws=5))
    assert summary.reference.judged is None and summary.target == "text"
    mute = replace(pair, vocabulary=None, texts=None)
    with pytest.raises(UsageError, match="this model reads no texts"):
        finish(decoder_study(mute, subjects, few, tmp_path / "mute"))
    assert not (tmp_path / "mute").exists()


def rank_correlation(a: Tensor, b: Tensor) -> float:
    first, second = (ranks(side[None].double())[0] for side in (a, b))
    return float(np.corrcoef(first, second)[0, 1])


def test_rankings_are_compared_seed_by_seed_with_one_left_out() -> None:
    scores, reference = noise(2, 3, 7), noise(4, 3, 7, seed=1)
    everything = torch.arange(3)[None], torch.arange(7)[None]

    def rest(out: int, picture: int) -> Tensor:
        return torch.stack([reference[seed, picture] for seed in range(4) if seed != out]).mean(dim=0)

    plain = [
        rank_correlation(scores[seed, picture], rest(out, picture))
        for seed in range(2)
        for out in range(4)
        for picture in range(3)
    ]
    assert float(ranking_statistic(scores, reference)(*everything)[0]) == pytest.approx(np.mean(plain))
    ceiling = [
        rank_correlation(reference[out, picture], rest(out, picture)) for out in range(4) for picture in range(3)
    ]
    assert float(ceiling_statistic(reference)(*everything)[0]) == pytest.approx(np.mean(ceiling))
    drawn = ranking_statistic(scores, reference)(torch.tensor([[1, 1, 2]]), torch.tensor([[0, 3, 3, 5]]))
    by_hand = [
        rank_correlation(scores[seed, picture][[0, 3, 3, 5]], rest(out, picture)[[0, 3, 3, 5]])
        for seed in range(2)
        for out in range(4)
        for picture in (1, 1, 2)
    ]
    assert float(drawn[0]) == pytest.approx(np.mean(by_hand))


def test_a_ranking_without_noise_is_held_against_what_one_could_reach() -> None:
    """It knows all but the seeds' noise, and so reaches all of its ceiling: not more, as against one noisy seed."""
    truth = noise(40, 60)
    reference = truth + 1.2 * noise(4, 40, 60, seed=1)
    everything = torch.arange(40)[None], torch.arange(60)[None]
    reached = float(noiseless_statistic(truth, reference)(*everything)[0])
    ceiling = float(noiseless_ceiling(reference)(*everything)[0])
    assert reached / ceiling == pytest.approx(1, abs=0.02)
    assert reached / float(ceiling_statistic(reference)(*everything)[0]) > 1.3
    pairs = [
        rank_correlation(reference[i, picture], reference[j, picture])
        for i in range(4)
        for j in range(i)
        for picture in range(40)
    ]
    single = float(np.mean(pairs))
    assert ceiling == pytest.approx((4 * single / (1 + 3 * single)) ** 0.5)
    torn = noise(1, 5, 60) * torch.tensor([1.0, -1.0])[:, None, None]
    assert noiseless_ceiling(torn)(torch.arange(5)[None], torch.arange(60)[None]).isnan().all()


@given(st.integers(2, 5), st.integers(2, 4), st.integers(1, 3), st.integers(0, 1000))
def test_agreements_are_mean_pairwise_cosines(seeds: int, pictures: int, heads: int, seed: int) -> None:
    made = noise(seeds, pictures, heads, 5, seed=seed)
    found = agreements(made)
    for row in range(pictures):
        for head in range(heads):
            assert float(found[row, head]) == pytest.approx(seed_agreement(made[:, row, head]), abs=1e-9)
    unit = made / made.norm(dim=-1, keepdim=True)
    pairs = [
        float(unit[s, p, head] @ unit[t, q, head])
        for head in range(heads)
        for p in range(pictures)
        for q in range(pictures)
        if p != q
        for s in range(seeds)
        for t in range(seeds)
    ]
    assert unrelated(made) == pytest.approx(np.mean(pairs), abs=1e-9)
    torch.testing.assert_close(agreements(made[:1].expand(3, -1, -1, -1)), torch.ones(pictures, heads).double())


def made_decodings(options: DecoderOptions, blur: dict[int, float]) -> Decodings:
    """Pictures that show what was asked for, with noise of each seed and more of it at fewer steps."""
    clean, asked = noise(5, 6, seed=1), noise(5, 12, 6, seed=2)

    def parts(steps: int, seeds: int, number: int) -> list[SettingPart]:
        made = asked[:, None] + (0.2 + blur[steps]) * noise(5, seeds, 12, 6, seed=number)
        return [SettingPart(rows, torch.tensor(0.5)) for rows in made]

    settings = [parts(one.steps, len(options.seeds), 10 + number) for number, one in enumerate(options.settings)]
    return Decodings(
        [SubjectPart(one, rows) for one, rows in zip(clean, asked, strict=True)],
        parts(options.reference_steps, options.reference_seeds, 9),
        settings,
        [f"c{n}" for n in range(5)],
        "input",
        draws=20,
    )


def test_the_fewest_steps_that_rank_as_the_reference_does(options: DecoderOptions) -> None:
    default = options.default
    steps = replace(options, settings=sweep(replace(default, steps=8), (2, 4, 16), (), ()), reference_seeds=4)
    found = made_decodings(steps, {2: 3.0, 4: 0.05, 8: 0.0, 16: 0.0, 3: 0.0})
    summary = summarise(found, steps, 12, 0.9)
    assert summary.cheapest_steps == 4 and len(summary.reaching) == 3
    assert [name.split(",")[1] for name in summary.reaching] == [" 4 steps", " 8 steps", " 16 steps"]
    few = next(row for row in summary.rows if row.steps == 2)
    assert few.own.share.value < 0.9 and few.fidelity.value < summary.rows[0].fidelity.value
    assert summary.reference.own.share.value == pytest.approx(1) and summary.reference.axis == "reference"
    assert summary.invented.value == pytest.approx(1 - summary.rows[0].own.agreement.value)
    assert summary.invented.low <= summary.invented.value <= summary.invented.high
    assert summary.undecoded.value > 0.9  # what was asked for is what the pictures show
    assert summary.undecoded_share.value == pytest.approx(summary.undecoded.value / summary.undecoded_ceiling.value)
    assert 0.9 < summary.undecoded_share.value < 1.1
    assert summarise(found, steps, 12, 1.0).wanted == 1.0
    with pytest.raises(StoreError, match="do not fit its settings"):
        summarise(replace(found, settings=found.settings[1:]), steps, 12, 0.9)


@pytest.mark.parametrize(("most", "said"), [(0.7, True), (0.9, False)])
def test_where_no_steps_are_enough_it_is_said_whether_more_would_help(most: float, said: bool) -> None:
    def row(steps: int, value: float) -> SettingRow:
        share = Estimate(value, value - 0.2, value + 0.2)
        view = SettingView(share, share, share, 0.0)
        return SettingRow(str(steps), "steps" if steps > 6 else "default", steps, steps, share, view)

    def summary(*rows: SettingRow) -> DecoderSummary:
        none = rows[0].fidelity
        return DecoderSummary(
            *(2, 2, 6, 6, (0, 1), (2, 3), "rho=1", "input", rows[-1], (0.5, 0.6), none, none, none, rows, 0.95),
            *((), (), None, None, none),
        )

    found = summary(row(6, 0.8), row(50, most))
    words = steps_words(found)
    assert "No number of steps of the sweep reaches it" in words and f"The largest number, 50, has {most:+.2f}" in words
    assert ("more steps than the default are not shown to help" in words) == said
    assert decoder_bars(found)[0].verdict == "undecided"
    assert decoder_bars(summary(row(6, 0.7)))[0].verdict == "TOO FEW"
    # Ranks without decoding replace those of pictures only if both are shown to agree.
    agree, apart = (replace(found, undecoded=Estimate(0.4, low, 0.7), n_concepts=24) for low in (0.1, -0.1))
    assert "rank heads without decoding" in decoder_conclusion(agree).next_step
    assert "decoding agree with those" in decoder_conclusion(agree).sentences[2]
    step = decoder_conclusion(apart).next_step
    assert "without decoding" not in step and step.endswith("neither replaces the other.")
    # Of few concepts the interval is too narrow, so that nothing is shown by it.
    few = replace(agree, n_concepts=2)
    assert all("few concepts (2)" in claim.note and not claim.holds for claim in decoder_claims(few))
    assert decoder_claims(agree)[0].holds and "not shown to agree" in decoder_conclusion(few).sentences[2]
    assert decoder_conclusion(few).next_step.endswith("neither replaces the other.")


def test_what_noise_changes_stands_beside_what_another_input_changes(options: DecoderOptions) -> None:
    settings = sweep(replace(options.default, steps=8), (2, 4, 16), (), ())
    steps = replace(options, settings=settings, reference_seeds=4)
    found = summarise(made_decodings(steps, {2: 3.0, 4: 0.25, 8: 0.0, 16: 0.0, 3: 0.0}), steps, 12, 0.8)
    view = replace(found.default.own, agreement=Estimate(0.88, 0.86, 0.9), unrelated=0.75)
    told = replace(found, rows=(replace(found.default, own=view), *found.rows[1:]))
    sentence = decoder_conclusion(told).sentences[1]
    assert "agree by +0.88 [+0.86, +0.90]" in sentence and "different inputs agree by +0.75" in sentence
    assert "different inputs it is +0.25" in decoder_findings(told)[1].text
    alone = replace(view, unrelated=float("nan"))
    told = replace(found, rows=(replace(found.default, own=alone), *found.rows[1:]))
    assert "different inputs" not in decoder_conclusion(told).sentences[1]


def test_steps_that_are_enough_by_chance_are_not_called_certain(options: DecoderOptions) -> None:
    settings = sweep(replace(options.default, steps=8), (2, 4, 16), (), ())
    steps = replace(options, settings=settings, reference_seeds=4)
    found = made_decodings(steps, {2: 3.0, 4: 0.25, 8: 0.0, 16: 0.0, 3: 0.0})
    by_point = summarise(found, steps, 12, 0.8)
    shares = {row.steps: row.own.share for row in by_point.rows}
    assert shares[4].value > 0.8 > shares[4].low and shares[8].low > 0.8
    assert (by_point.cheapest_steps, by_point.certain_steps) == (4, 8)
    assert set(by_point.certain) < set(by_point.reaching)
    assert decoder_bars(by_point)[0].value.startswith("4 by point estimate, 8 by the interval's lower")
    page = page_of(by_point)
    assert "as a point estimate: **4**, share" in page and "So 8 steps are enough" in page
    hard = summarise(found, steps, 12, 0.99)
    assert hard.cheapest_steps is not None and hard.certain_steps is None and hard.certain == ()
    assert decoder_bars(hard)[0].verdict == "enough by point estimate"
    page = page_of(hard)
    assert "reaches 0.99 too: **none**" in page and "Recommended: no fewer than 8 steps" in page


def test_a_reference_that_does_not_agree_with_itself_is_no_bar(options: DecoderOptions) -> None:
    found = made_decodings(options, {1: 0.0, 2: 0.0, 3: 0.0})
    # two seeds that rank heads in opposite orders
    score = torch.linspace(-1, 1, 12)
    clean = found.subjects[0].clean.float()
    across = torch.linalg.svd(clean[None]).Vh[1]
    rows = [(score * sign)[:, None] * clean / clean.norm() + across for sign in (1, -1)]
    torn = [SettingPart(torch.stack(rows), torch.tensor(0.5))]
    one = replace(
        found,
        subjects=found.subjects[:1],
        reference=torn,
        settings=[parts[:1] for parts in found.settings],
        concepts=["c"],
    )
    summary = summarise(one, options, 12, 0.9)
    assert summary.reference.own.rank_correlation.value == pytest.approx(-1)
    assert summary.cheapest_steps is None and summary.reaching == ()
    page = page_of(summary)
    assert "undecided" in page and "as a point estimate: **none**" in page and "agree by undefined" in page


def test_options_refuse_what_makes_no_comparison(options: DecoderOptions) -> None:
    default = options.default
    with pytest.raises(UsageError, match="does not denoise"):
        replace(options, settings=(replace(default, scheduler="none"),))
    with pytest.raises(UsageError, match="each of them once"):
        replace(options, settings=(default, default))
    for few in ({"seeds": (0,)}, {"reference_seeds": 1}):
        with pytest.raises(UsageError, match="at least 2 seeds"):
            replace(options, **few)


def test_the_share_that_is_enough_is_a_share(
    pair: Pair, subjects: SubjectSet, options: DecoderOptions, tmp_path: Path
) -> None:
    for share in (0.0, 1.5):
        with pytest.raises(UsageError, match="between 0 and 1"):
            finish(decoder_study(pair, subjects, options, tmp_path / "study", wanted=share))
    assert not (tmp_path / "study").exists()
