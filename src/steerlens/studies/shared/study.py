"""Interface of a study to the command line and the pages of results: one object, listed in `steerlens.studies.STUDIES`.

Light to import: a study imports torch and matplotlib inside its methods.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeVar

from steerlens.studies.shared.arguments import StudyArguments

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from steerlens.progress import Progress
    from steerlens.studies.shared.conclusion import Claim, Conclusion
    from steerlens.studies.shared.inputs import ModelLoader
    from steerlens.studies.shared.markdown import Bar, Finding
    from steerlens.studies.shared.records import StudySummary
    from steerlens.studies.shared.run import Experiment

_Arguments = TypeVar("_Arguments", bound=StudyArguments)
_Summary = TypeVar("_Summary", bound="StudySummary")


@dataclass(frozen=True)
class Report(Generic[_Summary]):
    """Functions that read a study's summary and report it.

    Attributes:
        summary: class of the summary.
        model: name of the studied pair; empty if the summary does not record it.
        lines: results for the terminal, from the summary and the folder of the study.
        bars: rows of the verdict page: figures with the bars that they should reach.
        findings: findings in words; the summary's figures alone decide which sentence is printed.
        section: tables and figures of the study's page, as markdown.
        conclusion: plain sentences and a next step.
        claims: figures that are compared between models.
        opening: caption and name of the figure that opens a page of the model, or None.
        figures: figures that need no more than the summary; pages are drawn with these.
    """

    summary: type[_Summary]
    model: Callable[[_Summary], str]
    lines: Callable[[_Summary, Path], Sequence[str]]
    bars: "Callable[[_Summary], Sequence[Bar]]"
    findings: "Callable[[_Summary], Sequence[Finding]]"
    section: Callable[[_Summary], str]
    conclusion: "Callable[[_Summary], Conclusion | None]" = field(default=lambda _: None)
    claims: "Callable[[_Summary], Sequence[Claim]]" = field(default=lambda _: ())
    opening: tuple[str, str] | None = None
    figures: "Callable[[_Summary], Mapping[str, Figure]]" = field(default=lambda _: {})

    def worded(self, components: Callable[[_Summary], str]) -> "Report[_Summary]":
        """The same report in the words of a summary's components: `heads`, `features` or `neurons`.

        Args:
            components: returns the components of a summary.
        """
        from steerlens.studies.shared.wording import worded_by

        texts = ("lines", "bars", "findings", "section", "conclusion", "claims")
        return replace(self, **{name: worded_by(getattr(self, name), components) for name in texts})


class Study(ABC, Generic[_Arguments, _Summary]):
    """A study: how to run it from the command line, and how to report its summary.

    Class attributes:
        name: of the command, of the study's folder, and of its page.
        title: heading of its page.
        question: the question that it answers, in a sentence.
        of_settings: True if it is about settings of lens or decoder; a model's page opens with the other studies first.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    question: ClassVar[str]
    of_settings: ClassVar[bool] = False

    @property
    @abstractmethod
    def arguments(self) -> type[_Arguments]:
        """Dataclass of its command-line options; its docstring is the help."""

    @abstractmethod
    def prepare(self, arguments: _Arguments, command: str, load: "ModelLoader") -> "Experiment[Any, _Summary]":
        """Checks options, loads pictures and models, and returns the experiment; computes and writes nothing.

        Args:
            arguments: options of the command line.
            command: the command as the page of results prints it.
            load: loads the models, after all checks that need none.

        Raises:
            UsageError: if options or pictures do not allow the study.
        """

    def run(self, arguments: _Arguments, command: str) -> "Generator[Progress, None, _Summary]":
        """Loads models and pictures, runs the study in `arguments.out`, and returns its summary.

        Args:
            arguments: options of the command line.
            command: the command as the page of results prints it.

        Raises:
            UsageError: if options or pictures do not allow the study, or the folder holds another study.
            StoreError: if the folder cannot be written; finished parts stay.
        """
        from steerlens.progress import Progress
        from steerlens.studies.shared.inputs import load_models
        from steerlens.studies.shared.run import run_experiment

        yield Progress("loading", 0, 1)
        experiment = self.prepare(arguments, command, load_models)
        yield Progress("loading", 1, 1)
        return (yield from run_experiment(experiment, arguments.out))

    @property
    @abstractmethod
    def report(self) -> Report[_Summary]:
        """Functions that read and report its summary."""

    def read(self, values: Mapping[str, Any], where: str) -> _Summary:
        """Reads a summary from JSON values.

        Args:
            values: parsed JSON.
            where: name of the file, for messages.

        Raises:
            UsageError: if the file is not a summary of this study, or another version wrote it.
        """
        return self.report.summary.from_json(values, where)
