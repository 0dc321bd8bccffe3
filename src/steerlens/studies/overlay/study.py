"""Entry of the overlay study in the table of studies: its command, its summary and its report."""

from typing import TYPE_CHECKING, Any

from steerlens.errors import UsageError
from steerlens.studies.overlay.arguments import OverlayArguments
from steerlens.studies.shared.arguments import refuse_unused
from steerlens.studies.shared.study import Report, Study

if TYPE_CHECKING:
    from steerlens.studies.overlay.pictures import OverlaySet
    from steerlens.studies.overlay.results import OverlaySummary
    from steerlens.studies.shared.inputs import ModelLoader
    from steerlens.studies.shared.run import Experiment


class OverlayStudy(Study[OverlayArguments, "OverlaySummary"]):
    """Overlays: heads ablated in the order in which a lens shows an overlay."""

    name = "overlay"
    title = "Overlays"
    question = "Does ablating heads in a lens' order remove an overlay and keep the base? The paper's second study."

    @property
    def arguments(self) -> type[OverlayArguments]:
        """Options of the command line."""
        return OverlayArguments

    def prepare(
        self, arguments: OverlayArguments, command: str, load: "ModelLoader"
    ) -> "Experiment[Any, OverlaySummary]":
        """Checks options, and loads pictures and models."""
        from steerlens.lenses import Strength
        from steerlens.studies.overlay.experiment import overlay_experiment
        from steerlens.studies.overlay.options import OverlayOptions
        from steerlens.studies.shared.candidates import diffusion_candidates, steering_candidates
        from steerlens.studies.shared.inputs import decode_options, study_sae

        settings = arguments.settings
        sae = study_sae(arguments)
        if not arguments.decoder:
            refuse_unused(arguments, ("judge", "seeds"), "nothing is decoded with --no-decoder")
        steering = steering_candidates([Strength.parse(strength) for strength in arguments.strengths])
        overlays = load_overlays(arguments)
        models = load(settings, arguments.judge, decoder=arguments.decoder)
        options = OverlayOptions(
            decode_options(models.pair, settings),
            settings.seed,
            arguments.ablation,
            steering,
            diffusion_candidates(len(steering)),
            seeds=arguments.seeds,
            sae=sae,
            features=arguments.features,
            neurons=arguments.neurons,
        )
        return overlay_experiment(models.pair, overlays, options, judge=models.judge, command=command)

    @property
    def report(self) -> "Report[OverlaySummary]":
        """Functions that read and report its summary."""
        from steerlens.studies.overlay.conclusion import overlay_claims, overlay_conclusion
        from steerlens.studies.overlay.figures import summary_figures
        from steerlens.studies.overlay.findings import overlay_bars, overlay_findings
        from steerlens.studies.overlay.results import OverlaySummary
        from steerlens.studies.overlay.section import overlay_section
        from steerlens.studies.overlay.terminal import overlay_lines

        return Report(
            summary=OverlaySummary,
            model=lambda summary: summary.model,
            lines=overlay_lines,
            bars=overlay_bars,
            findings=overlay_findings,
            section=overlay_section,
            conclusion=overlay_conclusion,
            claims=overlay_claims,
            opening=("How soon an overlay leaves, in each order of heads", "plain"),
            figures=summary_figures,
        ).worded(lambda summary: summary.components)


def load_overlays(arguments: OverlayArguments) -> "OverlaySet":
    """Loads the pairs of base and overlay that the options name.

    Raises:
        UsageError: if pictures are missing or too few, or places, sizes or opacities are out of range.
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
                "the overlay study needs pictures: give --bases FOLDER --overlays FOLDER; or, for scenes of the "
                "bundled pair, --data DIR, prepared by: steerlens train prepare --data DIR"
            )
        return scene_pairs(settings.data, *counts, seed=seed, placing=placing)
    return folder_pairs(arguments.bases, arguments.overlays, *counts, seed=seed, placing=placing)


def _range(option: str, values: tuple[float, ...]) -> tuple[float, float]:
    if len(values) not in (1, 2):
        raise UsageError(f"{option} takes one number, or the two ends of a range, not {len(values)} numbers.")
    return values[0], values[-1]
