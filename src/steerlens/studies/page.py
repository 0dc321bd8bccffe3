"""Pages of results: a verdict page and a page for each study, written from summaries; no number is typed by hand."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from steerlens import studies
from steerlens.errors import StoreError, UsageError
from steerlens.storage import atomic_write
from steerlens.studies.shared.folder import read_json
from steerlens.studies.shared.markdown import Bar, met, table
from steerlens.studies.shared.records import Record
from steerlens.studies.shared.study import Study

PAIR_FIGURES = "pair.json"
"""File with the bundled pair's own figures, beside the studies, if they were measured."""

BUNDLED = "emoji"
"""Name of the bundled pair."""

_GATE = ("heads that matter", "of them in the last third")
"""Figures that the bundled pair must reach before studies on it mean much."""

_VERDICT_HEAD = """\
# Does it tell the truth?

A lens is worth what interventions confirm. This page summarises the results of `steerlens study` on {on}. `steerlens
study page` writes it, and a page for each study, from the summaries in [docs/studies](studies). The same commands run
on any model and any folder of pictures.

{links}
"""


@dataclass(frozen=True)
class PairFigure(Record):
    """A measured figure of the pair itself.

    Attributes:
        name: what was measured, in words.
        value: the measured value.
        bar: the value to reach, or None.
    """

    name: str
    value: float
    bar: float | None = None


@dataclass(frozen=True, eq=False)
class Finished:
    """A finished study with its results.

    Attributes:
        study: the study.
        summary: its summary.
        model: name of the studied pair, without folders; empty if unknown.
        data: content of the summary's file.
        figures: paths of its figures, if they lie beside the summary.
    """

    study: Study[Any, Any]
    summary: Any
    model: str = ""
    data: bytes = b""
    figures: Sequence[Path] = ()


def write_page(folder: Path, out: Path) -> Path:
    """Writes `studies.md`, `studies/NAME.md`, `studies/NAME.json` and `images/studies/NAME-FIGURE.png`.

    Args:
        folder: the folder of one study; or a folder that holds a folder for each study, by name; or a folder of
            summaries that this function wrote.
        out: where to write.

    Returns:
        The path of the verdict page.

    Raises:
        UsageError: if no study is finished, or another version wrote a summary.
        StoreError: if a summary cannot be read, or a page cannot be written.
    """
    results = find_studies(folder)
    pair = folder / PAIR_FIGURES
    figures = read_pair_figures(pair)
    pages = {out / "studies.md": verdict_page(results, figures)}
    pages |= {out / "studies" / f"{finished.study.name}.md": study_page(finished) for finished in results}
    for finished in results:
        name = finished.study.name
        atomic_write(out / "studies" / f"{name}.json", finished.data)
        for figure in finished.figures:
            atomic_write(out / "images" / "studies" / f"{name}-{figure.name}", figure.read_bytes())
    if figures:
        atomic_write(out / "studies" / PAIR_FIGURES, pair.read_bytes())
    for path, text in pages.items():
        atomic_write(path, text.encode())
    return out / "studies.md"


def find_studies(folder: Path) -> list[Finished]:
    """Reads the finished studies of a folder; see `write_page`.

    Raises:
        UsageError: if no study is finished, or another version wrote a summary.
        StoreError: if a summary cannot be read.
    """
    manifest = read_json(folder / "study.json")
    if manifest is not None and "study" in manifest:
        name = str(manifest["study"])
        if name not in studies.STUDIES:
            raise UsageError(f"{folder} holds a study {name!r}, which this version of steerlens does not know.")
        candidates = [(studies.STUDIES[name], folder)]
    else:
        candidates = [(study, folder / name) for name, study in studies.STUDIES.items()]
    finished: list[Finished] = []
    for study, own in candidates:
        path = own / "summary.json"
        if not path.exists():
            path = folder / f"{study.name}.json"
        if (values := read_json(path)) is not None:
            summary = study.read(values, str(path))
            model = _pair_of(own / "study.json") or study.report.model(summary)
            figures = sorted(path for path in (own / "figures").glob("*.png") if path.is_file())
            finished.append(Finished(study, summary, Path(model).name, path.read_bytes(), figures))
    if not finished:
        raise UsageError(
            f"{folder} holds no finished study: it needs a summary.json, or a finished study in a folder named "
            f"{', '.join(studies.STUDIES)}."
        )
    return finished


