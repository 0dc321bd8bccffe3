"""The identification study from end to end: steer with own writes and with those of other pictures, and compare."""

from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from steerlens.encoders import Encoder
from steerlens.progress import Progress
from steerlens.studies.identification.figures import pictures_figure, summary_figures
from steerlens.studies.identification.measure import (
    PICTURES,
    RANDOM_PART,
    IdentificationPart,
    PicturesPart,
    RandomPart,
    measure,
    shown_rows,
)
from steerlens.studies.identification.options import IdentificationOptions, foils_of
from steerlens.studies.identification.results import IdentificationSummary
from steerlens.studies.identification.scores import Identified, table_rows
from steerlens.studies.identification.summary import summarise
from steerlens.studies.shared.bench import require_embeddings
from steerlens.studies.shared.folder import StudyFolder
from steerlens.studies.shared.judge import judge_name, models_of, pair_name
from steerlens.studies.shared.measure import REPORT, part_name
from steerlens.studies.shared.run import Experiment, Output, run_experiment
from steerlens.studies.shared.subjects import SubjectSet
from steerlens.studies.shared.undecoded import is_undecoded
from steerlens.studies.shared.work import Work
from steerlens.zoo import Pair


@dataclass(frozen=True, eq=False)
class _Measured:
    """Measurements of all pictures, and pictures for a figure."""

    identified: Identified
    shown: PicturesPart | None


@dataclass(frozen=True, eq=False)
class IdentificationExperiment(Experiment[_Measured, IdentificationSummary]):
    """The identification study with its models, pictures and options.

    Attributes:
        pair: encoder and decoder.
        subjects: the pictures; nothing is chosen, so only those to report on are studied.
        options: options of the study.
        judge: an outside encoder that embeds the decoded pictures too.
        draws: bootstrap draws of the intervals.
        command: the command, for the page of results.
    """

    pair: Pair
    subjects: SubjectSet
    options: IdentificationOptions
    judge: Encoder | None = None
    draws: int = 1000
    command: str = ""

    def identity(self) -> dict[str, Any]:
        """JSON values that a call must share with an earlier one to resume its study."""
        options = self.options
        return {
            "study": "identification",
            "models": models_of(self.pair, self.judge),
            "subjects": self.subjects.identity(),
            "options": {
                "strength": str(options.strength),
                "seeds": list(options.seeds),
                "foils": options.n_foils,
                "heads_per_picture": options.heads_per_picture,
                "decode": options.decode.decisive(),
            },
        }

    def work(self) -> Work:
        """Counts what the study computes in all."""
        options, subjects = self.options, self.subjects
        heads, studied = len(options.sites(self.pair.encoder.spec)), len(subjects.reported)
        others = sum(subject.other is not None for subject in subjects.reported)
        decoded = heads * len(options.seeds) * (studied * (4 + options.n_foils) + 1)
        shown = 3 * len(shown_rows(studied, heads))
        return Work(
            pictures=studied,
            references=len(subjects.reference),
            heads=heads,
            encoder_passes=len(subjects.reference) + studied + others,
            decoded={} if is_undecoded(self.pair) else {options.decode: decoded + shown},
            judged=self.judge is not None,
        )

    def measure(self, folder: StudyFolder) -> Generator[Progress, None, _Measured]:
        """Measures every picture, and decodes a few pictures for a figure."""
        reported, options = self.subjects.reported, self.options
        yield from measure(self.pair, self.subjects, options, self.judge, folder)
        identified = Identified(
            folder.read_all(IdentificationPart, (part_name(REPORT, subject) for subject in reported)),
            folder.read(RandomPart, RANDOM_PART),
            [subject.concept for subject in reported],
            foils_of(reported, options.n_foils),
            options.sites(self.pair.encoder.spec),
            self.draws,
        )
        shown = None if is_undecoded(self.pair) else folder.read(PicturesPart, PICTURES)
        return _Measured(identified, shown)

    def summarise(self, measured: _Measured) -> Generator[Progress, None, IdentificationSummary]:
        """Computes everything that the study reports."""
        yield Progress("statistics", 0, 1)
        spec = self.pair.encoder.spec
        summary = summarise(
            measured.identified,
            n_heads=spec.n_layers * spec.n_heads,
            strength=self.options.strength,
            seeds=self.options.seeds,
            judge=judge_name(self.judge),
            command=self.command,
            model=pair_name(self.pair),
        )
        yield Progress("statistics", 1, 1)
        return summary

    def output(self, measured: _Measured, summary: IdentificationSummary) -> Output:
        """One table row per picture and head; the shares, and pictures of single heads."""
        identified, reported = measured.identified, self.subjects.reported
        figures = summary_figures(summary)
        if measured.shown is not None:
            figures["pictures"] = pictures_figure(measured.shown, reported, identified.foils, identified.sites)
        return Output(table_rows(identified, [(subject.id, subject.concept) for subject in reported]), figures)


def identification_experiment(
    pair: Pair,
    subjects: SubjectSet,
    options: IdentificationOptions,
    *,
    judge: Encoder | None = None,
    draws: int = 1000,
    command: str = "",
) -> IdentificationExperiment:
    """Checks that the study can be run, and returns its experiment; arguments as in `identification_study`.

    Raises:
        UsageError: if the decoder reads no embeddings, or pictures are too few.
    """
    require_embeddings(pair)
    foils_of(subjects.reported, options.n_foils)
    return IdentificationExperiment(pair, subjects, options, judge, draws, command)


def identification_study(
    pair: Pair,
    subjects: SubjectSet,
    options: IdentificationOptions,
    folder: Path,
    *,
    judge: Encoder | None = None,
    draws: int = 1000,
    command: str = "",
) -> Generator[Progress, None, IdentificationSummary]:
    """Runs the study in a folder, resuming from the parts that are there, and returns its summary.

    Args:
        pair: encoder and decoder.
        subjects: the pictures; those to report on are studied.
        options: options of the study.
        folder: where to write.
        judge: an outside encoder that embeds the decoded pictures too.
        draws: bootstrap draws of the intervals.
        command: the command, for the page of results.

    Raises:
        UsageError: if the folder holds another study, the decoder reads no embeddings, or pictures are too few.
        StoreError: if it cannot be written; finished parts stay.
    """
    experiment = identification_experiment(pair, subjects, options, judge=judge, draws=draws, command=command)
    return (yield from run_experiment(experiment, folder))
