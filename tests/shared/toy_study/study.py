"""Entry of the brightness study in the table of studies."""

from typing import TYPE_CHECKING, Any

from steerlens.studies import Study
from steerlens.studies.shared.study import Report
from toy_study.options import BrightnessArguments

if TYPE_CHECKING:
    from steerlens.studies.shared import Experiment, ModelLoader
    from toy_study.summary import BrightnessSummary


class BrightnessStudy(Study[BrightnessArguments, "BrightnessSummary"]):
    """Brightness, for the command line and the pages."""

    name = "brightness"
    title = "Brightness"
    question = "Does the embedding survive a change of brightness?"

    @property
    def arguments(self) -> type[BrightnessArguments]:
        return BrightnessArguments

    def prepare(
        self, arguments: BrightnessArguments, command: str, load: "ModelLoader"
    ) -> "Experiment[Any, BrightnessSummary]":
        from steerlens.studies.shared.inputs import load_subjects
        from toy_study.experiment import BrightnessExperiment

        half = arguments.count // 2
        subjects = load_subjects(arguments.settings, half, arguments.count - half)
        return BrightnessExperiment(load(arguments.settings).pair, subjects, arguments.factor, command)

    @property
    def report(self) -> "Report[BrightnessSummary]":
        from toy_study.section import brightness_bars, brightness_findings, brightness_lines, brightness_section
        from toy_study.summary import BrightnessSummary

        return Report(
            summary=BrightnessSummary,
            model=lambda summary: summary.model,
            lines=brightness_lines,
            bars=brightness_bars,
            findings=brightness_findings,
            section=brightness_section,
        )
