"""A study as the command line and the page of results see it: one object, entered once in `steerlens.studies.STUDIES`.

Light to import: what needs torch or matplotlib is imported inside the methods.
"""

from abc import ABC, abstractmethod
from collections.abc import Generator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeVar

from steerlens.studies.shared.arguments import StudyArguments

if TYPE_CHECKING:
    from steerlens.progress import Progress
    from steerlens.studies.shared.markdown import Bar, Finding
    from steerlens.studies.shared.records import StudySummary

_Arguments = TypeVar("_Arguments", bound=StudyArguments)
_Summary = TypeVar("_Summary", bound="StudySummary")


class Study(ABC, Generic[_Arguments, _Summary]):
    """A study: how it is run from the command line, and how its summary is read and told.

    Class attributes:
        name: of the command, of the study's folder, and of its page.
        title: heading of its page.
        question: what it asks, in a sentence.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    question: ClassVar[str]

    @property
    @abstractmethod
    def arguments(self) -> type[_Arguments]:
        """Dataclass of its command-line options; its docstring is the help."""

    @abstractmethod
    def run(self, arguments: _Arguments, command: str) -> "Generator[Progress, None, _Summary]":
        """Loads models and pictures, carries the study out in `arguments.out` and returns its summary.

        Args:
            arguments: options of the command line.
            command: the command as the page of results prints it.

        Raises:
            UsageError: if options or pictures make no study, or the folder holds another one.
            StoreError: if the folder cannot be written; finished parts stay.
        """

    @abstractmethod
    def read(self, values: Mapping[str, Any], where: str) -> _Summary:
        """The summary from JSON values.

        Args:
            values: parsed JSON.
            where: names the file, for messages.

        Raises:
            UsageError: if the file is no summary of this study, or another version wrote it.
        """

    @abstractmethod
    def lines(self, summary: _Summary, folder: Path) -> Sequence[str]:
        """Lines of results for the terminal."""

    @abstractmethod
    def bars(self, summary: _Summary) -> "Sequence[Bar]":
        """Figures of the verdict page, with their bars."""

    @abstractmethod
    def findings(self, summary: _Summary) -> "Sequence[Finding]":
        """Findings in words; which sentence is printed depends on the summary's figures alone."""

    @abstractmethod
    def section(self, summary: _Summary) -> str:
        """Tables and figures of the study's page, as markdown."""

    def model(self, summary: _Summary) -> str:
        """The name of the pair that the study was about, if the summary says so."""
        return ""
