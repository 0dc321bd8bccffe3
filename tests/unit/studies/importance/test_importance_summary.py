"""The importance study's figures and page, from parts of a study that was never run."""

import json
from collections.abc import Generator
from pathlib import Path

import pytest
import torch
from torch import Tensor

from steerlens.errors import UsageError
from steerlens.progress import Progress, run_to_end
from steerlens.sites import all_heads
from steerlens.studies.importance.results import Setup, Summary
from steerlens.studies.importance.summary import CEILING, summarise
from steerlens.studies.page import studies_page, write_page
from steerlens.studies.shared.candidates import CENTRED, NEUTRAL, PLAIN, PUBLISHED
from steerlens.studies.shared.folder import rounded
from steerlens.studies.shared.judge import JudgeName
from steerlens.studies.shared.notions import Effect, all_effects, stacked
from steerlens.studies.shared.scores import Choice, Choices, choose_all, made_scores
from steerlens.studies.shared.stats import mean_correlation

N, E = 12, 8
SITES = tuple(all_heads(3, 4))


def made_parts(seeds: tuple[int, ...] = (0, 1), judge: bool = False, pictures: int = 6) -> list[dict[str, Tensor]]:
    """Parts of a study that was never run: every embedding random, the undecoded ones near the truth."""
    generator = torch.Generator().manual_seed(3)

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    parts: list[dict[str, Tensor]] = []
    for _ in range(pictures):
        clean, text, other = draw(3, E)
        part = {"clean": clean, "text": text, "other": other, "norm": draw(N).abs(), "direct_cosine": draw(N)}
        for ablation in ("zero", "mean", "resample"):
            part |= {f"{scope}.{ablation}": clean + 0.5 * draw(N, E) for scope in ("total", "direct")}
            part |= {f"attribution.{ablation}.{target}": draw(N) for target in ("text", "other")}
        for setting in (*PLAIN, *CENTRED, NEUTRAL, PUBLISHED):
            part[f"asked.{setting}"] = clean + draw(N, E)
            part |= {f"made.{setting}.seed{seed}": clean + draw(N, E) for seed in seeds}
            if judge:
                part |= {f"judge.{setting}.seed{seed}": draw(N, 5) for seed in seeds}
        part[f"made.control.seed{seeds[0]}"] = clean + draw(N, E)
        if judge:
            part |= {"judge.input": draw(5), "judge.other": draw(5)}
        parts.append(part)
    return parts


def made_choices(compare: str = "text") -> Choices:
    chosen = {
        setting.lens: Choice(setting, compare, 0.5, {f"{setting}, compared with {compare}": 0.5}) for setting in PLAIN
    }
    return Choices(chosen, chosen)


def summary_of(parts: list[dict[str, Tensor]], main: Effect, **setup: object) -> Summary:
    concepts = [f"c{row}" for row in range(len(parts))]
    known = Setup(model="made", n_chosen=2, seeds=(0, 1), **setup)  # type: ignore[arg-type]
    return finish_plain(summarise(parts, concepts, SITES, made_choices(), main, setup=known, draws=20))


def finish_plain(events: Generator[Progress, None, Summary]) -> Summary:
    def check(event: Progress) -> None:
        assert event.stage == "statistics" and 0 <= event.done < event.total == 1

    return run_to_end(events, check)


MAIN = Effect("total", "text", "mean")


@pytest.fixture(scope="module")
def summary() -> Summary:
    return summary_of(
        made_parts(seeds=(9, 10), judge=True),
        MAIN,
        judge=JudgeName("second", "0123456789abcdef"),
        command="steerlens study importance --x",
    )


def test_seeds_are_numbers_and_controls_meet_their_own_seed(summary: Summary) -> None:
    parts = made_parts(seeds=(9, 10), judge=True)
    plain = str(PLAIN[0])
    scores = made_scores(parts, plain, "input")
    clean = torch.stack([part["clean"] for part in parts])
    for place, seed in enumerate((9, 10)):
        made = torch.stack([part[f"made.{plain}.seed{seed}"] for part in parts])
        torch.testing.assert_close(scores[place], torch.cosine_similarity(made, clean[:, None], dim=-1))
    control = torch.stack([part["made.control.seed9"] for part in parts])
    beats = (scores[0] > torch.cosine_similarity(control, clean[:, None], dim=-1)).float()
    assert summary.beats_control.value == pytest.approx(float(beats.mean()))
    assert summary.beats_by_layer == pytest.approx([float(beats[:, 4 * n : 4 * n + 4].mean()) for n in range(3)])


