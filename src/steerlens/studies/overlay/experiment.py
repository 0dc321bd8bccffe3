"""The overlay study from end to end: measure the selection, freeze the choices, measure to report, summarise."""

from collections.abc import Generator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from steerlens.encoders import Encoder
from steerlens.progress import Progress
from steerlens.studies.overlay.areas import Trajectories
from steerlens.studies.overlay.figures import strip_figure, summary_figures
from steerlens.studies.overlay.joint import ATTRIBUTION, GREEDY_STEPS, ONE_SHOT, RANDOM_ORDERS, REFERENCE, points
from steerlens.studies.overlay.measure import (
    REPORT_TRAJECTORIES,
    SELECTION_TRAJECTORIES,
    OverlayMeasurements,
    judge_mean,
    measure,
    measure_remainders,
    measure_trajectories,
    strip_columns,
)
from steerlens.studies.overlay.options import OverlayOptions
from steerlens.studies.overlay.orders import (
    UNDECODED,
    OrderChoice,
    candidate_orders,
    choose_all,
    chosen_order,
    is_decoded_order,
    report_orders,
    retained_orders,
)
from steerlens.studies.overlay.parts import OverlayPart, TrajectoryPart
from steerlens.studies.overlay.pictures import Overlaid, OverlaySet, n_groups
from steerlens.studies.overlay.results import OverlaySummary
from steerlens.studies.overlay.scores import comparisons, untuned_settings
from steerlens.studies.overlay.summary import OverlaySetup, summarise, table_rows
from steerlens.studies.shared.bench import Bench, make_bench, require_blocks
from steerlens.studies.shared.candidates import LENSES, candidate_name
from steerlens.studies.shared.components import (
    check_studied,
    component_count,
    component_identity,
    component_setup,
    component_words,
)
from steerlens.studies.shared.folder import StudyFolder
from steerlens.studies.shared.judge import judge_name, models_of, pair_name
from steerlens.studies.shared.measure import REPORT, SELECTION, part_name
from steerlens.studies.shared.measurements import View
from steerlens.studies.shared.remainder import remainder_sites
from steerlens.studies.shared.run import Experiment, Output, run_experiment
from steerlens.studies.shared.undecoded import is_undecoded
from steerlens.studies.shared.wording import worded_figure
from steerlens.studies.shared.work import Work, recorded_passes, reference_passes, single_passes
from steerlens.zoo import Pair

STRIPS = (chosen_order("steering"), chosen_order("diffusion"), ONE_SHOT, REFERENCE, ATTRIBUTION, "random 0")
"""Orders along which pictures are decoded."""


@dataclass(frozen=True, eq=False)
class _Measured:
    """Trajectories of the pairs to report on, and the chosen settings."""

    choices: Mapping[str, OrderChoice]
    trajectories: Trajectories


