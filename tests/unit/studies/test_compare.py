"""Pages of several models: which claims hold on all of them, on some and on none, from summaries of studies."""

import json
import re
import shutil
from collections.abc import Sequence
from dataclasses import replace
from importlib.resources import as_file, files
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from steerlens.errors import UsageError
from steerlens.studies import STUDIES
from steerlens.studies.compare import (
    ComparedModel,
    compare_figure,
    compare_page,
    compare_sentences,
    opening_sentences,
)
from steerlens.studies.page import Finished, find_studies, read_models, write_page
from steerlens.studies.shared.conclusion import Claim, Conclusion, cautioned, joined
from steerlens.studies.shared.stats import Estimate

ROOT = Path(__file__).parents[3]
BEFORE, STRENGTH = ROOT / "tests" / "golden" / "before", "strength"


@pytest.fixture
def models(tmp_path: Path) -> list[Path]:
    """Two models with the same studies; on the second, the Steering Lens removes no overlay."""
    folders = [tmp_path / "first", tmp_path / "second"]
    for folder in folders:
        for name in ("importance", "overlay", STRENGTH, "decoder"):
            (folder / name).mkdir(parents=True)
            values = json.loads((BEFORE / name / "summary.json").read_text()) | {"model": folder.name}
            if name == "importance":
                values["setup"]["model"] = folder.name
            (folder / name / "summary.json").write_text(json.dumps(values))
            manifest = {"models": {"pair": f"/private/{folder.name}"}}
            (folder / name / "study.json").write_text(json.dumps(manifest))
    path = folders[1] / "overlay" / "summary.json"
    values = json.loads(path.read_text())
    for row in values["orders"]:
        row["area"] = {"value": -0.3, "low": -0.4, "high": -0.2}
    path.write_text(json.dumps(values))
    return folders


def test_several_models_get_a_page_each_and_one_that_compares_them(models: list[Path], tmp_path: Path) -> None:
    decoder = models[0] / "decoder" / "summary.json"
    decoder.write_text(json.dumps(json.loads(decoder.read_text()) | {"conclusion": {"sentences": ["Old words."]}}))
    page = write_page(models, tmp_path / "docs")
    text = page.read_text()
    assert "[first](studies/first.md)" in text and "[second](studies/second.md)" in text and "private" not in text
    # Of few concepts intervals are too narrow, so that nothing is refuted by them.
    assert re.search(
        r"order removes an overlay .* before decoding \|.*\| open -0.30 \[-0.40, -0.20\] \(few concepts", text
    )
    assert (tmp_path / "docs" / "images" / "studies" / "compared.png").read_bytes()[:4] == b"\x89PNG"
    for path in (tmp_path / "docs").rglob("*.md"):
        for target in re.findall(r"\]\(([^)]+)\)", path.read_text()):
            # Studies without figures link to none that is there, but always below the images of their own model.
            if target.endswith(".png") and path != page:
                assert path.stem in target or path.parent.name in target
            else:
                assert (path.parent / target).exists(), (path, target)
    # A conclusion that an earlier version stored is published in the words of this one; figures stay as they were.
    published, stored = (
        json.loads(path.read_text()) for path in (tmp_path / "docs" / "studies" / "first" / "decoder.json", decoder)
    )
    assert published.pop("conclusion")["sentences"][0].startswith("On first, the default of ")
    assert published == {name: value for name, value in stored.items() if name != "conclusion"}
    # What was written is read again, models and all.
    assert [model.name for model in read_models(tmp_path / "docs" / "studies")] == ["first", "second"]
    again = write_page(tmp_path / "docs" / "studies", tmp_path / "again")
    assert again.read_text() == text


def test_figures_that_a_summary_determines_are_drawn_anew_and_others_copied(models: list[Path], tmp_path: Path) -> None:
    figures, old = models[0] / "overlay" / "figures", b"\x89PNG of an earlier version"
    figures.mkdir()
    for name in ("trajectories", "strip-0"):
        (figures / f"{name}.png").write_bytes(old)
    write_page(models, tmp_path / "docs")
    shown = {path.name: path.read_bytes() for path in (tmp_path / "docs/images/studies/first").glob("overlay-*.png")}
    assert shown.pop("overlay-strip-0.png") == old and {"overlay-trajectories.png", "overlay-plain.png"} <= shown.keys()
    assert all(content.startswith(b"\x89PNG") and content != old for content in shown.values())
    # A study whose figures are not there has none on its page, which is what `--json` results alone allow.
    assert not list((tmp_path / "docs/images/studies/second").glob("overlay-*.png"))


