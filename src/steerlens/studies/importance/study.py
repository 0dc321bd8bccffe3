"""The importance study from end to end: measure to choose, freeze, measure to report, summarise, draw."""

from collections.abc import Generator
from dataclasses import replace
from pathlib import Path
from typing import Any

from steerlens.encoders.base import Encoder
from steerlens.errors import UsageError
from steerlens.progress import Progress
from steerlens.studies.importance.figures import correlation_figure, layer_figure, scatter_figure
from steerlens.studies.importance.measure import (
    ImportanceOptions,
    label_direction,
    make_bench,
    measure_choice,
    measure_report,
    part_name,
)
from steerlens.studies.importance.results import LAYOUT, Setup, Summary
from steerlens.studies.importance.summary import summarise, table_rows
from steerlens.studies.shared.drawing import save_figure, save_table
from steerlens.studies.shared.effects import Ablation
from steerlens.studies.shared.folder import StudyFolder, open_study
from steerlens.studies.shared.judge import judge_name, models_of
from steerlens.studies.shared.notions import GIVEN, OTHER, TEXT, Effect, Parts, Scope, with_targets
from steerlens.studies.shared.scores import choose_all
from steerlens.studies.shared.subjects import Subject, SubjectSet
from steerlens.zoo.pair import Pair


def importance_study(
    pair: Pair,
    subjects: SubjectSet,
    options: ImportanceOptions,
    folder: Path,
    *,
    scope: Scope = "total",
    signed: bool = True,
    ablation: Ablation = "mean",
    target: str = "",
    judge: Encoder | None = None,
    draws: int = 1000,
    command: str = "",
) -> Generator[Progress, None, Summary]:
    """Carries the study out in a folder, going on with what is there, and returns its summary.

    Args:
        pair: encoder and decoder.
        subjects: pictures to choose on and to report on.
        options: what to measure.
        folder: where to write.
        scope: of the main effect, by which settings are chosen; `total` or `direct`.
        signed: whether the main effect is the loss of similarity with the target, or how far the embedding moves.
        ablation: what replaces a head's write in the main effect; all of the options' are reported.
        target: `text` (each label's), `other` (another picture of the concept) or any text, the same for all pictures;
            by default the labels' texts if the model knows them.
        judge: an outside encoder that sees the decoded pictures as well.
        draws: bootstrap draws of the intervals.
        command: what was run, for the page of results.

    Raises:
        UsageError: if the folder holds another study, or there is no such target.
        StoreError: if it cannot be written; finished parts stay.
    """
    if ablation not in options.ablations:
        raise UsageError(f"the main ablation {ablation} is not among those measured: {', '.join(options.ablations)}.")
    if target not in ("", TEXT, OTHER):
        options, target = replace(options, given=target), GIVEN
    towards = target_for(pair, subjects, target, options.given)
    main = Effect(scope, towards if signed else "", ablation)
    known = known_targets(pair, subjects, options.given)
    with open_study(folder, identity(pair, subjects, options, main, judge)) as study:
        yield Progress("references", 0, 1)
        bench = make_bench(pair, subjects.reference, judge)
        yield Progress("references", 1, 1)
        yield from measure_choice(bench, subjects, options, study)
        parts = with_targets(_parts(study, "choose", subjects.chosen), known)
        choices = choose_all(parts, options.steering, options.diffusion, main)
        study.freeze(choices.to_json(), str(main))
        winners, asked = ([one.setting for one in side.values()] for side in (choices.decoded, choices.asked))
        yield from measure_report(bench, subjects, options, winners, study, asked=asked)
        parts = with_targets(_parts(study, "report", subjects.reported), known)
        concepts = [subject.concept for subject in subjects.reported]
        setup = Setup(
            model=pair.name,
            n_chosen=len(subjects.chosen),
            seeds=options.seeds,
            given=options.given,
            judge=judge_name(judge),
            command=command,
            notes=notes(pair, subjects),
        )
        summary = yield from summarise(parts, concepts, bench.sites, choices, main, setup=setup, draws=draws)
        pictures = [(subject.id, subject.concept) for subject in subjects.reported]
        rows = table_rows(parts, pictures, bench.sites, choices, main)
        study.write_json("summary.json", summary.to_json())
        study.write_json("provenance.json", pair.provenance.to_json())
        save_table(study, rows)
        save_figure(study, "correlations", correlation_figure(summary))
        save_figure(study, "heads", scatter_figure(summary, rows))
        save_figure(study, "layers", layer_figure(summary))
        return summary


