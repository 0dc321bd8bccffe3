"""The decoder study from end to end: decode at every setting, compare with the reference, draw."""

from collections.abc import Generator, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from steerlens.encoders.base import Encoder
from steerlens.errors import UsageError
from steerlens.progress import Progress
from steerlens.studies.decoder.figures import seeds_figure, settings_figure, steps_figure
from steerlens.studies.decoder.measure import (
    PICTURES,
    DecoderOptions,
    decoded_part,
    measure,
    measure_pictures,
    study_heads,
    subject_part,
)
from steerlens.studies.decoder.summary import DecoderSummary, Decodings, summarise, table_rows, timings
from steerlens.studies.importance.study import target_for
from steerlens.studies.shared.drawing import save_figure, save_table
from steerlens.studies.shared.folder import StudyFolder, open_study
from steerlens.studies.shared.judge import judge_name, models_of
from steerlens.studies.shared.notions import INPUT
from steerlens.studies.shared.subjects import Subject, SubjectSet
from steerlens.zoo.pair import Pair


def decoder_study(
    pair: Pair,
    subjects: SubjectSet,
    options: DecoderOptions,
    folder: Path,
    *,
    wanted: float = 0.95,
    judge: Encoder | None = None,
    draws: int = 1000,
    command: str = "",
) -> Generator[Progress, None, DecoderSummary]:
    """Carries the study out in a folder, going on with what is there, and returns its summary.

    Args:
        pair: encoder and decoder.
        subjects: the pictures; all of them are reported on, since there is nothing to choose that depends on concepts.
        options: what to measure.
        folder: where to write.
        wanted: the share of the ceiling that is enough; another one needs no new measurement.
        judge: an outside encoder that sees the decoded pictures as well.
        draws: bootstrap draws of the intervals.
        command: what was run, for the page of results.

    Raises:
        UsageError: if the folder holds another study, the share is none, or there is no such target.
        StoreError: if it cannot be written; finished parts stay.
    """
    if not 0 < wanted <= 1:
        raise UsageError(f"the share of the ceiling that is enough lies between 0 and 1, not {wanted:g}.")
    if options.target != INPUT:
        target_for(pair, subjects, options.target)
    everyone = (*subjects.chosen, *subjects.reported)
    with open_study(folder, identity(pair, subjects, options, judge)) as study:
        yield from measure(pair, everyone, options, judge, study)
        yield from measure_pictures(pair, everyone[0], options, study)
        named = [_parts(study, name, everyone) for name, _, _ in options.work()]
        found = Decodings(
            subjects=[study.part(subject_part(subject)) for subject in everyone],
            reference=named[0],
            settings=named[1:],
            concepts=[subject.concept for subject in everyone],
            target=options.target,
            draws=draws,
        )
        yield Progress("statistics", 0, 1)
        n_heads = pair.encoder.spec.n_layers * pair.encoder.spec.n_heads
        summary = summarise(found, options, n_heads, wanted, judge=judge_name(judge), command=command)
        yield Progress("statistics", 1, 1)
        heads = study_heads(pair, options)
        study.write_json("summary.json", summary.to_json())
        study.write_json("timings.json", timings(found, options))
        study.write_json("provenance.json", pair.provenance.to_json())
        save_table(study, table_rows(found, options, [(one.id, one.concept) for one in everyone], heads))
        save_figure(study, "steps", steps_figure(summary))
        save_figure(study, "settings", settings_figure(summary))
        save_figure(study, "seeds", seeds_figure(study.part(PICTURES), everyone[0], heads, summary))
        return summary


def _parts(study: StudyFolder, name: str, subjects: Sequence[Subject]) -> list[dict[str, Tensor]]:
    return study.parts(decoded_part(name, subject) for subject in subjects)


def identity(pair: Pair, subjects: SubjectSet, options: DecoderOptions, judge: Encoder | None) -> dict[str, Any]:
    """What two calls must share to go on with one study, as JSON values."""
    return {
        "study": "decoder",
        "models": models_of(pair, judge),
        "subjects": subjects.identity(),
        "options": {
            "settings": [setting.decisive() for setting in options.settings],
            "strength": str(options.strength),
            "target": options.target,
            "seeds": list(options.seeds),
            "reference_steps": options.reference_steps,
            "reference_seeds": options.reference_seeds,
            "heads": options.heads,
        },
    }
