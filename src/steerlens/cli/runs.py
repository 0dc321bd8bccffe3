"""`steerlens runs`: what run directories hold, merged and exported."""

from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar

import tyro

from steerlens.cli.console import ProgressBar, emit_json, plain_bytes, say

if TYPE_CHECKING:
    from steerlens.progress import Progress
    from steerlens.runs.summary import RunSummary

_Result = TypeVar("_Result")


@dataclass(frozen=True)
class Show:
    """Show what a run directory holds: models, inputs, pictures done of those planned, options, size, time.

    Examples:
      steerlens runs show steerlens-runs/cup-emoji
    """

    run_folder: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="RUN")]
    """The run directory."""

    json: bool = False
    """Print the result as JSON on standard output, and nothing else."""

    def run(self) -> int:
        """Prints the summary of a run and returns the exit code."""
        from steerlens.runs.summary import run_summary

        found = run_summary(self.run_folder)
        if self.json:
            emit_json(found)
        else:
            _tell(found)
        return 0


@dataclass(frozen=True)
class Merge:
    """Make one run of several: other inputs, sites or seeds of the same models and options.

    Every picture is taken once; runs that hold different results of one picture are refused, and so are runs of other
    models or options.

    Examples:
      steerlens runs merge monday tuesday --out week
    """

    runs: tyro.conf.Positional[tuple[Path, ...]]
    """The run directories."""

    out: Path
    """The new run directory."""

    json: bool = False
    """Print the result as JSON on standard output, and nothing else."""

    def interrupted(self) -> str:
        """A sentence about what a stopped merge leaves behind."""
        return f"The runs are as they were; the same command goes on with {self.out}."

    def run(self) -> int:
        """Merges them and returns the exit code."""
        from steerlens.runs.merge import merge_runs

        merged = _with_progress(merge_runs(self.runs, self.out), quiet=self.json)
        if self.json:
            emit_json(merged)
            return 0
        again = f"; {merged.duplicates} were in several runs" if merged.duplicates else ""
        say(f"{merged.folder}: {merged.cells} of {merged.planned} planned pictures{again}")
        if not merged.complete:
            say("not complete: finish the runs that it was made of, and merge them into a new folder")
        return 0


@dataclass(frozen=True)
class Export:
    """Write a run in another form: one parquet file, a folder of PNG files with an index, or a report.

    Examples:
      steerlens runs export week --format parquet --out week.parquet
      steerlens runs export week --format png --out pictures
      steerlens runs export week --format report --inputs cup cat --out page
    """

    run_folder: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="RUN")]
    """The run directory."""

    format: Literal["parquet", "png", "report"]
    """What to write."""

    out: Path
    """The file (parquet) or the folder (png, report)."""

    inputs: tuple[str, ...] = ()
    """Names or ids of the inputs to export. Default: all."""

    force: bool = False
    """Replace files of the same names that are there."""

    json: bool = False
    """Print the result as JSON on standard output, and nothing else."""

    def interrupted(self) -> str:
        """A sentence about what a stopped export leaves behind."""
        half = self.format == "report" and self.out.exists()
        return f"The run is as it was; {f'{self.out} is not whole' if half else 'nothing was written'}."

    def run(self) -> int:
        """Exports it and returns the exit code."""
        from steerlens.runs.export import export_parquet, export_pictures, export_report
        from steerlens.runs.store import load_run

        atlas = load_run(self.run_folder)
        if self.inputs:
            atlas = atlas.only(self.inputs)
        written = self.out
        if self.format == "report":
            with ProgressBar(quiet=self.json) as progress:
                progress.stage("report", 1)
                written = export_report(atlas, self.out, force=self.force)
                progress.advance(1)
        else:
            export = export_parquet if self.format == "parquet" else export_pictures
            _with_progress(export(atlas, self.out, force=self.force), quiet=self.json)
        if self.json:
            emit_json({"out": written, "pictures": len(atlas.finished), "inputs": len(atlas.readings)})
        else:
            say(f"{written}: {len(atlas.finished)} pictures of {len(atlas.readings)} inputs")
        return 0


def _with_progress(events: "Generator[Progress, None, _Result]", *, quiet: bool) -> _Result:
    from steerlens.progress import run_to_end

    with ProgressBar(quiet=quiet) as progress:
        return run_to_end(events, progress.show)


def _tell(found: "RunSummary") -> None:
    decoded, planned = sum(found.decoded.values()), sum(found.planned.values())
    most = "" if found.decode == "all" else "at most "
    state = "complete" if found.complete else f"not complete, {most}{planned - decoded} pictures are missing"
    say(f"{found.folder}: {state}{'; a process is writing to it now' if found.being_written else ''}")
    say(f"encoder: {found.encoder}, {found.layers} layers x {found.heads} heads")
    say(f"decoder: {found.decoder}")
    names = ", ".join(found.inputs[:6]) + (", ..." if len(found.inputs) > 6 else "")
    say(f"inputs: {len(found.inputs)} ({names}), {found.read} read")
    lenses = ", ".join(f"{lens} {found.decoded[lens]} of {count}" for lens, count in found.planned.items())
    say(f"pictures: {lenses}; {found.sites} sites, seeds {', '.join(map(str, found.seeds))}")
    if found.decode != "all":
        say(f"decoded of every input: {found.decode}; all other sites were ranked without decoding")
    say(f"strength: {found.strength}; compared with {found.target}")
    say(f"options: {', '.join(f'{name} {_text(value)}' for name, value in found.options.items())}")
    time = "unknown, since it was interrupted" if found.seconds is None else f"{found.seconds:g} s"
    say(f"size: {plain_bytes(found.size)}" + (f"; time: {time}" if found.complete else ""))
    if not found.complete and not found.being_written:
        say(f"to go on: run the command that began it once more, with --out {found.folder}")


def _text(value: Any) -> str:
    return " x ".join(map(str, value)) if isinstance(value, list) else str(value)


Command = (
    Annotated[Show, tyro.conf.subcommand("show")]
    | Annotated[Merge, tyro.conf.subcommand("merge")]
    | Annotated[Export, tyro.conf.subcommand("export")]
)
