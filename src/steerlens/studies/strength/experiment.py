"""The strength study from end to end: measure, recommend on one half of the concepts, report on the other."""

from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from steerlens.encoders import Encoder
from steerlens.progress import Progress
from steerlens.sites import Site, all_heads
from steerlens.studies.shared.bench import make_bench, require_blocks
from steerlens.studies.shared.effects import Effect
from steerlens.studies.shared.folder import StudyFolder
from steerlens.studies.shared.judge import judge_name, models_of, pair_name
from steerlens.studies.shared.measure import REPORT, SELECTION, read_parts
from steerlens.studies.shared.measurements import PictureTables
from steerlens.studies.shared.run import Experiment, Output, run_experiment
from steerlens.studies.shared.sampling import stratified_heads
from steerlens.studies.shared.stats import mean_estimate
from steerlens.studies.shared.subjects import Subject, SubjectSet, require_other_concepts
from steerlens.studies.shared.targets import mean_targets, target_for
from steerlens.studies.shared.typicality import fit_typicality, require_references
from steerlens.studies.shared.work import Work, effect_passes, reference_passes
from steerlens.studies.strength.baselines import baseline_rows
from steerlens.studies.strength.figures import pictures_figure, summary_figures
from steerlens.studies.strength.measure import (
    PICTURES,
    SHOWN_HEADS,
    SweepPicturesPart,
    measure,
    measure_pictures,
    unstudied,
    unstudied_references,
)
from steerlens.studies.strength.options import Bounds, StrengthOptions
from steerlens.studies.strength.results import StrengthCorrelation, StrengthSummary, SweepPoint
from steerlens.studies.strength.scores import Half, table_rows
from steerlens.studies.strength.summary import correlations_of, recommend, sweep_point, typical
from steerlens.sweep import default_strength
from steerlens.zoo import Pair


@dataclass(frozen=True, eq=False)
class _Measured:
    """Measurements of both halves of the concepts, and pictures for a figure."""

    sites: tuple[Site, ...]
    selection: Half
    reported: Half
    shown: SweepPicturesPart


