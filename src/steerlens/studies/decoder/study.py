"""The decoder study as the command line and the page of results see it."""

from collections.abc import Generator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from steerlens.errors import UsageError
from steerlens.studies.decoder.arguments import DecoderArguments
from steerlens.studies.shared.study import Study

if TYPE_CHECKING:
    from steerlens.progress import Progress
    from steerlens.studies.decoder.results import DecoderSummary
    from steerlens.studies.shared.markdown import Bar, Finding

_FEWEST_PICTURES = 4


class DecoderStudy(Study[DecoderArguments, "DecoderSummary"]):
    """The decoder: what it invents, and how many steps are enough."""

    name = "decoder"
    title = "Decoder"
    question = "What does the decoder add to the requested embedding, and how many steps are worth their time?"

    @property
    def arguments(self) -> type[DecoderArguments]:
        """Options of the command line."""
        return DecoderArguments

    def run(self, arguments: DecoderArguments, command: str) -> "Generator[Progress, None, DecoderSummary]":
        """Loads models and pictures, and carries the study out."""
        from steerlens.lenses.strength import Strength
        from steerlens.progress import Progress
        from steerlens.studies.decoder.experiment import decoder_study
        from steerlens.studies.decoder.options import DecoderOptions, sweep
        from steerlens.studies.shared.bench import with_steps
        from steerlens.studies.shared.inputs import decoder_seeds, load_judge, load_study_pair, load_subjects
        from steerlens.sweep.prepare import default_strength

        settings, count = arguments.settings, arguments.count
        if count < _FEWEST_PICTURES:
            raise UsageError(f"the decoder study needs at least {_FEWEST_PICTURES} pictures, not {count}.")
        strength = None if arguments.strength is None else Strength.parse(arguments.strength)
        yield Progress("loading", 0, 1)
        # No choice depends on concepts: both halves are reported on.
        subjects = load_subjects(settings, count // 2, count - count // 2)
        pair = load_study_pair(settings)
        judge = load_judge(arguments.judge, settings)
        yield Progress("loading", 1, 1)
        options = DecoderOptions(
            sweep(
                with_steps(pair.decoder.spec.defaults, settings.steps, settings.guidance),
                arguments.sweep_steps,
                arguments.sweep_guidance,
                arguments.sweep_schedulers,
                arguments.sweep_intervals,
            ),
            strength or default_strength(pair.card),
            arguments.target,
            decoder_seeds(settings, arguments.seeds),
            arguments.reference_steps,
            arguments.reference_seeds,
            arguments.heads,
        )
        return (
            yield from decoder_study(
                pair, subjects, options, arguments.out, wanted=arguments.share, judge=judge, command=command
            )
        )

    def read(self, values: Mapping[str, Any], where: str) -> "DecoderSummary":
        """The summary from JSON values."""
        from steerlens.studies.decoder.results import DecoderSummary

        return DecoderSummary.from_json(values, where)

    def lines(self, summary: "DecoderSummary", folder: Path) -> Sequence[str]:
        """Lines of results for the terminal."""
        from steerlens.studies.decoder.terminal import decoder_lines

        return decoder_lines(summary, folder)

    def bars(self, summary: "DecoderSummary") -> "Sequence[Bar]":
        """Figures of the verdict page."""
        from steerlens.studies.decoder.findings import decoder_bars

        return decoder_bars(summary)

    def findings(self, summary: "DecoderSummary") -> "Sequence[Finding]":
        """Findings in words."""
        from steerlens.studies.decoder.findings import decoder_findings

        return decoder_findings(summary)

    def section(self, summary: "DecoderSummary") -> str:
        """Tables and figures of the study's page."""
        from steerlens.studies.decoder.section import decoder_section

        return decoder_section(summary)
