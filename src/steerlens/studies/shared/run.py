"""Running a study: open its folder, measure, freeze choices, measure to report, summarise, write.

A study is an `Experiment` of four steps, each of which needs only the result of the step before. `run_experiment` runs
them in a folder and resumes from the parts that are there.
"""

import io
from abc import ABC, abstractmethod
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq
from matplotlib.figure import Figure

from steerlens.printable import json_without_folders
from steerlens.progress import Progress
from steerlens.report import render
from steerlens.studies.shared.folder import StudyFolder, open_study
from steerlens.studies.shared.records import StudySummary
from steerlens.studies.shared.work import Work
from steerlens.zoo import Pair

_Measured = TypeVar("_Measured")
_Summary = TypeVar("_Summary", bound=StudySummary)


@dataclass(frozen=True, eq=False)
class Output:
    """Files of a study beside its summary.

    Attributes:
        rows: rows of `table.parquet`.
        figures: figures by name, written as PNG and SVG.
        files: contents of further JSON files, by file name.
    """

    rows: Sequence[Mapping[str, Any]]
    figures: Mapping[str, Figure]
    files: Mapping[str, Mapping[str, Any]] = field(default_factory=dict[str, Mapping[str, Any]])


class Experiment(ABC, Generic[_Measured, _Summary]):
    """A study with its models, pictures and options."""

    pair: Pair

    @abstractmethod
    def identity(self) -> dict[str, Any]:
        """JSON values that a call must share with an earlier one to resume its study."""

    @abstractmethod
    def work(self) -> Work:
        """Counts what the study computes in all; needs no more of the models than their specs."""

    @abstractmethod
    def measure(self, folder: StudyFolder) -> Generator[Progress, None, _Measured]:
        """Measures the parts that the folder lacks, and returns all parts."""

    @abstractmethod
    def summarise(self, measured: _Measured) -> Generator[Progress, None, _Summary]:
        """Computes the summary from the parts and nothing else."""

    @abstractmethod
    def output(self, measured: _Measured, summary: _Summary) -> Output:
        """Builds the table and the figures."""


def run_experiment(experiment: Experiment[_Measured, _Summary], folder: Path) -> Generator[Progress, None, _Summary]:
    """Runs a study in a folder, resuming from the parts that are there, and returns its summary.

    Raises:
        UsageError: if the folder holds another study.
        StoreError: if it cannot be written; finished parts stay.
    """
    with open_study(folder, experiment.identity()) as opened:
        measured = yield from experiment.measure(opened)
        summary = yield from experiment.summarise(measured)
        output = experiment.output(measured, summary)
        opened.write_json("summary.json", summary.to_json())
        for name, values in output.files.items():
            opened.write_json(name, values)
        opened.write_json("provenance.json", json_without_folders(experiment.pair.provenance.to_json()))
        opened.write("table.parquet", parquet(output.rows))
        for name, figure in output.figures.items():
            save_figure(opened, name, figure)
        return summary


def save_figure(folder: StudyFolder, name: str, figure: Figure) -> None:
    """Writes `figures/NAME.png` and `figures/NAME.svg`, the same bytes every time."""
    for kind in ("png", "svg"):
        folder.write(f"figures/{name}.{kind}", render(figure, kind))


def parquet(rows: Sequence[Mapping[str, Any]]) -> bytes:
    """Content of a parquet file with these rows."""
    buffer = io.BytesIO()
    pq.write_table(pa.Table.from_pylist([dict(row) for row in rows]), buffer)
    return buffer.getvalue()
