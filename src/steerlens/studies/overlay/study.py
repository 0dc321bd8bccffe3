"""The overlay study as the command line and the page of results see it."""

from collections.abc import Generator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from steerlens.errors import UsageError
from steerlens.studies.overlay.arguments import OverlayArguments
from steerlens.studies.shared.study import Study

if TYPE_CHECKING:
    from steerlens.progress import Progress
    from steerlens.studies.overlay.pictures import OverlaySet
    from steerlens.studies.overlay.results import OverlaySummary
    from steerlens.studies.shared.markdown import Bar, Finding


class OverlayStudy(Study[OverlayArguments, "OverlaySummary"]):
    """Overlays: heads ablated in the order in which a lens sees an overlay."""

    name = "overlay"
    title = "Overlays"
    question = (
        "Does ablating heads in a lens' order make an overlay leave, while the base stays? The paper's second study."
    )

    @property
    def arguments(self) -> type[OverlayArguments]:
        """Options of the command line."""
        return OverlayArguments

    def run(self, arguments: OverlayArguments, command: str) -> "Generator[Progress, None, OverlaySummary]":
        """Loads models and pictures, and carries the study out."""
        from steerlens.lenses.strength import Strength
        from steerlens.progress import Progress
        from steerlens.studies.overlay.experiment import overlay_study
        from steerlens.studies.overlay.options import OverlayOptions
        from steerlens.studies.shared.bench import with_steps
        from steerlens.studies.shared.candidates import diffusion_candidates, steering_candidates
        from steerlens.studies.shared.inputs import load_judge, load_study_pair

        settings = arguments.settings
        steering = steering_candidates([Strength.parse(strength) for strength in arguments.strengths])
        yield Progress("loading", 0, 1)
        overlays = load_overlays(arguments)
        pair = load_study_pair(settings)
        judge = load_judge(arguments.judge, settings)
        yield Progress("loading", 1, 1)
        options = OverlayOptions(
            with_steps(pair.decoder.spec.defaults, settings.steps, settings.guidance),
            settings.seed,
            arguments.ablation,
            steering,
            diffusion_candidates(len(steering)),
            seeds=arguments.seeds,
        )
        return (yield from overlay_study(pair, overlays, options, arguments.out, judge=judge, command=command))

    def read(self, values: Mapping[str, Any], where: str) -> "OverlaySummary":
        """The summary from JSON values."""
        from steerlens.studies.overlay.results import OverlaySummary

        return OverlaySummary.from_json(values, where)

    def lines(self, summary: "OverlaySummary", folder: Path) -> Sequence[str]:
        """Lines of results for the terminal."""
        from steerlens.studies.overlay.terminal import overlay_lines

        return overlay_lines(summary, folder)

    def bars(self, summary: "OverlaySummary") -> "Sequence[Bar]":
        """Figures of the verdict page."""
        from steerlens.studies.overlay.findings import overlay_bars

        return overlay_bars(summary)

    def findings(self, summary: "OverlaySummary") -> "Sequence[Finding]":
        """Findings in words."""
        from steerlens.studies.overlay.findings import overlay_findings

        return overlay_findings(summary)

    def section(self, summary: "OverlaySummary") -> str:
        """Tables and figures of the study's page."""
        from steerlens.studies.overlay.section import overlay_section

        return overlay_section(summary)


def load_overlays(arguments: OverlayArguments) -> "OverlaySet":
    """The pairs of base and overlay that the options name.

    Raises:
        UsageError: if pictures, places, sizes or opacities are missing, too few, or make no sense.
    """
    from steerlens.studies.overlay.pictures import Placing, folder_pairs
    from steerlens.studies.overlay.scenes import scene_pairs

    settings = arguments.settings
    if settings.images is not None:
        raise UsageError("the overlay study takes --bases and --overlays, or --data; not --images.")
    if (arguments.bases is None) != (arguments.overlays is None):
        raise UsageError("--bases and --overlays go together.")
    if arguments.bases is not None and settings.data is not None:
        raise UsageError("give either --bases and --overlays, or --data, not both.")
    if min(arguments.count, arguments.choose) < 2:
        raise UsageError("a study needs at least 2 pairs to choose on and 2 to report on.")
    placing = Placing(arguments.place, _range("--size", arguments.size), _range("--opacity", arguments.opacity))
    seed, counts = settings.seed, (arguments.choose, arguments.count)
    if arguments.bases is None or arguments.overlays is None:
        if settings.data is None:
            raise UsageError(
                "the overlay study needs pictures: give --bases FOLDER --overlays FOLDER, or for scenes of the "
                "bundled pair --data DIR, prepared with: steerlens train prepare --data DIR"
            )
        return scene_pairs(settings.data, *counts, seed=seed, placing=placing)
    return folder_pairs(arguments.bases, arguments.overlays, *counts, seed=seed, placing=placing)


def _range(option: str, values: tuple[float, ...]) -> tuple[float, float]:
    if len(values) not in (1, 2):
        raise UsageError(f"{option} takes one number, or two to draw it between, not {len(values)}.")
    return values[0], values[-1]
