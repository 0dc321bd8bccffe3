"""The study of candidate lenses on a tiny random pair: numbers against plain loops, choices frozen, resumable."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from studied import finish, picture, quick, stored, subject_set
from torch import Tensor

from steerlens.decoders.neighbours import build_index
from steerlens.errors import StoreError, UsageError
from steerlens.lenses import Strength
from steerlens.profiles import measured_faithfulness
from steerlens.sites import Site
from steerlens.studies import STUDIES
from steerlens.studies.lenses.bank import Bank, Names, PictureSource, index_source, names_of, prototypes
from steerlens.studies.lenses.conclusion import LAYER, NORM, lenses_claims
from steerlens.studies.lenses.experiment import lenses_experiment, lenses_study
from steerlens.studies.lenses.measure import CLEAN, step_name
from steerlens.studies.lenses.options import CONTRAST, KINDS, PICTURE, RETRIEVAL, CandidateLens, LensesOptions
from steerlens.studies.lenses.results import LensRow, TransferRow
from steerlens.studies.lenses.scores import NamedScores
from steerlens.studies.lenses.summary import choose, summarise
from steerlens.studies.page import Finished, study_page, verdict_page
from steerlens.studies.shared import run
from steerlens.studies.shared.measurements import PicturePart, PictureTables
from steerlens.studies.shared.neighbours import nearest, only_near
from steerlens.studies.shared.stats import Estimate, drawn_batches, ranks, spearman
from steerlens.studies.shared.subjects import SubjectSet
from steerlens.studies.shared.transfer import STEPS
from steerlens.studies.shared.undecoded import NoDecoder
from steerlens.testing.tiny import tiny_encoder
from steerlens.zoo.pair import Pair

RHO = Strength("rho", 1.0)


@pytest.fixture(scope="module")
def subjects(pair: Pair) -> SubjectSet:
    return subject_set(pair, 2, 2, 4)


@pytest.fixture(scope="module")
def options(pair: Pair) -> LensesOptions:
    return LensesOptions(quick(pair), (RHO,), (1, 2), heads_per_picture=3)


@pytest.fixture(scope="module")
def source(pair: Pair) -> PictureSource:
    assert pair.vocabulary is not None
    names = tuple(pair.vocabulary.names[number % 3] for number in range(9))
    return PictureSource(names, {"source": "random"}, lambda indices: [picture(500 + number) for number in indices])


def test_the_study_resumes_to_the_same_summary(
    pair: Pair,
    subjects: SubjectSet,
    options: LensesOptions,
    source: PictureSource,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    whole = finish(lenses_study(pair, subjects, options, tmp_path / "whole", source=source, draws=20))
    for name in ("scores", "pictures"):
        assert (tmp_path / "whole" / "figures" / f"{name}.png").read_bytes()[:4] == b"\x89PNG"
    monkeypatch.setattr(run, "save_figure", lambda *_: None)  # once is enough
    broken = lenses_study(pair, subjects, options, tmp_path / "broken", source=source)
    for event in broken:
        if event.stage == "decoding" and event.done > event.total / 2:
            break
    broken.close()
    kept = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "broken" / "parts").iterdir()}
    assert 3 <= len(kept) < 6 and not (tmp_path / "broken" / "summary.json").exists()
    finish(lenses_study(pair, subjects, options, tmp_path / "broken", source=source, draws=20))
    for name, time in kept.items():
        assert (tmp_path / "broken" / "parts" / name).stat().st_mtime_ns == time
    texts = [(tmp_path / name / "summary.json").read_text() for name in ("whole", "broken")]
    assert texts[0] == texts[1]
    values = json.loads(texts[0])
    assert values["n_bank"] == 9 and values["n_studied"] == 3
    assert values["conclusion"]["sentences"] == list(whole.conclusion.sentences)
    frozen = json.loads((tmp_path / "whole" / "choice.json").read_text())["choices"]
    assert {kind: frozen[kind]["setting"] for kind in KINDS} == {
        kind: str(choice.setting) for kind, choice in whole.choices.items()
    }
    assert {row.name for row in whole.rows} == {*KINDS, NORM, LAYER}
    table = pq.read_table(tmp_path / "whole" / "table.parquet")
    assert table.num_rows == 6 and f"transfer: {whole.choices[CONTRAST].setting}" in table.column_names
    with pytest.raises(UsageError, match="holds a study with another bank"):
        finish(lenses_study(pair, subjects, options, tmp_path / "whole"))


def test_without_a_decoder_requested_embeddings_and_real_pictures_are_scored(
    pair: Pair, subjects: SubjectSet, options: LensesOptions, source: PictureSource, tmp_path: Path
) -> None:
    bare = replace(pair, decoder=NoDecoder(pair.encoder.spec.embedding_size))
    undecoded = replace(options, decode=bare.decoder.spec.defaults)
    experiment = lenses_experiment(bare, subjects, undecoded, source=source, draws=20)
    assert experiment.work().n_decoded == 0
    summary = finish(run.run_experiment(experiment, tmp_path / "bare"))
    assert not summary.decodes and summary.seeds == () and summary.transfer == () and not list(summary.missing())
    assert {(row.name, row.view) for row in summary.rows} == {
        *((kind, "requested") for kind in (PICTURE, CONTRAST)),
        *((name, "decoded") for name in (RETRIEVAL, NORM, LAYER)),
    }
    # With the settings of the study that decodes, undecoded scores and real pictures are the same.
    whole = finish(lenses_study(pair, subjects, options, tmp_path / "whole", source=source, draws=20))
    for kind, view in ((PICTURE, "requested"), (CONTRAST, "requested"), (RETRIEVAL, "decoded")):
        if summary.choices[kind].setting == whole.choices[kind].setting:
            row, same = summary.row(kind, view), whole.row(kind, view)
            assert row is not None and same is not None
            assert row.correlation.value == pytest.approx(same.correlation.value, abs=1e-4)
    assert (tmp_path / "bare" / "figures" / "scores.png").exists()
    assert not (tmp_path / "bare" / "figures" / "pictures.png").exists()
    again = stored(summary)
    page = study_page(Finished(STUDIES["lenses"], again, "tiny"))
    assert "nothing is decoded" in page and "## Transfer" not in page and "before decoding" in page
    claims = [claim.words for claim in lenses_claims(again) if not claim.what.startswith("Real pictures")]
    assert claims and all(words.endswith(", before decoding") for words in claims)
    assert finish(run.run_experiment(experiment, tmp_path / "bare")) == summary
    # Cards show decoded pairs, of which this study says nothing.
    assert [measured.of for measured in measured_faithfulness(pair.name, tmp_path / "bare")] == [RETRIEVAL]


def test_its_pages_say_what_was_measured(
    pair: Pair,
    subjects: SubjectSet,
    options: LensesOptions,
    source: PictureSource,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(run, "save_figure", lambda *_: None)
    events = lenses_study(pair, subjects, options, tmp_path / "a", source=source, judge=tiny_encoder(5), draws=10)
    summary = stored(finish(events))
    finished = Finished(STUDIES["lenses"], summary, "tiny")
    page, verdict = study_page(finished), verdict_page([finished])
    first = summary.conclusion.sentences[0]
    assert first in page and first in verdict and "9 real pictures" in page
    assert {row.name for row in summary.rows if row.view == "judged"} == set(KINDS) and summary.n_judged == 3
    assert "As the outside judge sees the pictures (3 names)" in page
    assert any(first in line for line in STUDIES["lenses"].report.lines(summary, tmp_path))
    assert len(lenses_claims(summary)) == 6 and not any("norm" in claim.what for claim in lenses_claims(summary))
    assert "near 0 by construction" in page and "norm" not in first
    # Without a bank, real pictures are left out, and the page says so.
    without = stored(finish(lenses_study(pair, subjects, options, tmp_path / "b", draws=10)))
    assert without.n_bank == 0 and RETRIEVAL not in without.choices
    assert "Real pictures were left out" in study_page(Finished(STUDIES["lenses"], without, "tiny"))


def cosine(a: Tensor, b: Tensor) -> float:
    return float(a @ b / a.norm() / b.norm())


def correlation(a: list[float], b: list[float]) -> float:
    first, second = (ranks(torch.tensor(side, dtype=torch.float64)[None])[0].numpy() for side in (a, b))
    return float(np.corrcoef(first, second)[0, 1])


LENSES = {
    PICTURE: CandidateLens(PICTURE, RHO, centred=False),
    CONTRAST: CandidateLens(CONTRAST, RHO),
    RETRIEVAL: CandidateLens(RETRIEVAL, RHO, k=2),
}


def made(seed: int, *, known: float = 0.0, pictures: int = 3, heads: int = 4) -> NamedScores:
    """Random measurements; pairs of decoded pictures move by `known` times what ablation removes."""
    generator = torch.Generator().manual_seed(seed)

    def noise(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    directions = torch.nn.functional.normalize(noise(5, 8), dim=-1)
    parts: list[PicturePart] = []
    for _ in range(pictures):
        clean = noise(8)
        total = clean + 0.3 * noise(heads + 1, 8)
        lost = (clean - total)[1:]
        decoded: dict[tuple[str, int], Tensor] = {}
        requested: dict[str, Tensor] = {}
        for lens in LENSES.values():
            for sign, setting in zip((1, -1), (lens.towards, lens.away), strict=True):
                requested[str(setting)] = clean + 0.3 * sign * noise(heads + 1, 8)
                for number in (0, 1):
                    moved = known * lost + (1 - known) * 0.3 * noise(heads, 8)
                    decoded[str(setting), number] = clean + sign * moved
        for number in (0, 1):
            decoded[CLEAN, number] = clean[None] + 0.01 * noise(1, 8)
        for step in STEPS:
            requested[step_name(step)] = clean + step * noise(1, 8)
            for number in (0, 1):
                decoded[step_name(step), number] = clean + noise(1, 8)
        parts.append(
            PicturePart(clean, total={"mean": total}, norm=noise(heads + 1).abs(), requested=requested, decoded=decoded)
        )
    bank = Bank(tuple("abcabcabc"), noise(9, 8), None)
    names = Names(tuple("abcde"), directions, None, (), "random")
    sites = [Site("head", 0, head) for head in range(heads + 1)]
    concepts = [f"c{place}" for place in range(pictures)]
    return NamedScores(PictureTables(parts), concepts, sites, range(1, heads + 1), names, bank, "mean", 20)


def test_correlations_are_plain_loops() -> None:
    scores = made(0)
    assert scores.bank is not None
    found = {kind: scores.correlations(lens).mean() for kind, lens in LENSES.items()}
    wanted: dict[str, list[float]] = {kind: [] for kind in KINDS}
    for part in scores.tables.parts:
        for t in scores.names.directions:
            effect = [cosine(part.clean, t) - cosine(row, t) for row in part.total["mean"][1:]]
            rows: dict[str, list[float]] = {kind: [] for kind in KINDS}
            for head in range(4):

                def seen(setting: object, part: PicturePart = part, head: int = head, t: Tensor = t) -> float:
                    return float(np.mean([cosine(part.decoded[str(setting), number][head], t) for number in (0, 1)]))

                rows[PICTURE].append(seen(LENSES[PICTURE].towards))
                rows[CONTRAST].append(seen(LENSES[CONTRAST].towards) - seen(LENSES[CONTRAST].away))
                changed = part.requested[str(LENSES[RETRIEVAL].towards)][head + 1]
                sides: list[float] = []
                for side in (changed, part.clean - (changed - part.clean)):
                    order = sorted(scores.bank.embeddings, key=lambda row, side=side: -cosine(row, side))
                    sides.append(float(np.mean([cosine(row, t) for row in order[:2]])))
                rows[RETRIEVAL].append(sides[0] - sides[1])
            for kind in KINDS:
                wanted[kind].append(correlation(rows[kind], effect))
    for kind in KINDS:
        assert float(found[kind]) == pytest.approx(np.mean(wanted[kind]), abs=1e-5), kind


def test_intervals_draw_a_sample_of_heads_as_well_as_pictures() -> None:
    scores = replace(made(5, heads=5), draws=60)
    choices = choose(scores, {kind: (lens,) for kind, lens in LENSES.items()})
    summary = summarise(scores, choices, n_selection=3, seeds=(0, 1))
    assert "over heads within their layers" in summary.bootstrap
    drawn = drawn_batches(scores.concepts, 5, draws=60, layers=[0] * 5)
    rows = [pair for batch in drawn for pair in zip(*(side.tolist() for side in batch), strict=True)]

    def values(lens: CandidateLens) -> list[float]:
        found: list[float] = []
        for pictures, heads in rows:
            each: list[float] = []
            for place in pictures:
                part = scores.tables.parts[place]
                sides = (scores.score(lens, part, "decoded")[heads], scores.effect(part)[heads])
                each.append(float(spearman(sides[0].T, sides[1].T).nanmean()))
            found.append(float(torch.tensor(each).nanmean()))
        return found

    row = summary.row(CONTRAST)
    assert row is not None and row.over_picture is not None
    one, pair = values(LENSES[PICTURE]), values(LENSES[CONTRAST])
    assert (row.correlation.low, row.correlation.high) == pytest.approx(np.nanquantile(pair, [0.025, 0.975]), abs=1e-5)
    paired = np.nanquantile(np.array(pair) - np.array(one), [0.025, 0.975])
    assert (row.over_picture.low, row.over_picture.high) == pytest.approx(paired, abs=1e-5)
    # If all heads are studied, they are no sample.
    assert scores.sampled and not replace(scores, sites=scores.sites[1:], columns=range(5)).sampled


def test_transfer_is_a_plain_loop_and_one_for_a_perfect_decoder() -> None:
    scores = made(1)
    lens, contrast = LENSES[PICTURE], LENSES[CONTRAST]
    part = scores.tables.parts[0]

    def returned(after: str, before: str, number: int) -> Tensor:
        first = part.decoded[before, number][0 if before == CLEAN else 2]
        return part.decoded[after, number][2] - first

    along = str(lens.towards)
    wanted = [cosine(returned(along, CLEAN, number), part.requested[along][3] - part.clean) for number in (0, 1)]
    assert float(scores.transfer_to_heads(lens)[0, 2]) == pytest.approx(np.mean(wanted), abs=1e-5)
    sides = str(contrast.towards), str(contrast.away)
    change = part.requested[sides[0]][3] - part.requested[sides[1]][3]
    wanted = [cosine(returned(*sides, number), change) for number in (0, 1)]
    assert float(scores.transfer_to_heads(contrast)[0, 2]) == pytest.approx(np.mean(wanted), abs=1e-5)
    perfect = [
        replace(
            part,
            decoded={
                (name, number): part.clean[None] if name == CLEAN else part.requested[name][-rows.shape[0] :]
                for (name, number), rows in part.decoded.items()
            },
        )
        for part in scores.tables.parts
    ]
    exact = replace(scores, tables=PictureTables(perfect))
    for table in (exact.transfer_to_heads(lens), exact.transfer_to_heads(contrast), exact.transfer_of_step(0.5)[0]):
        torch.testing.assert_close(table, torch.ones_like(table))


def test_a_lens_that_knows_the_effect_is_chosen_and_reported_elsewhere() -> None:
    candidates = {kind: (lens,) for kind, lens in LENSES.items()}
    knowing, ignorant = made(2, known=0.9, pictures=6), made(3, pictures=6)
    choices = choose(knowing, candidates)
    assert choices[CONTRAST].correlation > 0.8 > abs(choices[RETRIEVAL].correlation)
    summary = summarise(knowing, choices, n_selection=6, seeds=(0, 1), model="made")
    assert summary.picture.correlation.above(0.5)
    assert np.mean(list(summary.heads[CONTRAST].values())) > 0.8  # over names, too
    blind = summarise(ignorant, choose(ignorant, candidates), n_selection=6, seeds=(0, 1))
    assert abs(blind.picture.correlation.value) < 0.3 and blind.row(NORM) is not None
    with pytest.raises(StoreError, match="without a bank"):
        replace(knowing, bank=None).correlations(LENSES[RETRIEVAL])


def test_a_conclusion_follows_its_figures() -> None:
    knowing = made(2, known=0.9, pictures=6)
    choices = choose(knowing, {kind: (lens,) for kind, lens in LENSES.items()})
    summary = summarise(knowing, choices, n_selection=6, seeds=(0, 1), model="m")
    better, worse = Estimate(0.1, 0.05, 0.2), Estimate(-0.1, -0.2, 0.1)

    def row(name: str, over: Estimate | None, norm: Estimate) -> LensRow:
        return LensRow(name, name, "decoded", Estimate(0.1, 0.05, 0.15), over, norm)

    baseline = LensRow(NORM, "", "decoded", Estimate(0.12, 0.1, 0.14))
    none = replace(summary, rows=(row(PICTURE, None, worse), row(CONTRAST, worse, better), baseline), transfer=())
    first = none.conclusion.sentences[0]
    assert "no other lens is shown to say better" in first and "with care" in none.conclusion.next_step
    assert first.endswith("which names a head adds.") and "norm" not in first
    blind = replace(none.rows[0], correlation=Estimate(0.01, -0.02, 0.04))
    assert "do not read names" in replace(none, rows=(blind, *none.rows[1:])).conclusion.next_step
    step = TransferRow("scene", "a step", 1.0, Estimate(0.5, 0.4, 0.6))
    head = TransferRow("head", "a head", 0.5, Estimate(0.2, 0.1, 0.3))
    rows = (row(PICTURE, None, worse), row(CONTRAST, better, better), row(RETRIEVAL, better, worse), baseline)
    found = replace(summary, rows=rows, transfer=(step, head)).conclusion
    assert "returns little of a change along a head's write (cosine +0.20" in found.sentences[2]
    text = found.sentences[0]
    assert text.startswith("On m, contrast pairs (+0.10 [+0.05, +0.15]) and real pictures") and "say better" in text
    assert text.endswith("which names a head adds.") and "norm" not in text
    middling = replace(summary, rows=rows, transfer=(step, replace(head, transfer=Estimate(0.5, 0.4, 0.6)))).conclusion
    assert "returns some of a change" in middling.sentences[2]
    assert any(
        text.startswith("Before decoding, which is what a decoder that returned")
        for text in summary.conclusion.sentences
    )


def test_candidates_have_a_text_form_and_opposites() -> None:
    for lens in (
        *LENSES.values(),
        CandidateLens(CONTRAST, Strength("s", 40.0)),
        CandidateLens(RETRIEVAL, RHO, centred=False, k=20),
    ):
        assert CandidateLens.parse(str(lens)) == lens
    assert str(CandidateLens(CONTRAST, Strength("s", 40.0)).away.strength) == "s=-38"  # -39 times the write is added
    assert str(LENSES[CONTRAST].away) == "steering rho=-1 centred"
    for text in ("real pictures rho=1", "one picture rho=1 k=3", "picture rho=1", "contrast pair rho=1  centred"):
        with pytest.raises(UsageError):
            CandidateLens.parse(text)


def test_names_come_from_the_vocabulary_or_the_bank(pair: Pair) -> None:
    bank = Bank(tuple("aabb"), torch.eye(4), torch.eye(4)[:, :3] + 0.1)
    words, directions = prototypes(bank.names, bank.embeddings)
    assert words == ("a", "b")
    mean = torch.tensor([0.25] * 4)
    torch.testing.assert_close(
        directions[0], torch.nn.functional.normalize(torch.tensor([0.5, 0.5, 0, 0]) - mean, dim=0)
    )
    own = names_of(pair.vocabulary, None, 2, 0)
    assert pair.vocabulary is not None and len(own.words) == 2 and set(own.words) <= set(pair.vocabulary.names)
    torch.testing.assert_close(own.directions[1], pair.text_direction(own.words[1]).float())
    of_bank = names_of(None, bank, None, 0)
    assert of_bank.words == ("a", "b") and of_bank.judged_places == (0, 1) and of_bank.judged is not None
    with pytest.raises(UsageError, match="knows no names of its own"):
        names_of(None, None, None, 0)


def test_pictures_near_both_sides_are_left_out() -> None:
    bank = torch.tensor([[1.0, 0, 0], [1, 1, 0], [1, 2, 0], [1, 0, 1], [1, 0, 2], [-1, 0, 0]])
    clean, changed = torch.tensor([1.0, 0, 0]), torch.tensor([[1.0, 0.9, 0]])
    against = 2 * clean - changed
    assert nearest(changed, bank, 2).tolist() == [[1, 2]] and nearest(against, bank, 1).tolist() == [[0]]
    assert only_near(changed, against, bank, 2, 2).tolist() == [[1, 2]]
    # The two nearest to both are left out.
    assert not set(only_near(torch.tensor([[1.0, 1.9, 0]]), changed, bank, 2, 3).flatten().tolist()) & {1, 2}
    assert only_near(changed, against, bank, 20, 20).shape == (1, 3)


def test_an_index_is_a_bank(pair: Pair, tmp_path: Path) -> None:
    for number in range(4):
        path = tmp_path / "photos" / f"thing{number % 2}" / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        picture(number).save(path)
    build_index(pair.encoder, tmp_path / "photos", tmp_path / "index")
    source = index_source(tmp_path / "index", 3, 0)
    assert len(source.names) == 3 and set(source.names) <= {"thing0", "thing1"} and len(source.read([2, 0])) == 2
    assert source.identity == index_source(tmp_path / "index", 3, 0).identity
    assert source.identity != index_source(tmp_path / "index", 3, 1).identity


def test_options_refuse_what_makes_no_study(options: LensesOptions) -> None:
    for change, words in (
        ({"seeds": ()}, "at least 1 seed"),
        ({"strengths": ()}, "at least 1 strength"),
        ({"neighbours": (0,)}, "1 or more"),
        ({"n_names": 1}, "at least 2 names"),
    ):
        with pytest.raises(UsageError, match=words):
            replace(options, **change)  # type: ignore[arg-type]