def target_for(pair: Pair, subjects: SubjectSet, wanted: str = "", given: str = "") -> str:
    """What signed effects are taken towards: what is wanted, or else the labels' texts, or other pictures.

    Raises:
        UsageError: if it is not there for all pictures; the message names a label or text that the model does not know.
    """
    known = known_targets(pair, subjects, given)
    for name in (wanted,) if wanted else (TEXT, OTHER):
        if name in known:
            return name
    if wanted == TEXT:
        raise UsageError(
            f"no target is there for all pictures: no text of each label ({_unknown_words(pair, subjects)})."
        )
    missing = "" if wanted else f"neither a label's text ({_unknown_words(pair, subjects)}) nor another picture of each"
    raise UsageError(f"no target is there for all pictures: {missing or 'no other picture of each'} concept.")


def known_targets(pair: Pair, subjects: SubjectSet, given: str = "") -> tuple[str, ...]:
    """The targets that there are for all pictures.

    Raises:
        UsageError: if the model does not know the given text.
    """
    everyone = _everyone(subjects)
    found: list[str] = []
    if given:
        pair.text_direction(given)
        found.append(GIVEN)
    if not _unknown_labels(pair, subjects):
        found.append(TEXT)
    if all(subject.other is not None for subject in everyone):
        found.append(OTHER)
    return tuple(found)


def notes(pair: Pair, subjects: SubjectSet) -> tuple[str, ...]:
    """What had to be left out, and why."""
    unknown, alone = _unknown_labels(pair, subjects), [one for one in _everyone(subjects) if one.other is None]
    found: list[str] = []
    if unknown:
        found.append(f"Nothing is taken towards the labels' texts: {_unknown_words(pair, subjects)}.")
    if alone:
        found.append(
            "Nothing is taken towards other pictures of the same concept: there is none for "
            f"{', '.join(one.id for one in alone[:3])}{' and others' if len(alone) > 3 else ''}."
        )
    return tuple(found)


def _everyone(subjects: SubjectSet) -> tuple[Subject, ...]:
    return (*subjects.chosen, *subjects.reported)


def _unknown_labels(pair: Pair, subjects: SubjectSet) -> list[str]:
    labels = dict.fromkeys(subject.concept for subject in _everyone(subjects))
    return [label for label in labels if label_direction(pair, label) is None]


def _unknown_words(pair: Pair, subjects: SubjectSet) -> str:
    if pair.vocabulary is None and pair.texts is None:
        return "this model reads none"
    labels = _unknown_labels(pair, subjects)
    return f"the model knows no {', '.join(map(repr, labels[:5]))}{' and others' if len(labels) > 5 else ''}"


def _parts(study: StudyFolder, stage: str, subjects: tuple[Subject, ...]) -> Parts:
    return study.parts(part_name(stage, subject) for subject in subjects)


def identity(
    pair: Pair, subjects: SubjectSet, options: ImportanceOptions, main: Effect, judge: Encoder | None
) -> dict[str, Any]:
    """What two calls must share to go on with one study, as JSON values."""
    return {
        "study": "importance",
        "layout": LAYOUT,
        "models": models_of(pair, judge),
        "subjects": subjects.identity(),
        "main": str(main),
        "options": {
            "seeds": list(options.seeds),
            "ablations": list(options.ablations),
            "steering": [str(setting) for setting in options.steering],
            "diffusion": [str(setting) for setting in options.diffusion],
            "given": options.given,
            "decode": options.decode.decisive(),
            **({} if options.extras else {"extras": False}),
        },
    }
