"""The decoder study from end to end: decode at every setting, compare with the reference, summarise."""

from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from steerlens.encoders import Encoder
from steerlens.errors import UsageError
from steerlens.progress import Progress
from steerlens.sites import Site
from steerlens.studies.decoder.figures import seeds_figure, summary_figures
from steerlens.studies.decoder.measure import (
    PICTURES,
    SHOWN_HEADS,
    SHOWN_SEEDS,
    SeedPicturesPart,
    SettingPart,
    SubjectPart,
    decoded_part,
    measure,
    measure_pictures,
    sampled_heads,
    subject_part,
)
from steerlens.studies.decoder.options import DecoderOptions
from steerlens.studies.decoder.results import DecoderSummary
from steerlens.studies.decoder.scores import Decodings
from steerlens.studies.decoder.summary import summarise, table_rows, timings
from steerlens.studies.shared.folder import StudyFolder
from steerlens.studies.shared.judge import judge_name, models_of, pair_name
from steerlens.studies.shared.run import Experiment, Output, run_experiment
from steerlens.studies.shared.subjects import SubjectSet
from steerlens.studies.shared.targets import INPUT, mean_targets, target_for
from steerlens.studies.shared.work import Work
from steerlens.zoo import Pair


@dataclass(frozen=True, eq=False)
class _Measured:
    """Measurements at all settings, and pictures for a figure."""

    heads: tuple[Site, ...]
    decodings: Decodings
    shown: SeedPicturesPart


@dataclass(frozen=True, eq=False)
class DecoderExperiment(Experiment[_Measured, DecoderSummary]):
    """The decoder study with its models, pictures and options.

    Attributes:
        pair: encoder and decoder.
        subjects: the pictures; all of them are reported on, since nothing is chosen on some of them.
        options: options of the study.
        wanted: share of the ceiling that is enough.
        judge: an outside encoder that embeds the decoded pictures too.
        draws: bootstrap draws of the intervals.
        command: the command, for the page of results.
    """

    pair: Pair
    subjects: SubjectSet
    options: DecoderOptions
    wanted: float = 0.95
    judge: Encoder | None = None
    draws: int = 1000
    command: str = ""

    def identity(self) -> dict[str, Any]:
        """JSON values that a call must share with an earlier one to resume its study; keys of the first version."""
        options = self.options
        return {
            "study": "decoder",
            "models": models_of(self.pair, self.judge),
            "subjects": self.subjects.identity(),
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

    def work(self) -> Work:
        """Counts what the study computes in all."""
        options, subjects = self.options, self.subjects
        heads, studied = len(sampled_heads(self.pair, options)), len(subjects.everyone)
        decodings = options.decodings()
        decoded = dict.fromkeys((decoding.setting for decoding in decodings), 0)
        for number, decoding in enumerate(decodings):
            decoded[decoding.setting] += studied * heads * len(decoding.seeds)
            if number < 2:  # the figure shows the reference and the default
                decoded[decoding.setting] += min(SHOWN_HEADS, heads) * min(SHOWN_SEEDS, len(decoding.seeds))
        targets = 0.0 if options.target == INPUT else mean_targets(self.pair, subjects.everyone)
        return Work(
            pictures=studied,
            references=0,
            heads=heads,
            encoder_passes=studied * (1 + targets),
            decoded=decoded,
            judged=self.judge is not None,
        )

    def measure(self, folder: StudyFolder) -> Generator[Progress, None, _Measured]:
        """Decodes at every setting, and decodes a few pictures for a figure."""
        pair, options, everyone = self.pair, self.options, self.subjects.everyone
        yield from measure(pair, everyone, options, self.judge, folder)
        yield from measure_pictures(pair, everyone[0], options, folder)
        reference, *settings = (
            folder.read_all(SettingPart, (decoded_part(decoding, subject) for subject in everyone))
            for decoding in options.decodings()
        )
        decodings = Decodings(
            subjects=folder.read_all(SubjectPart, map(subject_part, everyone)),
            reference=reference,
            settings=settings,
            concepts=[subject.concept for subject in everyone],
            target=options.target,
            draws=self.draws,
        )
        return _Measured(sampled_heads(pair, options), decodings, folder.read(SeedPicturesPart, PICTURES))

    def summarise(self, measured: _Measured) -> Generator[Progress, None, DecoderSummary]:
        """Computes everything that the study reports."""
        yield Progress("statistics", 0, 1)
        spec = self.pair.encoder.spec
        summary = summarise(
            measured.decodings,
            self.options,
            spec.n_layers * spec.n_heads,
            self.wanted,
            judge=judge_name(self.judge),
            command=self.command,
            model=pair_name(self.pair),
        )
        yield Progress("statistics", 1, 1)
        return summary

    def output(self, measured: _Measured, summary: DecoderSummary) -> Output:
        """One table row per setting, picture and head; figures of steps, settings and seeds; times in another file."""
        everyone = self.subjects.everyone
        pictures = [(subject.id, subject.concept) for subject in everyone]
        rows = table_rows(measured.decodings, self.options, pictures, measured.heads)
        figures = {
            **summary_figures(summary),
            "seeds": seeds_figure(measured.shown, everyone[0], measured.heads, summary),
        }
        return Output(rows, figures, {"timings.json": timings(measured.decodings, self.options)})


def decoder_experiment(
    pair: Pair,
    subjects: SubjectSet,
    options: DecoderOptions,
    *,
    wanted: float = 0.95,
    judge: Encoder | None = None,
    draws: int = 1000,
    command: str = "",
) -> DecoderExperiment:
    """Checks that the study can be run, and returns its experiment; arguments as in `decoder_study`.

    Raises:
        UsageError: if the share is out of range, or a picture lacks the target.
    """
    if not 0 < wanted <= 1:
        raise UsageError(f"the share of the ceiling that is enough must lie between 0 and 1; it is {wanted:g}.")
    if options.target != INPUT:
        target_for(pair, subjects, options.target)
    return DecoderExperiment(pair, subjects, options, wanted, judge, draws, command)


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
    """Runs the study in a folder, resuming from the parts that are there, and returns its summary.

    Args:
        pair: encoder and decoder.
        subjects: the pictures; all of them are reported on.
        options: options of the study.
        folder: where to write.
        wanted: share of the ceiling that is enough; another share needs no new measurement.
        judge: an outside encoder that embeds the decoded pictures too.
        draws: bootstrap draws of the intervals.
        command: the command, for the page of results.

    Raises:
        UsageError: if the folder holds another study, the share is out of range, or a picture lacks the target.
        StoreError: if it cannot be written; finished parts stay.
    """
    experiment = decoder_experiment(pair, subjects, options, wanted=wanted, judge=judge, draws=draws, command=command)
    return (yield from run_experiment(experiment, folder))