def test_one_model_keeps_its_pages_and_its_name_is_numbered_if_it_comes_twice(
    models: list[Path], tmp_path: Path
) -> None:
    write_page(models[0], tmp_path / "docs")
    assert {path.name for path in (tmp_path / "docs" / "studies").glob("*.md")} == {
        f"{name}.md" for name in ("importance", "overlay", STRENGTH, "decoder")
    }
    assert "On first, the rule recommends" in (tmp_path / "docs" / "studies.md").read_text()
    shutil.copytree(models[0], tmp_path / "third")
    text = write_page([models[0], tmp_path / "third"], tmp_path / "both").read_text()
    assert "[first (third)](studies/first-third.md)" in text
    with pytest.raises(UsageError, match="no finished study"):
        write_page([models[0], tmp_path / "none"], tmp_path / "docs")


def of_claims(name: str, *claims: Claim, model: str = "", study: str = "importance") -> ComparedModel:
    """A model whose only study makes these claims."""
    report = SimpleNamespace(claims=lambda summary: summary)
    return ComparedModel(name, f"{name}.md", [(cast(Any, SimpleNamespace(name=study, report=report)), claims)], model)


YES, NO, OPEN = Estimate(0.5, 0.4, 0.6), Estimate(-0.5, -0.6, -0.4), Estimate(0.0, -0.1, 0.1)


def leading(what: str, estimate: Estimate, how: str = "") -> Claim:
    return Claim(what, estimate, 0.0, how, leading=True)


def test_leading_claims_are_sorted_by_where_they_hold() -> None:
    first = of_claims(
        "first",
        *(leading("Heads sing", YES, how) for how in ("before decoding", "in pictures")),
        leading("Heads dance", YES),
        leading("Heads swim", NO),
        leading("Heads read", OPEN),
        leading("Heads run", OPEN),
        leading("Heads jump", YES),
        Claim("Heads mumble", YES),
    )
    second = of_claims(
        "second",
        *(leading("Heads sing", YES, how) for how in ("before decoding", "in pictures")),
        leading("Heads dance", NO),
        leading("Heads swim", OPEN),
        leading("Heads read", OPEN),
        leading("Heads run", YES),
    )
    sentences = compare_sentences([first, second])
    assert sentences == [
        "**Holds on both:** heads sing (before decoding and in pictures).",
        "**Holds on first, refuted on second:** heads dance. **Holds on first, not measured on second:** heads jump.",
        "**Holds on second, open on first:** heads run.",
        "**Open on second, refuted on first:** heads swim.",
        "**Nobody knows yet, since the intervals leave it open:** whether heads read. **Not run yet:** overlays, "
        "strength, decoder, identification and candidate lenses on first and second.",
    ]
    # Five sentences at most; claims that one model alone was tested on give way first, and stand in the table.
    alone = compare_sentences([of_claims("first", leading("Heads jump", YES)), of_claims("second")])
    assert alone[0] == "**Holds on first, not measured on second:** heads jump."
    assert alone[1].startswith("**Not run yet:** ") and len(alone) == 2
    both = [of_claims(name, leading("Heads swim", NO)) for name in ("first", "second")]
    assert compare_sentences(both)[0] == "**Refuted on both:** heads swim."
    page = compare_page([first, second])
    assert "| claim | first | second |" in page and "mumble" in page.split("## All claims")[1]
    assert "mumble" not in page.split("## All claims")[0]
    # A claim holds on a model if it holds on all kinds of its pictures.
    photographs = of_claims("second (photographs)", leading("Heads run", OPEN), model="second")
    mixed = compare_sentences([first, second, photographs])
    assert "whether heads read. " in mixed[-1]
    words = "**Holds or open on second, depending on the pictures; open on first:** heads run."
    # A run on few concepts decides nothing where another was large enough.
    small = of_claims("second (drawings)", *cautioned([leading("Heads dance", YES)], 6), model="second")
    assert compare_sentences([first, second, small]) == compare_sentences([first, second])
    assert mixed[2] == f"**Open on second, refuted on first:** heads swim. {words}"


