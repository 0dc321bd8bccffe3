"""Pages of results, written from summaries: a page for each study, one for each model, and one that compares models."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from steerlens import studies
from steerlens.errors import StoreError, UsageError
from steerlens.report import render
from steerlens.storage import atomic_write
from steerlens.studies.compare import ComparedModel, compare_figure, compare_page, opening_sentences
from steerlens.studies.shared.folder import read_json
from steerlens.studies.shared.markdown import Bar, figure, met, table
from steerlens.studies.shared.records import Record, StudySummary
from steerlens.studies.shared.study import Study

PAIR_FIGURES = "pair.json"
"""File with the bundled pair's own figures, beside the studies, if they were measured."""

BUNDLED = "emoji"
"""Name of the bundled pair."""

_GATE = ("heads that matter", "of them in the last third")
"""Figures that the bundled pair must reach before studies on it mean much."""

_VERDICT_HEAD = """\
# Does it tell the truth{named}?

A lens is worth what interventions confirm. This page summarises the results of `steerlens study` on {on}. `steerlens
study page` writes it, and a page for each study, from their summaries. The same commands run on any model and any
folder of pictures.
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
        data: content of the summary's file, with the conclusion in the words of this version.
        figures: paths of its figures, if they lie beside the summary.
    """

    study: Study[Any, Any]
    summary: Any
    model: str = ""
    data: bytes = b""
    figures: Sequence[Path] = ()


@dataclass(frozen=True, eq=False)
class ModelResults:
    """Finished studies of one model.

    Attributes:
        name: name of the model for readers.
        results: its finished studies.
        figures: figures of the pair itself, if they were measured.
        pair: file of these figures.
        folder: name of the folder that holds the studies.
    """

    name: str
    results: Sequence[Finished]
    figures: Sequence[PairFigure] = ()
    pair: Path | None = None
    folder: str = ""

    @property
    def model(self) -> str:
        """Name of the model alone, without the kind of pictures."""
        return next((finished.model for finished in self.results if finished.model), self.name)

    @property
    def slug(self) -> str:
        """Name of its folder of pages."""
        return re.sub(r"[^\w.]+", "-", self.name).strip("-") or "model"


def write_page(folders: Path | Sequence[Path], out: Path) -> Path:
    """Writes pages of results, summaries and figures of one model or of several.

    One model gets `studies.md` and `studies/NAME.md`. Several models get `studies.md`, which compares them, a page
    `studies/MODEL.md` each, and `studies/MODEL/NAME.md`. Summaries lie beside the pages of the studies, figures in
    `images/studies`. Figures that a summary determines are drawn anew; the others are copied from beside it.

    Args:
        folders: for each model, the folder of one study, or a folder that holds a folder for each study, by name; or a
            folder of summaries that this function wrote.
        out: where to write.

    Returns:
        The path of the verdict page, or of the page that compares the models.

    Raises:
        UsageError: if no study is finished, or another version wrote a summary.
        StoreError: if a summary cannot be read, or a page cannot be written.
    """
    given = [folders] if isinstance(folders, Path) else list(folders)
    models = named_apart([model for folder in given for model in read_models(folder)])
    if len(models) == 1:
        _write_model(models[0], out, "")
        pages = {out / "studies.md": verdict_page(models[0].results, models[0].figures)}
    else:
        for model in models:
            _write_model(model, out, model.slug)
        pages = {
            out / "studies" / f"{model.slug}.md": verdict_page(
                model.results, model.figures, base=f"{model.slug}/", name=model.name
            )
            for model in models
        }
        compared = [
            ComparedModel(
                model.name,
                f"studies/{model.slug}.md",
                [(finished.study, finished.summary) for finished in model.results],
                model.model,
            )
            for model in models
        ]
        if (drawn := compare_figure(compared)) is not None:
            atomic_write(out / "images" / "studies" / "compared.png", render(drawn, "png"))
        pages[out / "studies.md"] = compare_page(compared)
    for path, text in pages.items():
        atomic_write(path, text.encode())
    return out / "studies.md"


def _write_model(model: ModelResults, out: Path, inside: str) -> None:
    """Writes the pages of a model's studies, their summaries and figures, into a folder of its own if it has a name."""
    for finished in model.results:
        name, text = finished.study.name, study_page(finished)
        if inside:
            text = text.replace("](../images/studies/", f"](../../images/studies/{inside}/")
        atomic_write(out / "studies" / inside / f"{name}.md", text.encode())
        atomic_write(out / "studies" / inside / f"{name}.json", finished.data)
        images = out / "images" / "studies" / inside
        drawn = finished.study.report.figures(finished.summary) if finished.figures else {}
        for path in finished.figures:
            if path.stem not in drawn:
                atomic_write(images / f"{name}-{path.name}", path.read_bytes())
        for own, shown in drawn.items():
            atomic_write(images / f"{name}-{own}.png", render(shown, "png"))
    if model.figures and model.pair is not None:
        atomic_write(out / "studies" / inside / PAIR_FIGURES, model.pair.read_bytes())


def read_models(folder: Path) -> list[ModelResults]:
    """Reads the finished studies of a folder, or of the folders in it if there are several models; see `write_page`.

    Raises:
        UsageError: if no study is finished, or another version wrote a summary.
        StoreError: if a summary cannot be read.
    """
    inside = [path for path in sorted(folder.glob("*/")) if path.name not in studies.STUDIES and _has_studies(path)]
    if inside and not _has_studies(folder) and not (folder / "study.json").is_file():
        return [model for path in inside for model in read_models(path)]
    results = find_studies(folder)
    name = next((finished.model for finished in results if finished.model), folder.name)
    pair = folder / PAIR_FIGURES
    return [ModelResults(name, results, read_pair_figures(pair), pair, folder.name)]


