"""The study of candidate lenses from end to end: choose settings on some concepts, freeze, report on others."""

from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from steerlens.encoders import Encoder
from steerlens.progress import Progress
from steerlens.sites import Site, all_heads
from steerlens.studies.lenses.bank import Bank, PictureSource, embed_bank, known_names, names_of, read_bank
from steerlens.studies.lenses.figures import pictures_figure, summary_figures
from steerlens.studies.lenses.measure import PICTURES, SHOWN_HEADS, PicturesPart, measure, measure_pictures, unique
from steerlens.studies.lenses.options import CONTRAST, RETRIEVAL, LensesOptions
from steerlens.studies.lenses.results import LensChoice, LensesSummary
from steerlens.studies.lenses.scores import NamedScores, table_rows
from steerlens.studies.lenses.summary import choose, summarise
from steerlens.studies.shared.bench import Bench, make_bench, require_blocks
from steerlens.studies.shared.folder import StudyFolder
from steerlens.studies.shared.judge import judge_name, models_of, pair_name
from steerlens.studies.shared.measure import REPORT, SELECTION, read_parts
from steerlens.studies.shared.measurements import PictureTables
from steerlens.studies.shared.run import Experiment, Output, run_experiment
from steerlens.studies.shared.subjects import Subject, SubjectSet, require_other_concepts
from steerlens.studies.shared.targets import mean_targets
from steerlens.studies.shared.transfer import STEPS
from steerlens.studies.shared.undecoded import is_undecoded
from steerlens.studies.shared.work import Work, effect_passes, reference_passes
from steerlens.zoo import Pair


@dataclass(frozen=True, eq=False)
class _Measured:
    """Chosen settings, measurements of the reported pictures, and pictures for a figure."""

    sites: tuple[Site, ...]
    choices: dict[str, LensChoice]
    reported: NamedScores
    shown: PicturesPart | None


