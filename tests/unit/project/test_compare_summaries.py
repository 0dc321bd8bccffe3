"""`benchmarks/compare_summaries.py` names every difference, and ignores times and versions."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from compare_summaries import differences, main


def write(folder: Path, value: float, seconds: float) -> None:
    study = folder / "importance"
    study.mkdir(parents=True)
    summary = {"rows": [{"name": "steering", "value": value}, {"name": "diffusion", "value": None}], "seconds": seconds}
    (study / "summary.json").write_text(json.dumps(summary))
    (study / "timings.json").write_text(json.dumps({"steps": seconds}))
    pq.write_table(pa.table({"head": ["head.0.0"], "score": [value]}), study / "table.parquet")
    (folder / "printed.txt").write_text(f"machine {seconds}\nclosed form  {seconds} s for all\ndistance     {value}\n")


def test_equal_results_of_other_days_are_equal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(tmp_path / "old", 0.5, 1.0)
    write(tmp_path / "new", 0.5, 2.0)
    assert main([str(tmp_path / "old"), str(tmp_path / "new")]) == 0
    assert capsys.readouterr().out == "3 files compared, 0 differ, 0 on one side alone\n"


def test_every_kind_of_file_tells_a_last_digit(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(tmp_path / "old", 0.5, 1.0)
    write(tmp_path / "new", 0.5001, 1.0)
    assert main([str(tmp_path / "old"), str(tmp_path / "new")]) == 1
    assert capsys.readouterr().out.splitlines() == [
        "importance/summary.json: /rows[0]/value: 0.5 -> 0.5001",
        "importance/table.parquet: /score[0]: 0.5 -> 0.5001",
        'printed.txt: [0]: "distance     0.5" -> "distance     0.5001"',
        "3 files compared, 3 differ, 0 on one side alone",
    ]


def test_a_file_on_one_side_alone_is_a_difference(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(tmp_path / "old", 0.5, 1.0)
    write(tmp_path / "new", 0.5, 1.0)
    (tmp_path / "new" / "importance" / "table.parquet").unlink()
    assert main([str(tmp_path / "old"), str(tmp_path / "new")]) == 1
    assert f"importance/table.parquet: only in {tmp_path / 'old'}" in capsys.readouterr().out


def test_nothing_to_compare_is_no_success(tmp_path: Path) -> None:
    write(tmp_path / "old", 0.5, 1.0)
    (tmp_path / "new").mkdir()
    assert main([str(tmp_path / "old"), str(tmp_path / "new")]) == 2


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ({"a": 1}, {}, "/a: 1 -> (not there)"),
        ({}, {"a": None}, "/a: (not there) -> null"),
        ([1, 2], [1], "value: 2 values -> 1 values"),
        (True, 1, "value: true -> 1"),
        (0, None, "value: 0 -> null"),
        ({"a": [{"b": "x"}]}, {"a": [{"b": "y"}]}, '/a[0]/b: "x" -> "y"'),
    ],
)
def test_a_difference_is_named_by_its_place(old: Any, new: Any, said: str) -> None:
    assert list(differences(old, new)) == [said]


def test_a_tolerance_is_one_of_numbers_alone() -> None:
    assert list(differences([1.0, "a"], [1.05, "a"], tolerance=0.1)) == []
    assert list(differences([1.0, "a"], [1.2, "b"], tolerance=0.1)) == ["[0]: 1.0 -> 1.2", '[1]: "a" -> "b"']
