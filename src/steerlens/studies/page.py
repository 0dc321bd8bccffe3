"""The pages of results: a verdict page and a page a study, written from summaries; no number is typed by hand."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from steerlens import studies
from steerlens.errors import StoreError, UsageError
from steerlens.storage.files import atomic_write
from steerlens.studies.shared.folder import read_json
from steerlens.studies.shared.markdown import Bar, met, table
from steerlens.studies.shared.records import Record
from steerlens.studies.shared.study import Study

PAIR_FIGURES = "pair.json"
"""The bundled pair's own figures, among the studies, if they were measured."""

BUNDLED = "emoji"
"""The name of the bundled pair."""

_GATE = ("heads that matter", "of them in the last third")
"""Figures of the bundled pair without which no study on it means much."""

_VERDICT_HEAD = """\
# Does it tell the truth?

A lens is worth what interventions confirm. This page sums up the results of `steerlens study` on {on}; `steerlens study
page` writes it, and a page for each study, from the summaries in [docs/studies](studies), figures included. Run the
same commands on any model and any folder of pictures.

{links}
"""


@dataclass(frozen=True)
class PairFigure(Record):
    """A figure of the pair itself.

    Attributes:
        name: of the figure.
        value: as measured.
        bar: its bar, or None.
    """

    name: str
    value: float
    bar: float | None = None


@dataclass(frozen=True, eq=False)
class Finished:
    """A study that is finished.

    Attributes:
        study: which one.
        summary: its summary.
        model: name of the pair that it is about, empty if that is not known.
        data: the file of the summary.
        figures: its figures, if they lie beside the summary.
    """

    study: Study[Any, Any]
    summary: Any
    model: str = ""
    data: bytes = b""
    figures: Sequence[Path] = ()


def write_page(folder: Path, out: Path) -> Path:
    """Writes `studies.md`, `studies/NAME.md`, `studies/NAME.json` and `images/studies/NAME-FIGURE.png`.

    Args:
        folder: a study's own folder; or one that holds a folder for each study, by its name; or one that holds
            summaries as this function writes them.
        out: where to write.

    Returns:
        The path of the verdict page.

    Raises:
        UsageError: if no study is finished, or another version wrote a summary.
        StoreError: if a summary cannot be read, or a page cannot be written.
    """
    finished = find_studies(folder)
    pair = folder / PAIR_FIGURES
    figures = read_pair_figures(pair)
    pages = {out / "studies.md": verdict_page(finished, figures)}
    pages |= {out / "studies" / f"{one.study.name}.md": study_page(one) for one in finished}
    for one in finished:
        atomic_write(out / "studies" / f"{one.study.name}.json", one.data)
        for figure in one.figures:
            atomic_write(out / "images" / "studies" / f"{one.study.name}-{figure.name}", figure.read_bytes())
    if figures:
        atomic_write(out / "studies" / PAIR_FIGURES, pair.read_bytes())
    for path, text in pages.items():
        atomic_write(path, text.encode())
    return out / "studies.md"


def find_studies(folder: Path) -> list[Finished]:
    """The finished studies of a folder; see `write_page`.

    Raises:
        UsageError: if there is none, or another version wrote a summary.
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
        if not path.is_file():
            path = folder / f"{study.name}.json"
        if (values := read_json(path)) is not None:
            summary = study.read(values, str(path))
            model = _model_of(read_json(own / "study.json")) or study.model(summary)
            figures = sorted((own / "figures").glob("*.png"))
            finished.append(Finished(study, summary, model, path.read_bytes(), figures))
    if not finished:
        raise UsageError(
            f"{folder} holds no finished study: neither is it a study's folder with a summary.json, nor does it hold "
            f"any of {', '.join(studies.STUDIES)}."
        )
    return finished


def read_pair_figures(path: Path) -> list[PairFigure]:
    """Figures of the pair from `steerlens train evaluate --json`; nothing if there is no such file.

    Raises:
        StoreError: if the file cannot be read.
    """
    values = read_json(path)
    if values is None:
        return []
    figures = values.get("figures")
    if not isinstance(figures, list):
        raise StoreError(f"{path} lacks 'figures'; steerlens train evaluate --json writes them.")
    return [PairFigure.from_json(one, f"{path}: figures[{place}]") for place, one in enumerate(figures)]  # type: ignore[misc]


def _model_of(manifest: Mapping[str, Any] | None) -> str:
    """The name of the pair that a study is about, as a reader may see it: without the folders that it lies in."""
    return Path(str((manifest or {}).get("models", {}).get("pair", ""))).name


def study_page(finished: Finished) -> str:
    """The page of one study as markdown: its findings, tables and figures."""
    study, summary = finished.study, finished.summary
    findings = "\n".join(f"- {finding.text}" for finding in study.findings(summary))
    parts = [f"# {study.title}\n", f"{study.question} On {_in_words(finished.model)}.\n"]
    parts += [f"## Findings\n\n{findings}\n", "## How it was measured\n"] if findings else []
    text = "\n".join([*parts, study.section(summary)])
    return text.rstrip() + "\n"


def verdict_page(finished: Sequence[Finished], figures: Sequence[PairFigure] = ()) -> str:
    """The page of verdicts as markdown: the bars, and the headline findings of every study.

    Args:
        finished: the studies.
        figures: of the bundled pair, for the gate before all studies.
    """
    on = _on_what(finished)
    links = "\n".join(f"- [{one.study.title}](studies/{one.study.name}.md): {one.study.question}" for one in finished)
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
    bars += [bar for one in finished for bar in one.study.bars(one.summary)]
    parts = [
        _VERDICT_HEAD.format(on=on, links=links),
        "## The bars\n",
        table(["what", f"on {on}", "bar", ""], [bar.cells for bar in bars]),
    ]
    for one in finished:
        headlines = [finding.text for finding in one.study.findings(one.summary) if finding.headline]
        if headlines:
            parts += [f"## {one.study.title}\n", "\n".join(f"- {text}" for text in headlines) + "\n"]
    return "\n".join(parts).rstrip() + "\n"


def _in_words(model: str) -> str:
    return "the bundled pair" if model == BUNDLED else f"`{model}`" if model else "the pair that was given"


def _on_what(finished: Sequence[Finished]) -> str:
    named = {one.study.name: _in_words(one.model) for one in finished if one.model}
    if len(set(named.values())) > 1:
        return "several pairs (" + ", ".join(f"{study}: {model}" for study, model in named.items()) + ")"
    return next(iter(named.values()), _in_words(""))