@dataclass(frozen=True, eq=False)
class LensesExperiment(Experiment[_Measured, LensesSummary]):
    """The study of candidate lenses with its models, pictures and options.

    Attributes:
        pair: encoder and decoder.
        subjects: pictures to choose settings on and to report on.
        options: options of the study.
        source: pictures of the bank, or None.
        judge: an outside encoder that embeds the pictures too.
        draws: bootstrap draws of the intervals.
        command: the command, for the page of results.
    """

    pair: Pair
    subjects: SubjectSet
    options: LensesOptions
    source: PictureSource | None = None
    judge: Encoder | None = None
    draws: int = 1000
    command: str = ""

    def identity(self) -> dict[str, Any]:
        """JSON values that a call must share with an earlier one to resume its study."""
        options = self.options
        return {
            "study": "lenses",
            "models": models_of(self.pair, self.judge),
            "subjects": self.subjects.identity(),
            "bank": None if self.source is None else self.source.identity,
            "options": {
                "strengths": [str(strength) for strength in options.strengths],
                "neighbours": list(options.neighbours),
                "seeds": list(options.seeds),
                "ablation": options.ablation,
                "names": options.n_names,
                "heads_per_picture": options.heads_per_picture,
                "decode": options.decode.decisive(),
            },
        }

    def work(self) -> Work:
        """Counts what the study computes in all; a setting of one kind may be decoded for another already."""
        options, subjects, spec = self.options, self.subjects, self.pair.encoder.spec
        heads = len(options.columns(all_heads(spec.n_layers, spec.n_heads)))
        chosen, reported, bank = len(subjects.selection), len(subjects.reported), self.source
        decodes = not is_undecoded(self.pair)
        targets = mean_targets(self.pair, subjects.everyone)
        passes = reference_passes(spec, len(subjects.reference)) + (0 if bank is None else len(bank.names)) + 2
        passes += (chosen + reported) * (effect_passes(spec, [options.ablation], targets) + 1) + reported
        candidates = [lens for lenses in options.candidates(bank=bank is not None).values() for lens in lenses]
        choosing = len(unique(setting for lens in candidates for setting in lens.decoded))
        reporting = 1 + 2  # one picture, and a contrast pair
        decoded = chosen * (heads * choosing + 1)
        decoded += reported * (heads * reporting + 1 + len(STEPS)) * len(options.seeds) + 2 * min(SHOWN_HEADS, heads)
        if not decodes:
            passes -= reported + 2  # no embedding of another scene, and no figure of pictures
        return Work(
            pictures=chosen + reported,
            references=len(subjects.reference),
            heads=heads,
            encoder_passes=passes,
            decoded={options.decode: decoded} if decodes else {},
            judged=self.judge is not None,
        )

    def measure(self, folder: StudyFolder) -> Generator[Progress, None, _Measured]:
        """Embeds the bank, chooses settings, freezes them, and measures the pictures to report on."""
        subjects, options = self.subjects, self.options
        yield Progress("references", 0, 1)
        bench = make_bench(self.pair, subjects.reference, self.judge)
        yield Progress("references", 1, 1)
        bank = None
        if self.source is not None:
            yield from embed_bank(self.source, self.pair.encoder, self.judge, folder)
            bank = read_bank(self.source, folder)
        names = names_of(self.pair.vocabulary, bank, options.n_names, options.seeds[0])
        columns = options.columns(bench.sites)

        def scores(stage: str, side: tuple[Subject, ...]) -> NamedScores:
            tables = PictureTables(read_parts(folder, stage, side))
            concepts = [subject.concept for subject in side]
            return NamedScores(tables, concepts, bench.sites, columns, names, bank, options.ablation, self.draws)

        candidates = options.candidates(bank=bank is not None)
        everything = [lens for lenses in candidates.values() for lens in lenses]
        yield from measure(bench, subjects.selection, everything, options, SELECTION, folder)
        choices = choose(scores(SELECTION, subjects.selection), candidates)
        folder.freeze({kind: choice.to_json() for kind, choice in choices.items()})
        chosen = [choice.setting for choice in choices.values()]
        yield from measure(bench, subjects.reported, chosen, options, REPORT, folder)
        shown = None
        if not is_undecoded(self.pair):
            yield from self._pictures(bench, choices, bank, folder)
            shown = folder.read(PicturesPart, PICTURES)
        return _Measured(bench.sites, choices, scores(REPORT, subjects.reported), shown)

    def _pictures(
        self, bench: Bench, choices: dict[str, LensChoice], bank: Bank | None, folder: StudyFolder
    ) -> Generator[Progress, None, None]:
        retrieval = choices[RETRIEVAL].setting if RETRIEVAL in choices else None
        subject, contrast = self.subjects.reported[0], choices[CONTRAST].setting
        yield from measure_pictures(bench, subject, contrast, retrieval, bank, self.source, self.options, folder)

    def summarise(self, measured: _Measured) -> Generator[Progress, None, LensesSummary]:
        """Computes everything that the study reports."""
        yield Progress("statistics", 0, 1)
        summary = summarise(
            measured.reported,
            measured.choices,
            n_selection=len(self.subjects.selection),
            seeds=self.options.seeds,
            judge=judge_name(self.judge),
            command=self.command,
            model=pair_name(self.pair),
        )
        yield Progress("statistics", 1, 1)
        return summary

    def output(self, measured: _Measured, summary: LensesSummary) -> Output:
        """One table row per picture and head; correlations and transfer, and pictures of single heads."""
        reported = self.subjects.reported
        figures = summary_figures(summary)
        if measured.shown is not None:
            figures["pictures"] = pictures_figure(measured.shown, reported[0], measured.sites)
        lenses = [choice.setting for choice in measured.choices.values()]
        rows = table_rows(measured.reported, lenses, [(subject.id, subject.concept) for subject in reported])
        return Output(rows, figures)


def lenses_experiment(
    pair: Pair,
    subjects: SubjectSet,
    options: LensesOptions,
    *,
    source: PictureSource | None = None,
    judge: Encoder | None = None,
    draws: int = 1000,
    command: str = "",
) -> LensesExperiment:
    """Checks that the study can be run, and returns its experiment; arguments as in `lenses_study`.

    Raises:
        UsageError: if the model cannot be ablated, there are no names, or pictures of other concepts are missing.
    """
    require_blocks(pair, subjects.reference)
    for half in (subjects.selection, subjects.reported):
        require_other_concepts(half)
    known_names(pair.vocabulary, source)
    return LensesExperiment(pair, subjects, options, source, judge, draws, command)


def lenses_study(
    pair: Pair,
    subjects: SubjectSet,
    options: LensesOptions,
    folder: Path,
    *,
    source: PictureSource | None = None,
    judge: Encoder | None = None,
    draws: int = 1000,
    command: str = "",
) -> Generator[Progress, None, LensesSummary]:
    """Runs the study in a folder, resuming from the parts that are there, and returns its summary.

    Args:
        pair: encoder and decoder.
        subjects: pictures to choose settings on and to report on.
        options: options of the study.
        folder: where to write.
        source: pictures of the bank; None to leave real pictures out.
        judge: an outside encoder that embeds the pictures too.
        draws: bootstrap draws of the intervals.
        command: the command, for the page of results.

    Raises:
        UsageError: if the folder holds another study, there are no names, or a picture has no target.
        StoreError: if it cannot be written; finished parts stay.
    """
    experiment = lenses_experiment(pair, subjects, options, source=source, judge=judge, draws=draws, command=command)
    return (yield from run_experiment(experiment, folder))
