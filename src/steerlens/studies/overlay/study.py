"""The overlay study from end to end: measure to choose, freeze, measure to report, summarise, draw."""

from collections.abc import Generator
from pathlib import Path
from typing import Any

from steerlens.encoders.base import Encoder
from steerlens.progress import Progress
from steerlens.studies.importance.measure import make_bench
from steerlens.studies.overlay.areas import Parts
from steerlens.studies.overlay.figures import (
    decoded_figure,
    orders_figure,
    strip_figure,
    strip_pairs,
    trajectory_figure,
)
from steerlens.studies.overlay.measure import (
    RemovalOptions,
    compares,
    mean_seen,
    measure,
    measure_orders,
    part_name,
    plain_settings,
    setting_names,
)
from steerlens.studies.overlay.orders import LENSES, UNDECODED, candidate_orders, choose_all, report_orders
from steerlens.studies.overlay.pictures import Overlaid, OverlaySet
from steerlens.studies.overlay.summary import RemovalSummary, summarise, table_rows
from steerlens.studies.shared.drawing import save_figure, save_table
from steerlens.studies.shared.folder import StudyFolder, open_study
from steerlens.studies.shared.joint import ATTRIBUTION, ONE_SHOT, REFERENCE, points
from steerlens.studies.shared.judge import judge_name, models_of
from steerlens.zoo.pair import Pair

STRIPS = ("steering, chosen", "diffusion, chosen", ONE_SHOT, REFERENCE, ATTRIBUTION, "random 0")
"""The orders along which pictures are decoded."""


def removal_study(
    pair: Pair,
    overlays: OverlaySet,
    options: RemovalOptions,
    folder: Path,
    *,
    judge: Encoder | None = None,
    draws: int = 2000,
    command: str = "",
) -> Generator[Progress, None, RemovalSummary]:
    """Carries the study out in a folder, going on with what is there, and returns its summary.

    Args:
        pair: encoder and decoder.
        overlays: pairs to choose on and to report on.
        options: what to measure.
        folder: where to write.
        judge: an outside encoder that sees the decoded pictures as well.
        draws: bootstrap draws of the intervals.
        command: what was run, for the page of results.

    Raises:
        UsageError: if the folder holds another study.
        StoreError: if it cannot be written; finished parts stay.
    """
    with open_study(folder, identity(pair, overlays, options, judge)) as study:
        yield Progress("references", 0, 1)
        bench = make_bench(pair, overlays.reference, judge)
        judge_mean = None if judge is None else mean_seen(judge, overlays.reference)
        yield Progress("references", 1, 1)
        compared = compares(pair, (*overlays.chosen, *overlays.reported))
        candidates = {"steering": options.steering, "diffusion": options.diffusion}
        everything = (*options.steering, *options.diffusion)
        named = {f"candidate.{setting}": setting for setting in everything}
        yield from measure(bench, overlays.chosen, named, options, study, "choose")
        parts = _parts(study, "choose", overlays.chosen)
        orders = [
            candidate_orders(part, everything, compared, f"{options.seed} {one.id}")
            for part, one in zip(parts, overlays.chosen, strict=True)
        ]
        yield from measure_orders(bench, overlays.chosen, orders, options, study, "choose-ways")
        ways, counts = _parts(study, "choose-ways", overlays.chosen), points(len(bench.sites))
        choices = choose_all(parts, ways, candidates, compared, counts)
        study.freeze({lens: choice.to_json() for lens, choice in choices.items()})
        settings = setting_names([*plain_settings().values(), *(choices[lens].setting for lens in LENSES)])
        undecoded = setting_names([choices[f"{lens}{UNDECODED}"].setting for lens in LENSES])
        yield from measure(
            bench,
            overlays.reported,
            settings,
            options,
            study,
            "report",
            undecoded=undecoded,
            seeds=options.seeds,
            judge_mean=judge_mean,
        )
        parts = _parts(study, "report", overlays.reported)
        orders = [
            report_orders(part, choices, f"{options.seed} {one.id}")
            for part, one in zip(parts, overlays.reported, strict=True)
        ]
        yield from measure_orders(bench, overlays.reported, orders, options, study, "report-ways", STRIPS)
        ways = _parts(study, "report-ways", overlays.reported)
        yield Progress("statistics", 0, 1)
        shown = zip(*((one.base_concept, one.overlay_concept) for one in overlays.reported), strict=True)
        summary = summarise(
            parts,
            ways,
            choices,
            counts,
            options.ablation,
            n_concepts=min(len(set(concepts)) for concepts in shown),
            n_chosen=len(overlays.chosen),
            judge=judge_name(judge),
            note=overlays.note,
            command=command,
            draws=draws,
        )
        yield Progress("statistics", 1, 1)
        pairs = [(one.id, one.base_concept, one.overlay_concept) for one in overlays.reported]
        study.write_json("summary.json", summary.to_json())
        study.write_json("provenance.json", pair.provenance.to_json())
        save_table(study, table_rows(parts, ways, pairs, counts))
        save_figure(study, "trajectories", trajectory_figure(summary))
        save_figure(study, "decoded", decoded_figure(summary))
        save_figure(study, "orders", orders_figure(summary))
        for number, (one, way) in enumerate(strip_pairs(overlays.reported, ways)):
            save_figure(study, f"strip-{number}", strip_figure(one, way, summary))
        return summary


def _parts(study: StudyFolder, stage: str, pairs: tuple[Overlaid, ...]) -> Parts:
    return study.parts(part_name(stage, pair) for pair in pairs)


def identity(pair: Pair, overlays: OverlaySet, options: RemovalOptions, judge: Encoder | None = None) -> dict[str, Any]:
    """What two calls must share to go on with one study, as JSON values."""
    return {
        "study": "overlay",
        "models": models_of(pair, judge),
        "pairs": overlays.identity(),
        "options": {
            "seed": options.seed,
            "seeds": options.seeds,
            "ablation": options.ablation,
            "greedy_pool": options.greedy_pool,
            "strips": options.strips,
            "steering": [str(setting) for setting in options.steering],
            "diffusion": [str(setting) for setting in options.diffusion],
            "decode": options.decode.decisive(),
        },
    }
