"""A summary that lacks an entry that its page needs is refused when it is read, and the message names the entry."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from steerlens.errors import UsageError
from steerlens.studies import STUDIES
from steerlens.studies.page import Finished, study_page, verdict_page

ROOT = Path(__file__).parents[3]
SUMMARIES = [
    (name, path)
    for name in STUDIES
    for path in (
        ROOT / "tests" / "golden" / "before" / name / "summary.json",
        *sorted((ROOT / "docs" / "studies").rglob(f"{name}.json")),
    )
    if path.is_file()  # later studies are not among those of the version before
]


def without(table: str, key: str) -> Callable[[Any], None]:
    """Removes a key of a table."""
    return lambda values: values[table].pop(key)


def unlisted(table: str, **entries: str) -> Callable[[Any], None]:
    """Removes the rows of a list with these entries."""

    def change(values: Any) -> None:
        values[table] = [row for row in values[table] if any(row[key] != entry for key, entry in entries.items())]

    return change


@pytest.mark.parametrize(("name", "path"), SUMMARIES)
def test_a_whole_summary_lacks_nothing(name: str, path: Path) -> None:
    study = STUDIES[name]
    finished = Finished(study, study.read(json.loads(path.read_bytes()), str(path)))
    assert study_page(finished) and verdict_page([finished])


@pytest.mark.parametrize(
    ("name", "change", "lacked"),
    [
        ("overlay", without("differences", "steering, chosen, minus one-shot effect"), "the difference 'steering, ch"),
        ("overlay", without("differences", "steering minus diffusion, chosen, not decoded"), "the difference"),
        ("overlay", unlisted("orders", name="exact direct effect"), "the order 'exact direct effect'"),
        ("overlay", unlisted("attenuation", score="steering, chosen"), "the attenuation of 'steering, chosen'"),
        ("overlay", without("curves", "objective"), "the curves of the objective"),
        ("overlay", lambda values: values["choices"]["steering"].update(compare="x"), "a known comparison"),
        ("strength", lambda values: values.update(points=[]), "the strengths of the sweep"),
        ("strength", without("clean_typicality", "mahalanobis"), r"the typicality \(mahalanobis\) without steering"),
        ("strength", lambda values: values["points"][1]["typicality"].pop("nearest"), r"the typicality \(nearest\) of"),
        ("strength", lambda values: values["points"][0]["similarity"].pop("decoded"), "the similarity of .* input"),
        (
            "strength",
            lambda values: values["points"][0]["similarity"]["decoded"].pop("input"),
            "the sim.* with the input",
        ),
        ("importance", unlisted("attenuation", score="steering, chosen"), "the attenuation of 'steering, chosen'"),
        ("importance", without("reliability", "steering, chosen"), "the reliability of 'steering, chosen'"),
        (
            "importance",
            unlisted("rows", score="steering, chosen", statistic="spearman"),
            r"the corr.*\(spearman\)",
        ),
        ("importance", lambda values: values.update(rows=[]), r"the correlation \(spearman\) of 'steering, chosen'"),
        ("decoder", lambda values: values.update(rows=[]), "settings that differ in the number of steps"),
        ("decoder", lambda values: values.update(cheapest_steps=999), "the setting of 999 steps"),
    ],
)
def test_a_missing_entry_is_named(name: str, change: Callable[[Any], None], lacked: str) -> None:
    values = json.loads((ROOT / "tests" / "golden" / "before" / name / "summary.json").read_bytes())
    change(values)
    with pytest.raises(UsageError, match=rf"summary\.json lacks {lacked}.*run that study again"):
        STUDIES[name].read(values, "summary.json")