def _has_studies(folder: Path) -> bool:
    return any(
        (folder / name / "summary.json").is_file() or (folder / f"{name}.json").is_file() for name in studies.STUDIES
    )


def named_apart(models: Sequence[ModelResults]) -> list[ModelResults]:
    """Tells models of the same name apart by their folders, such as one model studied on two kinds of pictures."""
    taken: list[ModelResults] = []
    for model in models:
        name, number = model.name, 1
        while any(other.name == name for other in taken):
            number += 1
            pictures = model.folder.removeprefix(f"{model.name}-").replace("-", " ")
            name = f"{model.name} ({pictures if number == 2 and pictures else number})"
        taken.append(replace(model, name=name))
    return taken


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
            finished.append(Finished(study, summary, Path(model).name, _published(path, values, summary), figures))
    if not finished:
        raise UsageError(
            f"{folder} holds no finished study: it needs a summary.json, or a finished study in a folder named "
            f"{', '.join(studies.STUDIES)}."
        )
    return finished


def _published(path: Path, values: Mapping[str, Any], summary: StudySummary) -> bytes:
    """Content of a file of a summary; a conclusion in it gets the words of this version, as on the page."""
    words = summary.conclusion_words()
    if not words or values.get("conclusion") in (None, words):
        return path.read_bytes()
    return (json.dumps({**values, "conclusion": words}, indent=1, ensure_ascii=False) + "\n").encode()


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
    """Writes the page of a study as markdown: its conclusion, findings, tables and figures."""
    study, report, summary = finished.study, finished.study.report, finished.summary
    findings = "\n".join(f"- {finding.text}" for finding in report.findings(summary))
    parts = [f"# {study.title}\n", f"{study.question} Measured on {_in_words(finished.model)}.\n"]
    if (conclusion := report.conclusion(summary)) is not None:
        sentences = "\n".join(f"{number}. {text}" for number, text in enumerate(conclusion.sentences, start=1))
        parts += [f"{sentences}\n", f"**Next step:** {conclusion.next_step}\n"]
        if report.opening is not None:
            caption, name = report.opening
            parts.append(figure(caption, f"{study.name}-{name}"))
    parts += [f"## Findings\n\n{findings}\n", "## How it was measured\n"] if findings else []
    text = "\n".join([*parts, report.section(summary)])
    return text.rstrip() + "\n"


def verdict_page(
    results: Sequence[Finished], figures: Sequence[PairFigure] = (), *, base: str = "studies/", name: str = ""
) -> str:
    """Writes the page of a model as markdown: plain sentences, a figure, headline findings, and the bars.

    Args:
        results: the finished studies.
        figures: of the bundled pair, which has to pass a gate before all studies.
        base: path from this page to the pages of the studies.
        name: name of the model and its pictures, for the heading; empty if this is the only model.
    """
    on = _pairs_in_words(results)
    studied = [finished.study for finished in results]
    links = "\n".join(f"- [{study.title}]({base}{study.name}.md): {study.question}" for study in studied)
    bars = [
        Bar(
            f"gate, on the bundled pair: {own.name} (`steerlens train evaluate`)",
            f"{own.value:g}",
            f"{own.bar:g}",
            met(own.value >= own.bar),
        )
        for own in figures
        if own.name in _GATE and own.bar is not None
    ]
    bars += [bar for finished in results for bar in finished.study.report.bars(finished.summary)]
    parts = [
        _VERDICT_HEAD.format(on=on, named=f" on {name}" if name else ""),
        *_opening(results, base),
        "## The studies\n",
        links + "\n",
    ]
    for finished in results:
        findings = finished.study.report.findings(finished.summary)
        if headlines := [finding.text for finding in findings if finding.headline]:
            parts += [f"## {finished.study.title}\n", "\n".join(f"- {text}" for text in headlines) + "\n"]
    parts += ["## The bars\n", table(["measure", f"on {on}", "bar", ""], [bar.cells for bar in bars])]
    return "\n".join(parts).rstrip() + "\n"


def _opening(results: Sequence[Finished], base: str) -> list[str]:
    """Plain sentences, and the first study's figure that anybody understands."""
    sentences = opening_sentences([(finished.study, finished.summary) for finished in results])
    parts = ["\n".join(f"{number}. {text}" for number, text in enumerate(sentences, start=1)) + "\n"]
    for finished in results:
        report = finished.study.report
        if report.opening is not None and report.conclusion(finished.summary) is not None:
            caption, name = report.opening
            images = f"images/{base}" if base == "studies/" else f"../images/studies/{base}"
            return [*parts, f"![{caption}]({images}{finished.study.name}-{name}.png)\n"]
    return parts


def _in_words(model: str) -> str:
    if not model:
        return "a pair without a recorded name"
    return f"`{model}`, the bundled pair" if model == BUNDLED else f"`{model}`"


def _pairs_in_words(results: Sequence[Finished]) -> str:
    named = {finished.study.name: _in_words(finished.model) for finished in results if finished.model}
    if len(set(named.values())) > 1:
        return "several pairs (" + ", ".join(f"{study}: {model}" for study, model in named.items()) + ")"
    return next(iter(named.values()), _in_words(""))
