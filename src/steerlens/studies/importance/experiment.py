"""The importance study from end to end: measure the selection, freeze the choices, measure to report, summarise."""

from collections.abc import Generator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from steerlens.encoders import Encoder
from steerlens.errors import UsageError
from steerlens.progress import Progress
from steerlens.sites import Site
from steerlens.studies.importance.figures import scatter_figure, summary_figures
from steerlens.studies.importance.measure import measure_remainders, measure_report, measure_selection
from steerlens.studies.importance.options import ImportanceOptions
from steerlens.studies.importance.results import ImportanceSetup, ImportanceSummary
from steerlens.studies.importance.scores import Choices, choose_all
from steerlens.studies.importance.summary import counted_rows, summarise, table_rows
from steerlens.studies.shared.ablation import Ablation
from steerlens.studies.shared.bench import make_bench, require_blocks
from steerlens.studies.shared.candidates import CENTRED, LENSES, PLAIN
from steerlens.studies.shared.components import (
    check_studied,
    component_count,
    component_identity,
    component_setup,
    component_words,
)
from steerlens.studies.shared.effects import Effect
from steerlens.studies.shared.folder import StudyFolder
from steerlens.studies.shared.judge import judge_name, models_of, pair_name
from steerlens.studies.shared.measure import REPORT, SELECTION, read_parts
from steerlens.studies.shared.measurements import PictureTables, Scope
from steerlens.studies.shared.oracle import ORACLES
from steerlens.studies.shared.remainder import remainder_sites
from steerlens.studies.shared.run import Experiment, Output, run_experiment
from steerlens.studies.shared.subjects import SubjectSet, require_other_concepts
from steerlens.studies.shared.targets import (
    GIVEN,
    OTHER,
    TEXT,
    known_targets,
    mean_targets,
    target_for,
    target_notes,
)
from steerlens.studies.shared.wording import worded_figure
from steerlens.studies.shared.work import Work, effect_passes, reference_passes, single_passes
from steerlens.zoo import Pair


@dataclass(frozen=True, eq=False)
class _Measured:
    """Measurements of the pictures to report on, and the chosen settings."""

    sites: tuple[Site, ...]
    choices: Choices
    tables: PictureTables


@dataclass(frozen=True, eq=False)
class ImportanceExperiment(Experiment[_Measured, ImportanceSummary]):
    """The importance study with its models, pictures and options.

    Attributes:
        pair: encoder and decoder.
        subjects: pictures to select settings on and to report on.
        options: options of the study.
        main: the effect by which settings are chosen.
        judge: an outside encoder that embeds the decoded pictures too.
        draws: bootstrap draws of the intervals.
        command: the command, for the page of results.
    """

    pair: Pair
    subjects: SubjectSet
    options: ImportanceOptions
    main: Effect
    judge: Encoder | None = None
    draws: int = 1000
    command: str = ""

    def identity(self) -> dict[str, Any]:
        """JSON values that a call must share with an earlier one to resume its study; keys of the first version."""
        options = self.options
        return {
            "study": "importance",
            "layout": ImportanceSummary.LAYOUT,
            "models": models_of(self.pair, self.judge),
            "subjects": self.subjects.identity(),
            "main": str(self.main),
            "options": {
                "seeds": list(options.seeds),
                "ablations": list(options.ablations),
                "steering": [str(setting) for setting in options.steering],
                "diffusion": [str(setting) for setting in options.diffusion],
                "given": options.given,
                "decode": options.decode.decisive(),
                **({} if options.extras else {"extras": False}),
                **({} if options.decoding else {"decoding": False}),
                **component_identity(options.sae, options.features, options.neurons),
            },
        }

    def work(self) -> Work:
        """Counts what the study computes in all; settings that are chosen may be decoded already."""
        options, subjects, spec = self.options, self.subjects, self.pair.encoder.spec
        heads = component_count(spec, options.sae, options.features, options.neurons)
        components = None if options.sae is None and not options.neurons else heads
        ablated = None if components is None else heads + len(remainder_sites(options.sae))
        chosen, reported = len(subjects.selection), len(subjects.reported)
        targets = mean_targets(self.pair, subjects.everyone, options.given)
        passes = reference_passes(spec, len(subjects.reference)) + reported * (1 + single_passes(spec, components))
        passes += (chosen + reported) * (effect_passes(spec, options.ablations, targets, ablated) + 1)
        candidates = len(options.steering) + len(options.diffusion)
        always = len(PLAIN) + (len(LENSES) if chosen else 0) + options.extras
        once = (len(CENTRED) + 1 if options.extras else 0) + 1 + len(ORACLES)
        decoded = chosen * candidates + reported * (always * len(options.seeds) + once)
        return Work(
            pictures=chosen + reported,
            references=len(subjects.reference),
            heads=heads,
            encoder_passes=passes,
            decoded={options.decode: heads * decoded} if options.decoding else {},
            judged=self.judge is not None,
            components=component_words(options.sae, options.neurons),
        )

    def measure(self, folder: StudyFolder) -> Generator[Progress, None, _Measured]:
        """Measures the selection, freezes the choices, and measures the pictures to report on."""
        options, subjects = self.options, self.subjects
        known = known_targets(self.pair, subjects, options.given)
        yield Progress("references", 0, 1)
        bench = make_bench(self.pair, subjects.reference, self.judge, options.sae, options.features, options.neurons)
        yield Progress("references", 1, 1)
        yield from measure_selection(bench, subjects, options, folder)
        selection = PictureTables(read_parts(folder, SELECTION, subjects.selection)).only(known)
        selection = selection.rows(counted_rows(selection, self.main))
        choices = choose_all(selection, options.steering, options.diffusion, self.main)
        folder.freeze(choices.to_json(), str(self.main))
        chosen, undecoded = (
            [choice.setting for choice in side.values()] for side in (choices.decoded, choices.undecoded)
        )
        yield from measure_report(
            bench, subjects, options, chosen, folder, undecoded=undecoded, oracle=self.main.ablation
        )
        yield from measure_remainders(bench, subjects.reported, options, folder)
        tables = PictureTables(read_parts(folder, REPORT, subjects.reported)).only(known)
        return _Measured(bench.sites, choices, tables)

    def summarise(self, measured: _Measured) -> Generator[Progress, None, ImportanceSummary]:
        """Computes everything that the study reports."""
        setup = ImportanceSetup(
            model=pair_name(self.pair),
            n_selection=len(self.subjects.selection),
            seeds=self.options.seeds if self.options.decoding else (),
            decoding=self.options.decoding,
            given=self.options.given,
            judge=judge_name(self.judge),
            command=self.command,
            notes=target_notes(self.pair, self.subjects),
            **component_setup(self.options.sae, self.options.neurons),
        )
        concepts = [subject.concept for subject in self.subjects.reported]
        return (
            yield from summarise(
                measured.tables,
                concepts,
                measured.sites,
                measured.choices,
                self.main,
                remainders=remainder_sites(self.options.sae),
                setup=setup,
                draws=self.draws,
            )
        )

    def output(self, measured: _Measured, summary: ImportanceSummary) -> Output:
        """One table row per picture and head; figures of correlations, heads and layers."""
        pictures = [(subject.id, subject.concept) for subject in self.subjects.reported]
        rows = table_rows(measured.tables, pictures, measured.sites, measured.choices, self.main)
        scatter = worded_figure(scatter_figure(summary, rows), summary.setup.components)
        return Output(rows, {**summary_figures(summary), "heads": scatter})


