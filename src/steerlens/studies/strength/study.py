"""The strength study from end to end: measure, recommend on one half of the concepts, report on the other, draw."""

from collections.abc import Generator
from pathlib import Path
from typing import Any

from steerlens.encoders.base import Encoder
from steerlens.progress import Progress
from steerlens.studies.importance.measure import Bench, make_bench, part_name
from steerlens.studies.importance.study import target_for
from steerlens.studies.shared.drawing import save_figure, save_table
from steerlens.studies.shared.folder import StudyFolder, open_study
from steerlens.studies.shared.judge import judge_name, models_of
from steerlens.studies.shared.notions import Effect
from steerlens.studies.shared.stats import mean_estimate
from steerlens.studies.shared.subjects import Subject, SubjectSet
from steerlens.studies.shared.typicality import fit_typicality
from steerlens.studies.strength.figures import choice_figure, pictures_figure, sweep_figure
from steerlens.studies.strength.measure import PICTURES, StrengthOptions, held_apart, measure, measure_pictures
from steerlens.studies.strength.summary import (
    Bounds,
    Correlated,
    Point,
    StrengthSummary,
    correlations_of,
    point_of,
    recommend,
    typical,
)
from steerlens.studies.strength.tables import CLEAN, Half, table_rows
from steerlens.sweep.prepare import default_strength
from steerlens.zoo.pair import Pair


def strength_study(
    pair: Pair,
    subjects: SubjectSet,
    options: StrengthOptions,
    folder: Path,
    *,
    target: str = "",
    bounds: Bounds | None = None,
    judge: Encoder | None = None,
    draws: int = 500,
    command: str = "",
) -> Generator[Progress, None, StrengthSummary]:
    """Carries the study out in a folder, going on with what is there, and returns its summary.

    Args:
        pair: encoder and decoder.
        subjects: pictures to choose on and to report on.
        options: what to measure.
        folder: where to write.
        target: `text` or `other`, of the signed effect; by default the text if there is one.
        bounds: what a strength must keep to; other bounds and targets need no new measurement.
        judge: an outside encoder that sees the decoded pictures as well.
        draws: bootstrap draws of the intervals.
        command: what was run, for the page of results.

    Raises:
        UsageError: if the folder holds another study, there is no such target, or there are too few real embeddings.
        StoreError: if it cannot be written; finished parts stay.
    """
    main = Effect("total", target_for(pair, subjects, target), options.ablation)
    with open_study(folder, identity(pair, subjects, options, judge)) as study:
        yield Progress("references", 0, 1)
        bench = make_bench(pair, subjects.reference, judge)
        typicality = fit_typicality(held_apart(bench, subjects))
        yield Progress("references", 1, 1)
        yield from measure(bench, subjects, options, study)
        yield from measure_pictures(bench, subjects.reported[0], options, study)
        columns = options.columns(bench)
        chosen, reported = (
            Half(_parts(study, stage, side), [one.concept for one in side], columns, main, typicality, draws)
            for stage, side in (("choose", subjects.chosen), ("report", subjects.reported))
        )
        points: list[Point] = []
        correlations: list[Correlated] = []
        yield Progress("statistics", 0, 1)
        for number, strength in enumerate(options.strengths, start=1):
            points.append(point_of(reported, strength))
            correlations += correlations_of(reported, strength)
            yield Progress("statistics", number / len(options.strengths), 1)
        summary = StrengthSummary(
            n_pictures=len(subjects.reported),
            n_concepts=len(set(reported.concepts)),
            n_chosen=len(subjects.chosen),
            n_chosen_concepts=len(set(chosen.concepts)),
            n_heads=len(bench.sites),
            n_decoded=len(columns),
            n_seeds=len(options.seeds),
            n_references=len(typicality.unit),
            main=str(main),
            target=main.target,
            default=str(default_strength(pair.card)),
            clean_fidelity=mean_estimate(reported.clean_fidelity(), reported.concepts, draws=draws),
            clean_typicality=typical(reported, CLEAN),
            points=tuple(points),
            correlations=tuple(correlations),
            recommendation=recommend(chosen, reported, options.strengths, bounds or Bounds()),
            judge=judge_name(judge),
            command=command,
        )
        _write(study, pair, subjects, options, bench, reported, summary)
        return summary


def _parts(study: StudyFolder, stage: str, subjects: tuple[Subject, ...]) -> list[dict[str, Any]]:
    return study.parts(part_name(stage, subject) for subject in subjects)


def _write(
    study: StudyFolder,
    pair: Pair,
    subjects: SubjectSet,
    options: StrengthOptions,
    bench: Bench,
    reported: Half,
    summary: StrengthSummary,
) -> None:
    study.write_json("summary.json", summary.to_json())
    study.write_json("provenance.json", pair.provenance.to_json())
    pictures = [(subject.id, subject.concept) for subject in subjects.reported]
    save_table(study, table_rows(reported, pictures, bench.sites, options.strengths))
    save_figure(study, "sweep", sweep_figure(summary))
    save_figure(study, "choice", choice_figure(summary))
    names = [str(strength) for strength in options.strengths]
    shown = pictures_figure(study.part(PICTURES), subjects.reported[0], bench.sites, names)
    save_figure(study, "pictures", shown)


def identity(pair: Pair, subjects: SubjectSet, options: StrengthOptions, judge: Encoder | None) -> dict[str, Any]:
    """What two calls must share to go on with one study, as JSON values."""
    return {
        "study": "strength",
        "models": models_of(pair, judge),
        "subjects": subjects.identity(),
        "options": {
            "strengths": [str(strength) for strength in options.strengths],
            "seeds": list(options.seeds),
            "ablation": options.ablation,
            "heads_per_picture": options.heads_per_picture,
            "decode": options.decode.decisive(),
        },
    }