@dataclass(frozen=True, eq=False)
class StrengthExperiment(Experiment[_Measured, StrengthSummary]):
    """The strength study with its models, pictures and options.

    Attributes:
        pair: encoder and decoder.
        subjects: pictures to choose the strength on and to report on.
        options: options of the study.
        main: the signed effect.
        bounds: conditions on a strength.
        judge: an outside encoder that embeds the decoded pictures too.
        draws: bootstrap draws of the intervals.
        command: the command, for the page of results.
    """

    pair: Pair
    subjects: SubjectSet
    options: StrengthOptions
    main: Effect
    bounds: Bounds
    judge: Encoder | None = None
    draws: int = 500
    command: str = ""

    def identity(self) -> dict[str, Any]:
        """JSON values that a call must share with an earlier one to resume its study; keys of the first version."""
        options = self.options
        return {
            "study": "strength",
            "models": models_of(self.pair, self.judge),
            "subjects": self.subjects.identity(),
            "options": {
                "strengths": [str(strength) for strength in options.strengths],
                "seeds": list(options.seeds),
                "ablation": options.ablation,
                "heads_per_picture": options.heads_per_picture,
                "decode": options.decode.decisive(),
            },
        }

    def work(self) -> Work:
        """Counts what the study computes in all."""
        options, subjects, spec = self.options, self.subjects, self.pair.encoder.spec
        heads = len(stratified_heads(all_heads(spec.n_layers, spec.n_heads), options.heads_per_picture, 0))
        studied = len(subjects.everyone)
        targets = mean_targets(self.pair, subjects.everyone)
        passes = reference_passes(spec, len(subjects.reference)) + 2
        passes += studied * (effect_passes(spec, [options.ablation], targets) + 1)
        decoded = studied * (heads * len(options.strengths) + 1) * len(options.seeds)
        shown = min(SHOWN_HEADS, heads) * len(options.strengths) + 1
        return Work(
            pictures=studied,
            references=len(subjects.reference),
            heads=heads,
            encoder_passes=passes,
            decoded={options.decode: decoded + shown},
            judged=self.judge is not None,
        )

    def measure(self, folder: StudyFolder) -> Generator[Progress, None, _Measured]:
        """Measures both halves, and decodes a few pictures for a figure."""
        subjects, options = self.subjects, self.options
        yield Progress("references", 0, 1)
        bench = make_bench(self.pair, subjects.reference, self.judge)
        typicality = fit_typicality(unstudied_references(bench, subjects))
        yield Progress("references", 1, 1)
        yield from measure(bench, subjects, options, folder)
        yield from measure_pictures(bench, subjects.reported[0], options, folder)
        columns = options.columns(bench)

        def half(stage: str, side: tuple[Subject, ...]) -> Half:
            tables = PictureTables(read_parts(folder, stage, side))
            concepts = [subject.concept for subject in side]
            return Half(tables, concepts, columns, self.main, typicality, self.draws)

        return _Measured(
            bench.sites,
            half(SELECTION, subjects.selection),
            half(REPORT, subjects.reported),
            folder.read(SweepPicturesPart, PICTURES),
        )

    def summarise(self, measured: _Measured) -> Generator[Progress, None, StrengthSummary]:
        """Computes everything that the study reports."""
        selection, reported, strengths = measured.selection, measured.reported, self.options.strengths
        points: list[SweepPoint] = []
        correlations: list[StrengthCorrelation] = []
        yield Progress("statistics", 0, 1)
        for number, strength in enumerate(strengths, start=1):
            points.append(sweep_point(reported, strength))
            correlations += correlations_of(reported, strength)
            yield Progress("statistics", number / len(strengths), 1)
        return StrengthSummary(
            n_pictures=len(self.subjects.reported),
            n_concepts=len(set(reported.concepts)),
            n_selection=len(self.subjects.selection),
            n_selection_concepts=len(set(selection.concepts)),
            n_heads=len(measured.sites),
            n_decoded=len(reported.columns),
            n_seeds=len(self.options.seeds),
            n_references=len(reported.typicality.unit),
            main=self.main,
            target=self.main.target,
            default=str(default_strength(self.pair.card)),
            clean_fidelity=mean_estimate(reported.clean_fidelity(), reported.concepts, draws=self.draws),
            clean_typicality=typical(reported, None),
            points=tuple(points),
            correlations=tuple(correlations),
            recommendation=recommend(selection, reported, strengths, self.bounds),
            judge=judge_name(self.judge),
            command=self.command,
            model=pair_name(self.pair),
            baselines=baseline_rows(reported, strengths, [site.layer for site in measured.sites]),
        )

    def output(self, measured: _Measured, summary: StrengthSummary) -> Output:
        """One table row per strength, picture and head; figures of the sweep, the rule and single heads."""
        subjects, strengths = self.subjects, self.options.strengths
        pictures = [(subject.id, subject.concept) for subject in subjects.reported]
        names = [str(strength) for strength in strengths]
        figures = {
            **summary_figures(summary),
            "pictures": pictures_figure(measured.shown, subjects.reported[0], measured.sites, names),
        }
        return Output(table_rows(measured.reported, pictures, measured.sites, strengths), figures)


def strength_experiment(
    pair: Pair,
    subjects: SubjectSet,
    options: StrengthOptions,
    *,
    target: str = "",
    bounds: Bounds | None = None,
    judge: Encoder | None = None,
    draws: int = 500,
    command: str = "",
) -> StrengthExperiment:
    """Checks that the study can be run, and returns its experiment; arguments as in `strength_study`.

    Raises:
        UsageError: if a picture lacks the target, or real embeddings are too few.
    """
    require_blocks(pair, subjects.reference)
    for half in (subjects.selection, subjects.reported):
        require_other_concepts(half)
    require_references(unstudied(subjects))
    main = Effect("total", target_for(pair, subjects, target), options.ablation)
    return StrengthExperiment(pair, subjects, options, main, bounds or Bounds(), judge, draws, command)


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
    """Runs the study in a folder, resuming from the parts that are there, and returns its summary.

    Args:
        pair: encoder and decoder.
        subjects: pictures to choose the strength on and to report on.
        options: options of the study.
        folder: where to write.
        target: target of the signed effect, `text` or `other`; by default the text if the model knows it.
        bounds: conditions on a strength; other bounds and targets need no new measurement.
        judge: an outside encoder that embeds the decoded pictures too.
        draws: bootstrap draws of the intervals.
        command: the command, for the page of results.

    Raises:
        UsageError: if the folder holds another study, a picture lacks the target, or real embeddings are too few.
        StoreError: if it cannot be written; finished parts stay.
    """
    experiment = strength_experiment(
        pair, subjects, options, target=target, bounds=bounds, judge=judge, draws=draws, command=command
    )
    return (yield from run_experiment(experiment, folder))