@dataclass(frozen=True, eq=False)
class OverlayExperiment(Experiment[_Measured, OverlaySummary]):
    """The overlay study with its models, pairs and options.

    Attributes:
        pair: encoder and decoder.
        overlays: pairs to select settings on and to report on.
        options: options of the study.
        judge: an outside encoder that embeds the decoded pictures too.
        draws: bootstrap draws of the intervals.
        command: the command, for the page of results.
    """

    pair: Pair
    overlays: OverlaySet
    options: OverlayOptions
    judge: Encoder | None = None
    draws: int = 2000
    command: str = ""

    @property
    def decodes(self) -> bool:
        """False of a study of requested embeddings alone."""
        return not is_undecoded(self.pair)

    def identity(self) -> dict[str, Any]:
        """JSON values that a call must share with an earlier one to resume its study; keys of the first version."""
        options = self.options
        return {
            "study": "overlay",
            "models": models_of(self.pair, self.judge),
            "pairs": self.overlays.identity(),
            "options": {
                "seed": options.seed,
                "seeds": options.seeds,
                "ablation": options.ablation,
                "greedy_pool": options.greedy_pool,
                "strips": options.strips,
                "steering": [str(setting) for setting in options.steering],
                "diffusion": [str(setting) for setting in options.diffusion],
                "decode": options.decode.decisive(),
                **component_identity(options.sae, options.features, options.neurons),
            },
        }

    def work(self) -> Work:
        """Counts what the study computes in all; settings that are chosen may be decoded already."""
        options, overlays, spec = self.options, self.overlays, self.pair.encoder.spec
        heads = component_count(spec, options.sae, options.features, options.neurons)
        components = None if options.sae is None and not options.neurons else heads
        chosen, reported, decodes = len(overlays.selection), len(overlays.reported), self.decodes
        counts, candidates = points(heads), len(options.steering) + len(options.diffusion)
        block = 1 / spec.n_layers
        scene = 2 * recorded_passes(spec) + 2 + (options.ablation == "resample")
        steps = min(GREEDY_STEPS, options.greedy_pool, max(1, heads // 4))
        greedy = steps * (1 + single_passes(spec, min(options.greedy_pool, heads)))
        rest = len(remainder_sites(options.sae))
        alone = 0.0 if not rest else single_passes(spec, rest)
        single = (
            scene + 2 + recorded_passes(spec) + single_passes(spec, components) + alone + greedy + 6 + scene + block
        )
        untuned, judged = len(untuned_settings()), self.judge is not None
        compared = len(comparisons(self.pair, (*overlays.selection, *overlays.reported)))
        measured_orders, baselines = 4, 3
        choosing = (1 + decodes) * candidates * compared + measured_orders + RANDOM_ORDERS
        of_lenses = len(LENSES) * (3 + judged) + untuned * (2 + judged) if decodes else len(LENSES) + untuned
        reporting = of_lenses + measured_orders + baselines + RANDOM_ORDERS
        retained = sum(decodes or not is_decoded_order(name) for name in retained_orders())
        along = len(counts) - 2  # no heads need no pass, and all heads are the same for all orders
        passes = reference_passes(spec, len(overlays.reference)) + (chosen + reported) * single
        passes += chosen * choosing * along + reported * (reporting + retained) * along
        strips = len(STRIPS) * (len(set(strip_columns(counts))) - 2) + 2
        decoded = chosen * heads * candidates + reported * (heads * (untuned + len(LENSES)) * options.seeds + strips)
        return Work(
            pictures=chosen + reported,
            references=len(overlays.reference),
            heads=heads,
            encoder_passes=passes,
            decoded={options.decode: decoded} if decodes else {},
            judged=judged,
            components=component_words(options.sae, options.neurons),
        )

    def measure(self, folder: StudyFolder) -> Generator[Progress, None, _Measured]:
        """Measures the selection, freezes the choices, and measures the pairs to report on."""
        yield Progress("references", 0, 1)
        reported, options = self.overlays.reported, self.options
        bench = make_bench(
            self.pair, self.overlays.reference, self.judge, options.sae, options.features, options.neurons
        )
        mean = None if self.judge is None else judge_mean(self.judge, self.overlays.reference)
        yield Progress("references", 1, 1)
        choices = yield from self._choose(folder, bench)
        folder.freeze({lens: choice.to_json() for lens, choice in choices.items()})
        decoded = [*untuned_settings().values(), *(choices[lens].setting for lens in LENSES if lens in choices)]
        undecoded = [choices[f"{lens}{UNDECODED}"].setting for lens in LENSES]
        if not self.decodes:
            decoded, undecoded = [], [*decoded, *undecoded]
        wanted = OverlayMeasurements(
            {str(setting): setting for setting in decoded},
            {str(setting): setting for setting in undecoded},
            options.seeds,
            mean,
        )
        yield from measure(bench, reported, wanted, options, folder, REPORT)
        yield from measure_remainders(bench, reported, options, folder)
        parts = folder.read_all(OverlayPart, (part_name(REPORT, pair) for pair in reported))
        layers = [bench.components.place(site).layer for site in bench.sites]
        orders = [
            report_orders(part, choices, self._random_seed(pair), layers)
            for part, pair in zip(parts, reported, strict=True)
        ]
        strips = STRIPS if self.decodes else ()
        yield from measure_trajectories(
            bench, reported, orders, options, folder, REPORT_TRAJECTORIES, strips, retained_orders()
        )
        measured = folder.read_all(TrajectoryPart, (part_name(REPORT_TRAJECTORIES, pair) for pair in reported))
        return _Measured(choices, Trajectories(parts, measured, points(len(bench.sites))))

    def _choose(self, folder: StudyFolder, bench: Bench) -> Generator[Progress, None, dict[str, OrderChoice]]:
        """Measures the pairs of the selection, and chooses a setting for each lens."""
        selection, options = self.overlays.selection, self.options
        compared = comparisons(self.pair, (*selection, *self.overlays.reported))
        settings = (*options.steering, *options.diffusion)
        named = {candidate_name(setting): setting for setting in settings}
        wanted = OverlayMeasurements(named, {}) if self.decodes else OverlayMeasurements({}, named)
        views: tuple[View, ...] = ("decoded", "requested") if self.decodes else ("requested",)
        yield from measure(bench, selection, wanted, options, folder, SELECTION)
        parts = folder.read_all(OverlayPart, (part_name(SELECTION, pair) for pair in selection))
        orders = [
            candidate_orders(part, settings, compared, self._random_seed(pair), views)
            for part, pair in zip(parts, selection, strict=True)
        ]
        yield from measure_trajectories(bench, selection, orders, options, folder, SELECTION_TRAJECTORIES)
        measured = folder.read_all(TrajectoryPart, (part_name(SELECTION_TRAJECTORIES, pair) for pair in selection))
        trajectories = Trajectories(parts, measured, points(len(bench.sites)))
        candidates = dict(zip(LENSES, (options.steering, options.diffusion), strict=True))
        return choose_all(trajectories, candidates, compared, decodes=self.decodes)

    def _random_seed(self, pair: Overlaid) -> str:
        return f"{self.options.seed} {pair.id}"

    def summarise(self, measured: _Measured) -> Generator[Progress, None, OverlaySummary]:
        """Computes everything that the study reports."""
        yield Progress("statistics", 0, 1)
        reported = self.overlays.reported
        bases, overlays = {pair.base_concept for pair in reported}, {pair.overlay_concept for pair in reported}
        setup = OverlaySetup(
            ablation=self.options.ablation,
            n_concepts=min(len(bases), len(overlays)),
            n_groups=n_groups([(pair.base_concept, pair.overlay_concept) for pair in reported]),
            n_selection=len(self.overlays.selection),
            judge=judge_name(self.judge),
            note=self.overlays.note,
            command=self.command,
            model=pair_name(self.pair),
            **component_setup(self.options.sae, self.options.neurons),
            remainders=remainder_sites(self.options.sae),
        )
        summary = summarise(measured.trajectories, measured.choices, setup, draws=self.draws)
        yield Progress("statistics", 1, 1)
        return summary

    def output(self, measured: _Measured, summary: OverlaySummary) -> Output:
        """One table row per pair, order and number of ablated heads; figures of trajectories, orders and strips."""
        reported, trajectories = self.overlays.reported, measured.trajectories
        pairs = [(pair.id, pair.base_concept, pair.overlay_concept) for pair in reported]
        with_pictures = [
            (pair, trajectory)
            for pair, trajectory in zip(reported, trajectories.trajectories, strict=True)
            if trajectory.pictures
        ]
        strips = {
            f"strip-{number}": worded_figure(strip_figure(pair, trajectory, summary), summary.components)
            for number, (pair, trajectory) in enumerate(with_pictures)
        }
        return Output(table_rows(trajectories, pairs), {**summary_figures(summary), **strips})


def overlay_experiment(
    pair: Pair,
    overlays: OverlaySet,
    options: OverlayOptions,
    *,
    judge: Encoder | None = None,
    draws: int = 2000,
    command: str = "",
) -> OverlayExperiment:
    """Checks that the study can be run, and returns its experiment; arguments as in `overlay_study`.

    Raises:
        UsageError: if the model cannot be ablated.
    """
    require_blocks(pair, overlays.reference)
    if options.sae is not None:
        check_studied(options.sae, pair.encoder.spec)
    return OverlayExperiment(pair, overlays, options, judge, draws, command)


def overlay_study(
    pair: Pair,
    overlays: OverlaySet,
    options: OverlayOptions,
    folder: Path,
    *,
    judge: Encoder | None = None,
    draws: int = 2000,
    command: str = "",
) -> Generator[Progress, None, OverlaySummary]:
    """Runs the study in a folder, resuming from the parts that are there, and returns its summary.

    Args:
        pair: encoder and decoder.
        overlays: pairs to select settings on and to report on.
        options: options of the study.
        folder: where to write.
        judge: an outside encoder that embeds the decoded pictures too.
        draws: bootstrap draws of the intervals.
        command: the command, for the page of results.

    Raises:
        UsageError: if the folder holds another study.
        StoreError: if it cannot be written; finished parts stay.
    """
    experiment = overlay_experiment(pair, overlays, options, judge=judge, draws=draws, command=command)
    return (yield from run_experiment(experiment, folder))
