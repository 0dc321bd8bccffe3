"""The importance study's figures and page, from parts of a study that was never run."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from made_importance import MAIN, SITES, made_choices, made_parts
from studied import finish, stored

from steerlens.errors import UsageError
from steerlens.studies import STUDIES
from steerlens.studies.importance.results import PARTIALS, POOLED, STATISTICS, ImportanceSetup, ImportanceSummary
from steerlens.studies.importance.scored import CEILING
from steerlens.studies.importance.scores import Choices, choose_all
from steerlens.studies.importance.summary import summarise
from steerlens.studies.page import Finished, study_page, verdict_page, write_page
from steerlens.studies.shared.candidates import CENTRED, PLAIN
from steerlens.studies.shared.effects import Effect, all_effects
from steerlens.studies.shared.folder import rounded
from steerlens.studies.shared.judge import JudgeName
from steerlens.studies.shared.measurements import PicturePart, PictureTables
from steerlens.studies.shared.stats import mean_correlation


def summary_of(tables: PictureTables, main: Effect, **setup: object) -> ImportanceSummary:
    concepts = [f"c{row}" for row in range(len(tables))]
    known = ImportanceSetup(model="made", n_selection=2, seeds=(0, 1), **setup)  # type: ignore[arg-type]
    return finish(summarise(tables, concepts, SITES, made_choices(), main, setup=known, draws=20))


def pages_of(summary: ImportanceSummary, model: str) -> str:
    """Both pages of the study, from its summary as a file keeps it."""
    finished = Finished(STUDIES["importance"], stored(summary), model)
    return verdict_page([finished]) + study_page(finished)


@pytest.fixture(scope="module")
def summary() -> ImportanceSummary:
    return summary_of(
        made_parts(seeds=(9, 10), judge=True),
        MAIN,
        judge=JudgeName("second", "0123456789abcdef"),
        command="steerlens study importance --x",
    )


def test_seeds_are_numbers_and_controls_meet_their_own_seed(summary: ImportanceSummary) -> None:
    tables = made_parts(seeds=(9, 10), judge=True)
    plain = str(PLAIN[0])
    scores = tables.decoded_scores(plain, "input")
    clean = torch.stack([part.clean for part in tables.parts])
    for place, seed in enumerate((9, 10)):
        made = torch.stack([part.decoded[plain, seed] for part in tables.parts])
        torch.testing.assert_close(scores[place], torch.cosine_similarity(made, clean[:, None], dim=-1))
    control = torch.stack([part.decoded["control", 9] for part in tables.parts])
    beats = (scores[0] > torch.cosine_similarity(control, clean[:, None], dim=-1)).float()
    assert summary.beats_control.value == pytest.approx(float(beats.mean()))
    assert summary.beats_by_layer == pytest.approx([float(beats[:, 4 * n : 4 * n + 4].mean()) for n in range(3)])


def test_every_notion_of_importance_is_reported_with_its_own_first_order(summary: ImportanceSummary) -> None:
    tables = made_parts(seeds=(9, 10), judge=True)
    effects = set(all_effects(tables, "mean"))
    assert len(effects) == 18 and {row.effect for row in summary.rows} == effects
    assert {"direct, signed towards other, resample", "direct, unsigned, zero"} <= set(map(str, effects))
    assert {Effect.parse(str(effect)) for effect in effects} == effects
    found = {(row.score, row.effect, row.statistic): row for row in summary.rows}
    for effect in effects:
        row = found.get(("attribution patching", effect, "spearman"))
        assert (row is None) == (not effect.target)
        if row is not None:
            own = tables.first_order(effect.ablation, effect.target)
            assert row.estimate.value == pytest.approx(mean_correlation(own, effect.table(tables)))
        assert ((CEILING, effect, "spearman") in found) == (effect.scope == "total")
    statistics = {row.statistic for row in summary.rows if row.effect == MAIN}
    assert statistics == {*STATISTICS, *PARTIALS, POOLED}
    marked = {(row.score, str(row.effect)) for row in summary.rows if row.by_construction}
    assert ("steering, chosen, not decoded", "direct, signed towards text, zero") in marked
    assert not any("unsigned" in effect for _, effect in marked)
    assert all("towards other" in name for name, effect in marked if "towards other" in effect)
    assert ("steering, plain, towards other, not decoded", "total, signed towards other, mean") in marked
    assert all(score.endswith("not decoded") for score, _ in marked)


def test_like_is_compared_with_like_and_the_papers_claim_has_its_own_effect(summary: ImportanceSummary) -> None:
    found = {(one.name, str(one.effect), one.statistic): one for one in summary.differences}
    main, unsigned = "total, signed towards text, mean", "total, unsigned, mean"
    for name in ("plain, towards text, not decoded", "centred, towards text, not decoded", "chosen, judged with input"):
        one = found[name, main, "spearman"]
        assert one.first == f"steering, {name}" and one.second == f"diffusion, {name}"
    one = found["steering, s=40 for all", unsigned, "spearman"]
    assert one.second == "diffusion, plain"
    rows = {(row.score, str(row.effect)): row.estimate.value for row in summary.rows if row.statistic == "spearman"}
    assert one.estimate.value == pytest.approx(rows[one.first, unsigned] - rows[one.second, unsigned])
    assert {one.name for one in summary.variants} == {"centred", "neutral base", "concept-directed"}
    assert {name for name in summary.reliability if "judged" in name} == set()


def test_a_choice_for_embeddings_is_made_on_embeddings() -> None:
    """The setting whose pictures know the effect is not the one whose embeddings do."""
    tables = made_parts(seeds=(0,))
    decoded, undecoded = PLAIN[0], CENTRED[0]
    parts: list[PicturePart] = []
    for part, effect in zip(tables.parts, MAIN.table(tables), strict=True):
        knowing = 0.1 * torch.nn.functional.normalize(part.clean, dim=0) + effect[:, None] * part.targets["text"]
        parts.append(
            replace(
                part,
                decoded={
                    (f"candidate.{decoded}", 0): knowing,
                    (f"candidate.{undecoded}", 0): part.decoded[str(undecoded), 0],
                },
                requested={
                    f"candidate.{decoded}": part.requested[str(decoded)],
                    f"candidate.{undecoded}": knowing,
                },
            )
        )
    both = (undecoded, decoded)
    choices = choose_all(PictureTables(parts), both, both, MAIN)
    assert choices.decoded["steering"].setting == decoded and choices.undecoded["steering"].setting == undecoded
    assert set(choices.decoded["steering"].candidates) == set(choices.undecoded["steering"].candidates)
    assert set(choices.to_json()) == {"steering", "diffusion", "steering, not decoded", "diffusion, not decoded"}
    assert Choices.from_json(choices.to_json(), "choice.json") == choices


@pytest.mark.parametrize("main", [Effect("direct", "other", "zero"), Effect("total", "", "resample")])
def test_any_notion_of_importance_can_be_the_main_one(main: Effect) -> None:
    summary = summary_of(made_parts(), main, notes=("left out.",))
    assert bool(summary.ceiling_share) == (main.scope == "total")
    page = pages_of(summary, "folder")
    assert f"main effect: {main}" in page and "on `folder`" in page and "left out." in page
    assert "bundled" not in page


def test_the_page_says_what_each_verdict_tests_and_what_is_no_evidence(summary: ImportanceSummary) -> None:
    page = pages_of(summary, "emoji")
    assert "on `emoji`, the bundled pair" in page and "second (weights 0123456789ab)" in page
    assert "    steerlens study importance --x\n" in page
    assert (
        "one factor for all heads (s=40; the paper's constant is not known)" in page
        and "(total, unsigned, mean)" in page
    )
    assert "a check of consistency, and no evidence about pictures" in page
    assert "| Steering Lens, chosen, not decoded \\* |" in page
    assert "Like with like" in page and "both centred, towards the label, not decoded" in page
    for words in (
        "## Beyond the paper",
        "**centred**",
        "**neutral base**",
        "Ranking without decoding",
        "Not measured",
    ):
        assert words in page
    assert "reported; chance is 50%" in page
    old = rounded(summary.to_json()) | {"layout": 1}
    with pytest.raises(UsageError, match="was written by another version of steerlens"):
        ImportanceSummary.from_json(old, "summary.json")


def test_the_page_takes_the_model_from_the_study_and_no_path(summary: ImportanceSummary, tmp_path: Path) -> None:
    folder = tmp_path / "studies" / "importance"
    folder.mkdir(parents=True)
    (folder / "summary.json").write_text(json.dumps(rounded(summary.to_json())))
    (folder / "study.json").write_text(json.dumps({"models": {"pair": "/somewhere/private/mine"}}))
    write_page(tmp_path / "studies", tmp_path / "docs")
    for page in (tmp_path / "docs" / "studies.md", tmp_path / "docs" / "studies" / "importance.md"):
        text = page.read_text()
        assert "`mine`" in text and "private" not in text and "bundled" not in text
