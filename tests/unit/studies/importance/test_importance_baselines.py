"""Baselines of the importance study: the oracle, targets that mean nothing, recognised pictures, no decoder."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from made_importance import MAIN, SITES, made_choices, made_parts
from studied import finish, picture, quick, stored, subject_set

from steerlens.errors import UsageError
from steerlens.studies.importance.baselines import counted_rows, oracle_shares, target_nulls
from steerlens.studies.importance.conclusion import importance_claims, importance_conclusion
from steerlens.studies.importance.experiment import importance_study
from steerlens.studies.importance.findings import importance_bars, importance_findings
from steerlens.studies.importance.options import ImportanceOptions
from steerlens.studies.importance.results import ImportanceSummary, TargetNull
from steerlens.studies.importance.scored import score_pictures
from steerlens.studies.importance.scores import LESS_NORM, PLAIN_KIND, UNDECODED, oracle_scores
from steerlens.studies.importance.section import importance_section
from steerlens.studies.importance.summary import summarise
from steerlens.studies.importance.terminal import importance_lines
from steerlens.studies.shared import run
from steerlens.studies.shared.ablation import signed_effect
from steerlens.studies.shared.arguments import StudySettings
from steerlens.studies.shared.bench import make_bench
from steerlens.studies.shared.candidates import PLAIN, WEAKER
from steerlens.studies.shared.conclusion import Claim
from steerlens.studies.shared.effects import Effect
from steerlens.studies.shared.folder import StudyFolder, rounded
from steerlens.studies.shared.inputs import folder_sizes, load_subjects
from steerlens.studies.shared.measure import measure_effects
from steerlens.studies.shared.measurements import PicturePart, PictureTables
from steerlens.studies.shared.oracle import ORACLES, oracle_embeddings, oracle_name
from steerlens.studies.shared.partial import GIVEN_BOTH, LAYER, NORM
from steerlens.studies.shared.stats import Estimate, spearman
from steerlens.studies.shared.subjects import Subject
from steerlens.studies.shared.undecoded import NoDecoder, is_undecoded
from steerlens.zoo.pair import Pair

UNSIGNED = Effect("total", "", "mean")
CONCEPTS = [f"c{row}" for row in range(6)]


def with_oracle(tables: PictureTables) -> PictureTables:
    """Parts with an oracle that is decoded perfectly, and embeddings of every setting."""

    def complete(part: PicturePart) -> PicturePart:
        made = {oracle_name(kind): oracle_embeddings(part.clean, part.total["mean"], kind) for kind in ORACLES}
        decoded = {(name, 0): embeddings for name, embeddings in made.items()}
        requested = {**part.requested, **made, str(WEAKER): part.requested[str(PLAIN[0])]}
        return replace(part, requested=requested, decoded={**part.decoded, **decoded})

    return PictureTables([complete(part) for part in tables.parts])


def test_the_oracle_moves_the_embedding_by_the_true_effect() -> None:
    clean, ablated = torch.randn(2, 5, 8, generator=torch.Generator().manual_seed(0))
    clean, ablated = clean[0], ablated.clone()
    ablated[2] = clean  # a head without effect
    same, factor = (oracle_embeddings(clean, ablated, kind) - clean for kind in ORACLES)
    caused = clean - ablated
    assert not same[2].any() and not factor[2].any()
    for head in (0, 1, 3, 4):
        assert torch.allclose(same[head], caused[head] * clean.norm() / caused[head].norm(), atol=1e-5)
    torch.testing.assert_close(factor, caused * clean.norm() / caused.norm(dim=1).median())


def test_a_perfect_decoder_lets_the_oracle_tell_all_and_shares_are_of_it() -> None:
    # Small effects of very different sizes, in random directions.
    generator = torch.Generator().manual_seed(1)
    parts: list[PicturePart] = []
    for part in made_parts().parts:
        sizes = 10 ** (2 * torch.rand(len(SITES), 1, generator=generator) - 4)
        caused = sizes * torch.randn(len(SITES), part.clean.shape[0], generator=generator)
        parts.append(replace(part, total={**part.total, "mean": part.clean - caused}))
    tables = with_oracle(PictureTables(parts))
    found = oracle_scores(tables, UNSIGNED)[oracle_name("one factor")]
    assert float(spearman(found, UNSIGNED.table(tables)).mean()) > 0.7
    lens = score_pictures(tables, CONCEPTS, SITES, made_choices(), MAIN, 20).lens
    shares = list(oracle_shares(tables, [MAIN, UNSIGNED], lens, CONCEPTS, draws=20))
    assert len(shares) == 8 and {row.oracle for row in shares} == set(map(oracle_name, ORACLES))
    assert {(row.effect, row.score) for row in shares} == {
        (MAIN, "steering, plain, towards text"),
        (MAIN, "diffusion, plain, towards text"),
        (UNSIGNED, "steering, plain"),
        (UNSIGNED, "diffusion, plain"),
    }
    for row in shares:
        assert row.share.value == pytest.approx(row.own.value / row.most.value)
        assert row.undecoded == row.most  # nothing is lost by this decoder
    assert list(oracle_shares(made_parts(), [MAIN], lens, CONCEPTS, draws=5)) == []


def test_nulls_turn_score_and_effect_together() -> None:
    tables = made_parts(pictures=6)
    found = {row.score: row for row in target_nulls(tables, [MAIN, UNSIGNED], CONCEPTS, draws=5)}
    assert set(found) == {
        f"{lens}, plain{view}" for lens in ("steering", "diffusion") for view in ("", ", not decoded")
    }
    row = found["steering, plain, not decoded"]
    own = torch.stack([part.targets["text"] for part in tables.parts])
    embeddings, ablated = tables.requested(PLAIN[0]), tables.ablated("total", "mean")

    def plain(targets: torch.Tensor) -> float:
        score = torch.cosine_similarity(embeddings, targets[:, None], dim=-1)
        return float(spearman(score, signed_effect(tables.clean, ablated, targets)).mean())

    assert row.own.value == pytest.approx(plain(own))
    # With six concepts, eight steps go round the other five: the first three of them twice.
    steps = [1, 2, 3, 4, 5, 1, 2, 3]
    assert row.others.value == pytest.approx(sum(plain(own.roll(-step, dims=0)) for step in steps) / 8)
    assert list(target_nulls(tables, [MAIN], ["same"] * 6, draws=5)) == []


def test_only_recognised_pictures_count_towards_labels() -> None:
    parts = [
        replace(part, name_rank=torch.tensor(float(rank)))
        for part, rank in zip(made_parts().parts, (0, 4, 5, 900, 1, 2), strict=True)
    ]
    tables = PictureTables(parts)
    assert counted_rows(tables, MAIN) == [0, 1, 4, 5] and counted_rows(tables, UNSIGNED) == list(range(6))
    summary = finish(summarise(tables, CONCEPTS, SITES, made_choices(), MAIN, draws=5))
    assert (summary.n_recognised, summary.n_counted) == (4, 4)
    row = summary.row("steering, plain, not decoded", MAIN)
    few = PictureTables([parts[place] for place in (0, 1, 4, 5)])
    wanted = spearman(few.requested_scores(PLAIN[0], "input"), MAIN.table(few)).mean()
    assert row is not None and row.estimate.value == pytest.approx(float(wanted))
    assert "recognises 4 of 6 pictures" in importance_section(summary)
    # A picture whose label the vocabulary lacks has no rank, and is not recognised.
    nameless = PictureTables([replace(parts[0], name_rank=None), *parts[1:]])
    assert nameless.recognised == (1, 4, 5) and made_parts().recognised is None
    assert "whose label the vocabulary lacks counts as not recognised" in importance_section(summary)
    lost = PictureTables([replace(part, name_rank=torch.tensor(9.0)) for part in parts])
    assert counted_rows(lost, MAIN) == list(range(6))  # too few are recognised, so all count
    assert counted_rows(made_parts(), MAIN) == list(range(6))  # parts of the version before do not know


def test_the_conclusion_follows_the_figures_and_names_the_model() -> None:
    setup = finish(summarise(with_oracle(made_parts()), CONCEPTS, SITES, made_choices(), MAIN, draws=10))
    summary = replace(setup, setup=replace(setup.setup, model="made"))
    conclusion = importance_conclusion(summary)
    assert conclusion is not None and conclusion.sentences[0].startswith("On made, before decoding, the Steer")
    # The first sentence stands alone on the page of the model, so it holds the baselines that change its reading.
    assert "norm of a head's write, which needs no lens" in conclusion.sentences[0]
    assert "this norm and the layer held fixed" in conclusion.sentences[0]
    assert "amplified by one factor for all heads and decoded, reaches" in conclusion.sentences[2]
    assert "amplified to one length for all heads and decoded, reaches" in conclusion.sentences[2]
    assert stored(summary).to_json()["conclusion"]["next_step"] == conclusion.next_step
    words = {claim.words for claim in importance_claims(summary)}
    assert any("norm of the write and the layer held fixed" in text for text in words) and any(
        "in pictures" in text for text in words
    )
    lines = "\n".join(importance_lines(summary, Path("study")))
    assert "conclusion: On made" in lines and "next step: " in lines and "share of the decoded true effect" in lines
    assert importance_conclusion(replace(summary, rows=())) is None
    for name in (NORM, LAYER):
        row = summary.row(name, UNSIGNED)
        assert row is not None and summary.row(name, UNSIGNED, "given norm and layer") is None


@pytest.mark.parametrize(
    ("own", "less", "left", "words"),
    [
        (0.5, -0.3, 0.1, ("predicts how far", "more than the lens", "nothing certain is left")),
        (0.1, 0.0, 0.1, ("is not shown to predict", "not told apart", "nothing certain is left")),
        (0.8, 0.3, 0.5, ("predicts how far", "less than the lens", "something is left")),
    ],
)
def test_the_first_sentence_claims_no_more_than_its_intervals(
    own: float, less: float, left: float, words: tuple[str, ...]
) -> None:
    summary = finish(summarise(made_parts(), CONCEPTS, SITES, made_choices(), MAIN, draws=10))
    score, effect = f"steering, {PLAIN_KIND}, {UNDECODED}", summary.published

    def estimate(value: float) -> Estimate:
        return Estimate(value, value - 0.2, value + 0.2)

    values = {"spearman": own, GIVEN_BOTH: left}
    rows = tuple(
        replace(row, estimate=estimate(values[row.statistic]))
        if (row.score, row.effect) == (score, effect) and row.statistic in values
        else row
        for row in summary.rows
    )
    differences = tuple(
        replace(row, estimate=estimate(less))
        if (row.name, row.effect) == (f"{PLAIN_KIND}, {UNDECODED}{LESS_NORM}", effect)
        else row
        for row in summary.differences
    )
    conclusion = importance_conclusion(replace(summary, rows=rows, differences=differences))
    assert conclusion is not None and all(text in conclusion.sentences[0] for text in words)


def test_no_oracle_is_called_a_bound_and_the_lens_may_exceed_it() -> None:
    summary = finish(summarise(with_oracle(made_parts()), CONCEPTS, SITES, made_choices(), MAIN, draws=10))

    def decoded(most: Estimate, share: Estimate) -> str:
        oracle = tuple(replace(row, most=most, share=share) for row in summary.oracle)
        conclusion = importance_conclusion(replace(summary, oracle=oracle))
        assert conclusion is not None and "the most" not in conclusion.sentences[2]
        return conclusion.sentences[2]

    shown = Estimate(0.3, 0.2, 0.4)
    assert "the lens reaches +0.80 [+0.40, +1.40] of that" in decoded(shown, Estimate(0.8, 0.4, 1.4))
    assert "exceeds it by point estimate alone (+1.82 [+0.85, +4.46] of that)" in decoded(
        shown, Estimate(1.82, 0.85, 4.46)
    )
    assert "the lens exceeds it (+1.80 [+1.20, +2.00] of that)" in decoded(shown, Estimate(1.8, 1.2, 2.0))
    assert "not shown to differ from 0" in decoded(Estimate(0.1, -0.1, 0.3), Estimate(1.8, 1.2, 2.0))


def test_a_claim_about_the_label_must_exceed_other_labels() -> None:
    summary = finish(summarise(with_oracle(made_parts()), CONCEPTS, SITES, made_choices(), MAIN, draws=10))
    label, own = Effect("total", "text", "mean"), Estimate(0.48, 0.36, 0.57)
    score = f"steering, {PLAIN_KIND}, {UNDECODED}"
    rows = tuple(
        replace(row, estimate=own)
        if (row.effect, row.score) == (label, f"steering, plain, towards text, {UNDECODED}")
        else row
        for row in summary.rows
    )
    what = (
        "The Steering Lens predicts how much similarity with the label mean ablation of a head costs, before decoding"
    )

    def concluded(others: Estimate, counted: int = 11) -> tuple[str, dict[str, Claim]]:
        null = TargetNull(score, label, own, others, Estimate(0.1, 0.0, 0.2))
        found = replace(summary, rows=rows, nulls=(null,), n_concepts=24, n_recognised=counted, n_counted=counted)
        conclusion = importance_conclusion(found)
        assert conclusion is not None
        return " ".join(conclusion.sentences), {claim.words: claim for claim in importance_claims(found)}

    # The point estimate of the null lies below the interval, but its interval does not.
    text, claims = concluded(Estimate(0.3, 0.2, 0.4))
    assert "from which the own label is not told apart" in text and not claims[what].holds
    resting = [claim for claim in claims.values() if claim.rests_on is not None and claim.rests_on.words == what]
    assert len(resting) == 2 and not any(claim.holds for claim in resting)
    text, claims = concluded(Estimate(0.1, 0.0, 0.2))
    assert "so the label matters" in text and claims[what].holds
    assert not any("not told apart from other labels" in claim.note for claim in claims.values())
    # On few recognised pictures the interval is too narrow, however many others there were.
    few = concluded(Estimate(0.1, 0.0, 0.2), 5)[1]
    assert not few[what].holds and "few concepts (5)" in few[what].note
    assert not any(claim.narrow for words, claim in few.items() if "label" not in words)


def test_a_claim_about_pictures_and_the_label_is_compared_with_nulls_of_the_same_seed() -> None:
    summary = finish(summarise(with_oracle(made_parts()), CONCEPTS, SITES, made_choices(), MAIN, draws=10))
    label, own = Effect("total", "text", "mean"), Estimate(0.2, 0.1, 0.3)
    null = TargetNull(f"steering, {PLAIN_KIND}", label, own, Estimate(0.05, 0.0, 0.1), Estimate(0.0, -0.1, 0.1))
    found = {claim.words: claim for claim in importance_claims(replace(summary, nulls=(null,)))}
    what = "The Steering Lens predicts how much similarity with the label mean ablation of a head costs, in pictures"
    assert found[what].estimate == own and [name for name, _ in found[what].nulls] == ["other labels", "random vectors"]


def test_the_difference_of_the_lenses_is_claimed_with_the_baselines_held_fixed_too() -> None:
    summary = finish(summarise(with_oracle(made_parts()), CONCEPTS, SITES, made_choices(), MAIN, draws=10))
    claims = {claim.words: claim for claim in importance_claims(summary)}
    what = (
        "The Steering Lens predicts how far mean ablation of a head moves the embedding better than the Diffusion Lens "
        "does, with the norm of the write and the layer held fixed, before decoding"
    )
    held = summary.difference(f"{PLAIN_KIND}, {UNDECODED}", UNSIGNED, "given norm and layer")
    assert held is not None and claims[what].estimate == held.estimate and claims[what].leading


def undecoded(pair: Pair) -> Pair:
    return replace(pair, decoder=NoDecoder(pair.encoder.spec.embedding_size))


def test_an_encoder_is_studied_without_a_decoder_and_without_labels(
    pair: Pair, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run, "save_figure", lambda *_: None)
    alone = replace(undecoded(pair), vocabulary=None, texts=None)
    assert is_undecoded(alone) and not is_undecoded(pair)
    subjects = subject_set(pair, 0, 4, 4)
    lonely = replace(subjects, reported=tuple(replace(one, other=None) for one in subjects.reported))
    options = ImportanceOptions(quick(alone), seeds=(), decoding=False)
    summary = finish(importance_study(alone, lonely, options, tmp_path / "study", draws=10))
    assert summary.main == Effect("total", "", "mean") and not summary.setup.decoding and summary.choices.by_name == {}
    assert not any(score.startswith(("steering, chosen", "oracle")) for score in (row.score for row in summary.rows))
    page = importance_section(stored(summary))
    assert "nothing decoded" in page and "Effect of decoding" not in page and "No setting was chosen" in page
    assert importance_findings(summary) and all("rho=1" in bar.what for bar in importance_bars(summary))
    conclusion = importance_conclusion(summary)
    assert conclusion is not None and "without decoding pictures" in conclusion.sentences[-1]
    assert conclusion.sentences[2].startswith("Each head's exact direct effect") and len(conclusion.sentences) == 5
    part = PicturePart.from_tensors(StudyFolder(tmp_path / "study").part("report-p0"), "part")
    assert part.decoded == {} and str(WEAKER) in part.requested and part.targets == {}
    again = finish(importance_study(alone, lonely, options, tmp_path / "study", draws=10))
    assert rounded(again.to_json()) == rounded(summary.to_json())
    with pytest.raises(UsageError, match="without a decoder"):
        alone.decoder.decode_batches(None, [0])  # type: ignore[arg-type]
    with pytest.raises(UsageError, match=r"no target for all pictures.*--effect total-unsigned"):
        finish(importance_study(alone, lonely, options, tmp_path / "signed", signed=True))


def test_a_selection_without_a_decoder_chooses_for_embeddings_alone(
    pair: Pair, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run, "save_figure", lambda *_: None)
    subjects = subject_set(pair, 2, 3, 4)
    options = ImportanceOptions(quick(pair), seeds=(), decoding=False)
    summary = finish(importance_study(undecoded(pair), subjects, options, tmp_path / "study", draws=10))
    assert summary.choices.decoded == {} and set(summary.choices.undecoded) == {"steering", "diffusion"}
    back = stored(summary)
    assert isinstance(back, ImportanceSummary) and back.leading == "steering, chosen, not decoded"
    assert back.row(back.leading, back.main) is not None and "by scores of requested embeddings" in importance_section(
        back
    )


def test_a_picture_knows_the_rank_of_its_own_name(pair: Pair) -> None:
    subjects = subject_set(pair, 0, 2, 4)
    assert pair.vocabulary is not None
    bench = make_bench(pair, subjects.reference)
    for shown in subjects.reported:
        part = measure_effects(bench, shown, subjects.reported[0], ablations=("zero",))
        scores = pair.vocabulary.scores(part.clean[None])[0]
        better = [name for name, score in zip(pair.vocabulary.names, scores.tolist(), strict=True)]
        own = better.index(shown.concept)
        assert part.name_rank is not None and float(part.name_rank) == sum(
            float(s) > float(scores[own]) for s in scores
        )
    unknown = Subject("p", picture(3), "zzyzx", None)
    assert measure_effects(bench, unknown, subjects.reported[0], ablations=("zero",)).name_rank is None


@pytest.mark.parametrize(
    ("available", "given", "sizes"),
    [
        (12, (None, None), (0, 12)),
        (16, (None, None), (4, 12)),
        (40, (None, None), (6, 24)),
        (12, (None, 8), (4, 8)),
        (9, (None, 8), (0, 8)),
        (12, (4, None), (4, 8)),
        (12, (3, 5), (3, 5)),
    ],
)
def test_sizes_follow_the_folder(available: int, given: tuple[int | None, int | None], sizes: tuple[int, int]) -> None:
    assert folder_sizes(available, *given) == sizes


def test_messages_about_sizes_give_values_that_work(tmp_path: Path) -> None:
    for place in range(12):
        picture(place).save(tmp_path / f"photo {chr(97 + place)}.png")
    settings = StudySettings(images=tmp_path)
    found = load_subjects(settings, None, None, choosing=True)
    assert len(found.reported) == 12 and found.selection == ()
    with pytest.raises(UsageError, match=r"Enough for: --choose 3 --count 9\."):
        load_subjects(settings, 6, 24)
    assert len(load_subjects(settings, 3, 9).reported) == 9
    with pytest.raises(UsageError, match=r"Enough for: --count 6\."):
        load_subjects(settings, 12, 12)
    assert len(load_subjects(settings, 6, 6).reported) == 6
    with pytest.raises(UsageError, match=r"or none \(--choose 0\)"):
        load_subjects(settings, 1, 5, choosing=True)
    with pytest.raises(UsageError, match="at least 2 pictures to choose on and 2"):
        load_subjects(settings, 0, 5)