def test_the_figure_shows_leading_claims_once_a_model_and_view(models: list[Path]) -> None:
    both = [
        ComparedModel(model.name, "", [(finished.study, finished.summary) for finished in model.results])
        for folder in models
        for model in read_models(folder)
    ]
    figure = compare_figure(both)
    assert figure is not None and compare_figure([]) is None
    claims = {claim.what for model in both for claim in model.claims.values() if claim.leading}
    assert len(figure.axes[0].get_yticks()) == len(claims) > 0
    assert compare_figure([of_claims("first", Claim("Heads mumble", YES))]) is None


def test_a_model_s_page_opens_with_sentences_that_belong_together_and_settings_last() -> None:
    def study(
        name: str, sentences: tuple[str, ...], together: int = 1, *, of_settings: bool = False
    ) -> tuple[Any, Any]:
        conclusion = Conclusion(sentences, "go on.", together)
        report = SimpleNamespace(conclusion=lambda _: conclusion)
        return SimpleNamespace(name=name, report=report, of_settings=of_settings), None

    one, two = study("a", ("A1.", "A2.", "A3.")), study("s", ("S1.", "S2."), of_settings=True)
    three = study("b", ("B1.", "B2.", "B3."), 2)
    assert opening_sentences([one, two, three]) == ["A1.", "A2.", "S1.", "B1.", "B2."]
    four, five = study("c", ("C1.",)), study("d", ("D1.",))
    assert opening_sentences([one, two, three, four, five]) == ["A1.", "B1.", "B2.", "C1.", "D1."]


def test_every_claim_can_be_read_alone(models: list[Path]) -> None:
    claims = [claim for model in read_models(models[0]) for one in model.results for claim in claims_of(one)]
    assert claims
    for claim in claims:
        assert claim.what[0].isupper() and not claim.what.endswith(".") and "the same" not in claim.what


def claims_of(finished: Finished) -> Sequence[Claim]:
    return finished.study.report.claims(finished.summary)


def test_a_claim_holds_if_its_interval_lies_above_the_level() -> None:
    half = Estimate(0.6, 0.52, 0.7)
    assert Claim("x", half).holds and Claim("x", half, 0.5).holds and not Claim("x", half, 0.55).holds
    assert Claim("x", half, 0.8).refuted and not Claim("x", Estimate(float("nan"), float("nan"), float("nan"))).refuted
    # Nulls that do as well leave it open, and with it the claims that rest on it.
    null = ("other labels", Estimate(0.5, 0.45, 0.55))
    alone = Claim("x", half, nulls=[null])
    assert not alone.holds and not alone.refuted and not Claim("y", half, rests_on=alone).holds
    clear = Claim("x", half, nulls=[("other labels", Estimate(0.4, 0.3, 0.5))])
    assert clear.holds and Claim("y", half, rests_on=clear).holds
    page = compare_page([of_claims("first", alone), of_claims("second", *cautioned([replace(clear, nulls=())], 6))])
    row = "| x | open +0.60 [+0.52, +0.70] (other labels +0.50 [+0.45, +0.55]) | open +0.60 [+0.52, +0.70] (few "
    assert not cautioned([Claim("x", NO)], 6)[0].refuted and cautioned([Claim("x", NO)], 24)[0].refuted
    assert f"{row}concepts (6): intervals are too narrow) |" in page and cautioned([clear], 24) == [clear]
    assert joined(["a", "b", "c"]) == "a, b and c" and joined(["a"]) == "a"


@pytest.mark.parametrize("name", ["importance", "overlay", STRENGTH, "decoder"])
def test_every_study_has_a_conclusion_or_says_that_its_summary_is_too_old(name: str) -> None:
    study = STUDIES[name]
    summary = study.read(json.loads((BEFORE / name / "summary.json").read_text()), "summary.json")
    conclusion = study.report.conclusion(summary)
    # The version before measured no baselines, on which two conclusions rest.
    assert (conclusion is None) == (name in ("importance", "overlay"))
    if conclusion is not None:
        assert 3 <= len(conclusion.sentences) <= 5 and conclusion.next_step.endswith(".")
        assert summary.to_json()["conclusion"] == conclusion.to_json()


def test_packaged_summaries_conclude_in_the_words_of_this_version() -> None:
    with as_file(files("steerlens.studies") / "measured") as folder:
        studied = [(path, finished) for path in sorted(folder.iterdir()) for finished in find_studies(path)]
        assert len(studied) == 4
        for path, finished in studied:
            packaged = json.loads((path / finished.study.name / "summary.json").read_text())["conclusion"]
            assert packaged == finished.summary.to_json()["conclusion"], (path, finished.study.name)
