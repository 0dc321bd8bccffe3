"""Studies of version 0.1.0 are summarised again to the digit, resumed, and put on a page by the present version."""

import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from before import STUDIES, study
from compare_summaries import KEYS, differences

from steerlens.cli.main import main

TABLE_KEYS = (*KEYS, "huggingface")


def summary(folder: str) -> dict[str, Any]:
    return json.loads(Path(folder, "summary.json").read_bytes())


def as_before(wanted: Any, now: Any, key: str = "") -> Any:
    """What the version before wrote too: later versions add keys, rows of scores and differences, and draws.

    Raw correlations of the main table's effects have wider bootstraps now; their intervals are not compared. Nor are
    those of a share whose denominator is not shown to be above 0: it has no interval now.
    """
    if isinstance(wanted, dict) and isinstance(now, dict):
        if "share" in key and wanted.keys() == {"value", "low", "high"} and now["low"] is None:
            return wanted | {"value": now["value"]}
        return {
            name: as_before(value, now[name], key if "share" in key else name)
            for name, value in wanted.items()
            if name in now
        }
    if isinstance(wanted, list) and isinstance(now, list) and key in ("rows", "differences") and wanted:
        known = [name for name in ("score", "name", "effect", "statistic") if name in wanted[0]]
        by_name = {tuple(row[name] for name in known): row for row in now}
        found = [by_name.get(tuple(row[name] for name in known)) for row in wanted]
        return [as_before(before, row) for before, row in zip(wanted, found, strict=True)]
    if isinstance(wanted, list) and isinstance(now, list) and len(wanted) == len(now):
        return [as_before(*sides) for sides in zip(wanted, now, strict=True)]
    return now


MORE_DRAWS = ("total, unsigned, zero", "total, signed towards text, zero")
"""Effects of the main table whose intervals rested on fewer draws in the version before."""


def without_few_draws(values: dict[str, Any]) -> dict[str, Any]:
    """A summary without the intervals of `MORE_DRAWS`."""
    rows = [
        row | {"estimate": {"value": row["estimate"]["value"]}} if row.get("effect") in MORE_DRAWS else row
        for row in values.get("rows", [])
    ]
    return values | ({"rows": rows} if rows else {})


def without_tied_draws(values: dict[str, Any]) -> dict[str, Any]:
    """A summary without the intervals of interactions.

    Some draws of three pictures leave nothing but rounding of an interaction, which is then ranked. Passes that round
    otherwise than those of the version before give other ends, and the same values.
    """
    rows = {
        name: [
            row | {"estimate": {"value": row["estimate"]["value"]}} if row.get("statistic") == "interaction" else row
            for row in values.get(name, [])
        ]
        for name in ("rows", "differences")
    }
    return values | rows


def parts(folder: str) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(Path(folder, "parts").iterdir())}


@pytest.mark.parametrize("name", STUDIES)
def test_a_finished_study_is_summarised_again_to_the_digit(
    name: str, before: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    wanted, measured, table = summary(name), parts(name), pq.read_table(f"{name}/table.parquet").to_pydict()
    if name != "importance":  # The version before named the pair in this summary alone.
        wanted["model"] = "pair"
    Path(name, "summary.json").unlink()
    Path(name, "table.parquet").unlink()
    assert main([*study(name, name), "--json"]) == 0
    ignored = (*KEYS, "rule", "note")  # Sentences, which were reworded; all figures are compared.
    wanted = without_few_draws(wanted)
    for now, tolerance in ((summary(name), 0.0), (json.loads(capsys.readouterr().out), 1e-4)):
        same = as_before(wanted, without_few_draws(now))
        assert list(differences(wanted, same, ignored, tolerance=tolerance)) == []
    now = pq.read_table(f"{name}/table.parquet").to_pydict()
    assert list(differences(table, {column: now.get(column) for column in table})) == []
    assert parts(name) == measured
    assert {path.suffix for path in Path(name, "figures").iterdir()} == {".png", ".svg"}


def with_option(command: list[str], option: str, value: str) -> list[str]:
    """The command with another value of an option, which may be given once only."""
    if option not in command:
        return [*command, option, value]
    place = command.index(option) + 1
    return [*command[:place], value, *command[place + 1 :]]


@pytest.mark.usefixtures("undrawn")
def test_an_importance_study_that_was_stopped_is_finished(before: Path) -> None:
    measured = parts("importance-half")
    assert len(measured) == 3
    assert main([*study("importance", "importance-half"), "--json"]) == 0
    now = parts("importance-half")
    assert {name: now[name] for name in measured} == measured and now.keys() == parts("importance").keys()
    # Another processor rounds otherwise, which decoded pictures carry on.
    wanted, now = (without_tied_draws(without_few_draws(summary(name))) for name in ("importance", "importance-half"))
    assert list(differences(wanted, as_before(wanted, now), ("command",), tolerance=0.02)) == []


@pytest.mark.usefixtures("undrawn")
@pytest.mark.parametrize("name", [name for name in STUDIES if name != "importance"])
def test_a_part_that_is_missing_is_measured_again_and_the_others_are_not(name: str, before: Path) -> None:
    measured = parts(name)
    (lost, *_) = (part for part in measured if part.startswith(("report-", "reference-")))
    Path(name, "parts", lost).unlink()
    assert main([*study(name, name), "--json"]) == 0
    now = parts(name)
    assert now.keys() == measured.keys()
    assert all(now[part] == data for part, data in measured.items() if part != lost)


@pytest.mark.parametrize(
    ("name", "other", "said"),
    [
        ("importance", ("--ablation", "zero"), "another main"),
        ("overlay", ("--seed", "1"), "another"),
        ("strength", ("--guidance", "2"), "another options.decode.guidance"),
        ("decoder", ("--heads", "2"), "another options"),
    ],
)
def test_other_options_are_refused_and_nothing_is_touched(
    name: str, other: tuple[str, ...], said: str, before: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    held = {path: path.read_bytes() for path in Path(name).rglob("*") if path.is_file()}
    assert main(with_option(study(name, name), *other)) == 2
    error = capsys.readouterr().err
    assert f"{name} holds a study with {said}" in error and "give another --out, or remove that folder" in error
    assert {path: path.read_bytes() for path in held} == held


def test_another_pair_is_refused(before: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The same name, but other weights: hashes decide."""
    config = before / "pair" / "decoder" / "movq" / "config.json"
    config.write_text(config.read_text() + "\n")
    assert main(study("importance", "importance-half")) == 2
    error = capsys.readouterr().err
    assert "holds a study with another models.sha256.movq/config.json" in error and "give another --out" in error


def test_one_page_holds_them_all(before: Path) -> None:
    """Of studies without figures, which `study` draws, and not the page."""
    assert main(["study", "page", ".", "--out", "docs"]) == 0
    assert all(f"studies/{name}.md" in Path("docs/studies.md").read_text() for name in STUDIES)
    for name in STUDIES:
        text = Path("docs/studies", f"{name}.md").read_text()
        assert json.loads(Path("docs/studies", f"{name}.json").read_bytes()) == summary(name)
        assert summary(name).get("command", "steerlens study importance") in text


@pytest.mark.parametrize("name", STUDIES)
def test_a_summary_of_no_known_version_is_refused_by_the_page(
    name: str, before: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path(name, "summary.json").write_text(json.dumps({"n_pictures": 2}))
    assert main(["study", "page", ".", "--out", "docs"]) == 2
    error = capsys.readouterr().err
    assert name in error and "another version of steerlens" in error and "run that study again" in error
    assert not Path("docs").exists()
