"""Command of a study, built from its options: runs it with progress, and prints its results."""

from typing import Any

from steerlens.cli.console import ProgressBar, emit_json, say
from steerlens.cli.interrupted import kept
from steerlens.cli.study.command_line import command_line
from steerlens.progress import run_to_end
from steerlens.studies import Study
from steerlens.studies.shared import StudyArguments


def study_command(study: Study[Any, Any]) -> type[StudyArguments]:
    """Builds the command of a study: its options, and a method that runs it."""

    class StudyCommand(study.arguments):
        def run(self) -> int:
            """Runs the command and returns the exit code."""
            if self.dry_run:
                from steerlens.cli.study.dry_run import dry_run

                return dry_run(study, self)
            return run_study(study, self)

        def interrupted(self) -> str:
            """Message about the results that an interrupted study keeps."""
            return "Nothing was written." if self.dry_run else kept(self.out)

    StudyCommand.__doc__ = study.arguments.__doc__
    return StudyCommand


def run_study(study: Study[Any, Any], arguments: StudyArguments) -> int:
    """Runs a study with progress on stderr, and prints its results; returns the exit code."""
    quiet = arguments.settings.json
    with ProgressBar(quiet=quiet) as progress:
        summary = run_to_end(study.run(arguments, command_line(study.name, arguments)), progress.show)
    if quiet:
        emit_json(summary.to_json())
    else:
        for line in study.report.lines(summary, arguments.out):
            say(line)
    return 0
