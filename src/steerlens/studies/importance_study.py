"""The importance study from end to end: measure to choose, freeze, measure to report, summarise, draw."""

from collections.abc import Generator
from pathlib import Path
from typing import Any

from steerlens.encoders.base import Encoder
from steerlens.errors import UsageError
from steerlens.studies.drawing import save_figure, save_table
from steerlens.studies.effects import Ablation
from steerlens.studies.folder import StudyFolder, open_study
from steerlens.studies.importance import (
    ImportanceOptions,
    make_bench,
    measure_choice,
    measure_report,
    part_name,
    subject_targets,
)
from steerlens.studies.importance_figures import correlation_figure, layer_figure, scatter_figure
from steerlens.studies.importance_summary import Effect, Parts, Summary, choose, summarise, table_rows
from steerlens.studies.subjects import Subject, SubjectSet
from steerlens.sweep.engine import Advanced
from steerlens.zoo.pair import Pair


def importance_study(
    pair: Pair,
    subjects: SubjectSet,
    options: ImportanceOptions,
    folder: Path,
    *,
    ablation: Ablation = "mean",
    target: str = "",
    judge: Encoder | None = None,
    draws: int = 1000,
) -> Generator[Advanced, None, Summary]:
    """Carries the study out in a folder, going on with what is there, and returns its summary.

    Args:
        pair: encoder and decoder.
        subjects: pictures to choose on and to report on.
        options: what to measure.
        folder: where to write.
        ablation: which one the main effect is of; all of the options' are reported.
        target: `text` or `other`, of the main effect; by default the text if there is one.
        judge: an outside encoder that sees the decoded pictures as well.
        draws: bootstrap draws of the intervals.

    Raises:
        UsageError: if the folder holds another study, or there is no such target.
        StoreError: if it cannot be written; finished parts stay.
    """
    if ablation not in options.ablations:
        raise UsageError(f"the main ablation {ablation} is not among those measured: {', '.join(options.ablations)}.")
    main = Effect("total", target_for(pair, subjects, target), ablation)
    with open_study(folder, identity(pair, subjects, options, main, judge)) as study:
        yield Advanced("references", 0, 1)
        bench = make_bench(pair, subjects.reference, judge)
        yield Advanced("references", 1, 1)
        yield from measure_choice(bench, subjects, options, study)
        parts = _parts(study, "choose", subjects.chosen)
        choices = {
            "steering": choose(parts, options.steering, main),
            "diffusion": choose(parts, options.diffusion, main),
        }
        study.freeze({lens: choice.to_json() for lens, choice in choices.items()}, str(main))
        winners = [choice.setting for choice in choices.values()]
        yield from measure_report(bench, subjects, options, winners, study)
        parts = _parts(study, "report", subjects.reported)
        concepts = [subject.concept for subject in subjects.reported]
        yield Advanced("statistics", 0, 1)
        summary = summarise(parts, concepts, bench.sites, choices, main, draws=draws)
        yield Advanced("statistics", 1, 1)
        pictures = [(subject.id, subject.concept) for subject in subjects.reported]
        rows = table_rows(parts, pictures, bench.sites, choices, main)
        study.write_json("summary.json", summary.to_json())
        study.write_json("provenance.json", dict(pair.provenance))
        save_table(study, rows)
        save_figure(study, "correlations", correlation_figure(summary))
        save_figure(study, "heads", scatter_figure(summary, rows))
        save_figure(study, "layers", layer_figure(summary))
        return summary


def target_for(pair: Pair, subjects: SubjectSet, wanted: str = "") -> str:
    """What signed effects are taken towards: what is wanted, or else the labels' texts, or other pictures.

    Raises:
        UsageError: if it is not there for all pictures.
    """
    everyone = [subject_targets(pair, subject) for subject in (*subjects.chosen, *subjects.reported)]
    for name in (wanted,) if wanted else ("text", "other"):
        if all(name in targets for targets in everyone):
            return name
    missing = {
        "text": "no text of each label (this model reads none)",
        "other": "no other picture of each concept",
        "": "neither a label's text nor another picture of each concept",
    }
    raise UsageError(f"no target is there for all pictures: {missing[wanted]}.")


def _parts(study: StudyFolder, stage: str, subjects: tuple[Subject, ...]) -> Parts:
    return [study.part(part_name(stage, subject)) for subject in subjects]


def identity(
    pair: Pair, subjects: SubjectSet, options: ImportanceOptions, main: Effect, judge: Encoder | None
) -> dict[str, Any]:
    """What two calls must share to go on with one study, as JSON values."""
    return {
        "study": "importance",
        "models": model_identity(pair, judge),
        "subjects": subjects.identity(),
        "main": str(main),
        "options": {
            "seeds": list(options.seeds),
            "ablations": list(options.ablations),
            "steering": [str(setting) for setting in options.steering],
            "diffusion": [str(setting) for setting in options.diffusion],
            "decode": options.decode.decisive(),
        },
    }


def model_identity(pair: Pair, judge: Encoder | None) -> dict[str, Any]:
    """Which models a study is about: names, and hashes of their weights."""
    return {
        "pair": pair.name,
        "encoder": pair.encoder.spec.name,
        "decoder": pair.decoder.spec.name,
        "sha256": pair.provenance.get("sha256", {}),
        "judge": None if judge is None else judge.spec.name,
    }