def test_every_notion_of_importance_is_reported_with_its_own_first_order(summary: Summary) -> None:
    parts = made_parts(seeds=(9, 10), judge=True)
    effects = {str(effect) for effect in all_effects(parts, "mean")}
    assert len(effects) == 18 and {row.effect for row in summary.rows} == effects
    assert "direct, signed towards other, resample" in effects and "direct, unsigned, zero" in effects
    found = {(row.score, row.effect, row.statistic): row for row in summary.rows}
    for effect in all_effects(parts, "mean"):
        row = found.get(("attribution patching", str(effect), "spearman"))
        assert (row is None) == (not effect.target)
        if row is not None:
            own = stacked(parts, f"attribution.{effect.ablation}.{effect.target}")
            assert row.estimate.value == pytest.approx(mean_correlation(own, effect.table(parts)))
        assert ((CEILING, str(effect), "spearman") in found) == (effect.scope == "total")
    statistics = {row.statistic for row in summary.rows if row.effect == str(MAIN)}
    assert statistics == {"spearman", "pearson", "interaction", "interaction pearson", "within layers"}
    marked = {(row.score, row.effect) for row in summary.rows if row.by_construction}
    assert ("steering, chosen, not decoded", "direct, signed towards text, zero") in marked
    assert not any("unsigned" in effect for _, effect in marked)
    assert all("towards other" in name for name, effect in marked if "towards other" in effect)
    assert ("steering, plain, towards other, not decoded", "total, signed towards other, mean") in marked
    assert all(score.endswith("not decoded") for score, _ in marked)


def test_like_is_compared_with_like_and_the_papers_claim_has_its_own_effect(summary: Summary) -> None:
    found = {(one.name, one.effect, one.statistic): one for one in summary.differences}
    main, unsigned = "total, signed towards text, mean", "total, unsigned, mean"
    for name in ("plain, towards text, not decoded", "centred, towards text, not decoded", "chosen, judged with input"):
        one = found[name, main, "spearman"]
        assert one.first == f"steering, {name}" and one.second == f"diffusion, {name}"
    one = found["steering, s=40 for all", unsigned, "spearman"]
    assert one.second == "diffusion, plain"
    rows = {(row.score, row.effect): row.estimate.value for row in summary.rows if row.statistic == "spearman"}
    assert one.estimate.value == pytest.approx(rows[one.first, unsigned] - rows[one.second, unsigned])
    assert {one.name for one in summary.variants} == {"centred", "neutral base", "concept-directed"}
    assert {name for name in summary.reliability if "judged" in name} == set()


def test_a_choice_for_embeddings_is_made_on_embeddings() -> None:
    """The setting whose pictures know the effect is not the one whose embeddings do."""
    parts = made_parts(seeds=(0,))
    decoded, asked = PLAIN[0], CENTRED[0]
    for part, effect in zip(parts, MAIN.table(parts), strict=True):
        knowing = 0.1 * torch.nn.functional.normalize(part["clean"], dim=0) + effect[:, None] * part["text"]
        for setting in (decoded, asked):
            part[f"made.candidate.{setting}.seed0"] = knowing if setting == decoded else part[f"made.{setting}.seed0"]
            part[f"asked.candidate.{setting}"] = knowing if setting == asked else part[f"asked.{setting}"]
    choices = choose_all(parts, (asked, decoded), (asked, decoded), MAIN)
    assert choices.decoded["steering"].setting == decoded and choices.asked["steering"].setting == asked
    assert set(choices.decoded["steering"].candidates) == set(choices.asked["steering"].candidates)
    assert set(choices.to_json()) == {"steering", "diffusion", "steering, not decoded", "diffusion, not decoded"}


@pytest.mark.parametrize("main", [Effect("direct", "other", "zero"), Effect("total", "", "resample")])
def test_any_notion_of_importance_can_be_the_main_one(main: Effect) -> None:
    summary = summary_of(made_parts(), main, notes=("left out.",))
    assert bool(summary.ceiling_share) == (main.scope == "total")
    page = studies_page({"importance": rounded(summary.to_json())}, models={"importance": "folder"})
    assert f"main effect: {main}" in page and "on `folder`" in page and "left out." in page
    assert "bundled" not in page


def test_the_page_says_what_each_verdict_tests_and_what_is_no_evidence(summary: Summary) -> None:
    page = studies_page({"importance": rounded(summary.to_json())}, models={"importance": "emoji"})
    assert "on the bundled pair" in page and "second (weights 0123456789ab)" in page
    assert "    steerlens study importance --x\n" in page
    assert "one factor for all heads, s=40" in page and "(total, unsigned, mean)" in page
    assert "a check of consistency, and no evidence about pictures" in page
    assert "| steering, chosen, not decoded \\* |" in page
    assert "Like with like" in page and "both centred, towards text, not decoded" in page
    for words in (
        "### Beyond the paper",
        "**centred**",
        "**neutral base**",
        "Ranking without decoding",
        "Not measured",
    ):
        assert words in page
    assert "reported; chance is 50%" in page
    old = rounded(summary.to_json()) | {"layout": 1}
    with pytest.raises(UsageError, match="importance was made by another version"):
        studies_page({"importance": old})
    with pytest.raises(UsageError, match="overlay was made by another version"):
        studies_page({"overlay": {"n_pairs": 3}})


def test_the_page_takes_the_model_from_the_study_and_no_path(summary: Summary, tmp_path: Path) -> None:
    folder = tmp_path / "studies" / "importance"
    folder.mkdir(parents=True)
    (folder / "summary.json").write_text(json.dumps(rounded(summary.to_json())))
    (folder / "study.json").write_text(json.dumps({"models": {"pair": "/somewhere/private/mine"}}))
    text = write_page(tmp_path / "studies", tmp_path / "docs").read_text()
    assert "on `mine`" in text and "private" not in text and "bundled" not in text