def read_pair_figures(path: Path) -> list[PairFigure]:
    """Reads the pair's figures, written by `steerlens train evaluate --json`; empty without the file.

    Raises:
        StoreError: if the file cannot be read.
    """
    advice = "steerlens train evaluate --json writes it"
    values = read_json(path, advice)
    if values is None:
        return []
    figures = values.get("figures")
    if not isinstance(figures, list):
        raise StoreError(f"{path} lacks a list of 'figures'; {advice}.")
    return [PairFigure.from_json(values, f"{path}: figures[{place}]") for place, values in enumerate(figures)]  # type: ignore[misc]


def _pair_of(path: Path) -> str:
    """Name of the pair in the `study.json` of a study; empty without the file."""
    manifest = read_json(path)
    if manifest is None:
        return ""
    models: Any = manifest.get("models", {})
    pair: Any = models.get("pair", "") if isinstance(models, dict) else None  # type: ignore[misc]
    if not isinstance(pair, str):
        raise StoreError(f"{path} names no pair under 'models' and is damaged; restore it from a copy, or remove it.")
    return pair


def study_page(finished: Finished) -> str:
    """Writes the page of a study as markdown: its findings, tables and figures."""
    study, report, summary = finished.study, finished.study.report, finished.summary
    findings = "\n".join(f"- {finding.text}" for finding in report.findings(summary))
    parts = [f"# {study.title}\n", f"{study.question} Measured on {_in_words(finished.model)}.\n"]
    parts += [f"## Findings\n\n{findings}\n", "## How it was measured\n"] if findings else []
    text = "\n".join([*parts, report.section(summary)])
    return text.rstrip() + "\n"


def verdict_page(results: Sequence[Finished], figures: Sequence[PairFigure] = ()) -> str:
    """Writes the verdict page as markdown: the bars, and the headline findings of every study.

    Args:
        results: the finished studies.
        figures: of the bundled pair, which has to pass a gate before all studies.
    """
    on = _pairs_in_words(results)
    studied = [finished.study for finished in results]
    links = "\n".join(f"- [{study.title}](studies/{study.name}.md): {study.question}" for study in studied)
    bars = [
        Bar(
            f"gate, on the bundled pair: {figure.name} (`steerlens train evaluate`)",
            f"{figure.value:g}",
            f"{figure.bar:g}",
            met(figure.value >= figure.bar),
        )
        for figure in figures
        if figure.name in _GATE and figure.bar is not None
    ]
    bars += [bar for finished in results for bar in finished.study.report.bars(finished.summary)]
    parts = [
        _VERDICT_HEAD.format(on=on, links=links),
        "## The bars\n",
        table(["measure", f"on {on}", "bar", ""], [bar.cells for bar in bars]),
    ]
    for finished in results:
        findings = finished.study.report.findings(finished.summary)
        if headlines := [finding.text for finding in findings if finding.headline]:
            parts += [f"## {finished.study.title}\n", "\n".join(f"- {text}" for text in headlines) + "\n"]
    return "\n".join(parts).rstrip() + "\n"


def _in_words(model: str) -> str:
    return "the bundled pair" if model == BUNDLED else f"`{model}`" if model else "a pair without a recorded name"


def _pairs_in_words(results: Sequence[Finished]) -> str:
    named = {finished.study.name: _in_words(finished.model) for finished in results if finished.model}
    if len(set(named.values())) > 1:
        return "several pairs (" + ", ".join(f"{study}: {model}" for study, model in named.items()) + ")"
    return next(iter(named.values()), _in_words(""))