def importance_experiment(
    pair: Pair,
    subjects: SubjectSet,
    options: ImportanceOptions,
    *,
    scope: Scope = "total",
    signed: bool | None = None,
    ablation: Ablation = "mean",
    target: str = "",
    judge: Encoder | None = None,
    draws: int = 1000,
    command: str = "",
) -> ImportanceExperiment:
    """Checks that the study can be run, and returns its experiment; arguments as in `importance_study`.

    Raises:
        UsageError: if the model cannot be ablated, pictures of other concepts are missing, or a picture lacks the
            target.
    """
    require_blocks(pair, subjects.reference)
    if options.sae is not None:
        check_studied(options.sae, pair.encoder.spec)
    for half in (subjects.selection, subjects.reported):
        require_other_concepts(half)
    if ablation not in options.ablations:
        raise UsageError(f"the main ablation {ablation} is not measured, only {', '.join(options.ablations)}.")
    if target not in ("", TEXT, OTHER):
        options, target = replace(options, given=target), GIVEN
    if signed is None:
        signed = bool(target or known_targets(pair, subjects, options.given))
    main = Effect(scope, target_for(pair, subjects, target, options.given) if signed else "", ablation)
    return ImportanceExperiment(pair, subjects, options, main, judge, draws, command)


def importance_study(
    pair: Pair,
    subjects: SubjectSet,
    options: ImportanceOptions,
    folder: Path,
    *,
    scope: Scope = "total",
    signed: bool | None = None,
    ablation: Ablation = "mean",
    target: str = "",
    judge: Encoder | None = None,
    draws: int = 1000,
    command: str = "",
) -> Generator[Progress, None, ImportanceSummary]:
    """Runs the study in a folder, resuming from the parts that are there, and returns its summary.

    Args:
        pair: encoder and decoder.
        subjects: pictures to select settings on and to report on.
        options: options of the study.
        folder: where to write.
        scope: scope of the main effect, by which settings are chosen: `total` or `direct`.
        signed: True if the main effect is the loss of similarity with the target, False if it is the distance that the
            embedding moves; None for signed if there is a target for all pictures, else unsigned.
        ablation: replacement of a head's write in the main effect; all ablations of the options are reported.
        target: `text` (each label's), `other` (another picture of the concept) or any text, the same for all pictures;
            by default the labels' texts if the model knows them.
        judge: an outside encoder that embeds the decoded pictures too.
        draws: bootstrap draws of the intervals.
        command: the command, for the page of results.

    Raises:
        UsageError: if the folder holds another study, or a picture lacks the target.
        StoreError: if it cannot be written; finished parts stay.
    """
    experiment = importance_experiment(
        pair,
        subjects,
        options,
        scope=scope,
        signed=signed,
        ablation=ablation,
        target=target,
        judge=judge,
        draws=draws,
        command=command,
    )
    return (yield from run_experiment(experiment, folder))
