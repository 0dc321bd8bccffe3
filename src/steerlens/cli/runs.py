"""The command `steerlens runs`: summarises, merges, exports and publishes run directories."""

from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar

import tyro

from steerlens.cli.console import ProgressBar, emit_json, plain_bytes, say
from steerlens.cli.publish import Publish
from steerlens.printable import counted

if TYPE_CHECKING:
    from steerlens.progress import Progress
    from steerlens.runs import RunSummary, Verification

_Result = TypeVar("_Result")


@dataclass(frozen=True)
class Show:
    """Summarise a run directory: models, inputs, decoded and planned pictures, options, size, time.

    Examples:
      steerlens runs show steerlens-runs/cup-emoji
    """

    run_folder: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="RUN")]
    """Run directory."""

    json: bool = False
    """Print the result as JSON on standard output, and nothing else."""

    def run(self) -> int:
        """Prints the summary of a run and returns the exit code."""
        from steerlens.runs import run_summary

        summary = run_summary(self.run_folder)
        if self.json:
            emit_json(summary)
        else:
            _print_summary(summary)
        return 0


@dataclass(frozen=True)
class Merge:
    """Merge runs of different inputs, sites or seeds into a new run.

    Models and options must be the same. A picture in several runs is taken once; if its results differ between runs,
    the merge is refused. Cards of heads come along; if runs made the cards of an input with different options, those of
    the first run are kept.

    Examples:
      steerlens runs merge monday tuesday --out week
    """

    runs: tyro.conf.Positional[tuple[Path, ...]]
    """Run directories to merge."""

    out: Path
    """New run directory."""

    json: bool = False
    """Print the result as JSON on standard output, and nothing else."""

    def interrupted(self) -> str:
        """Message about an interrupted merge."""
        return f"The runs are unchanged; run the same command again to resume {self.out}."

    def run(self) -> int:
        """Merges the runs and returns the exit code."""
        from steerlens.runs import merge_runs

        merged = _with_progress(merge_runs(self.runs, self.out), quiet=self.json)
        if self.json:
            emit_json(merged)
            return 0
        repeated = f"; {merged.duplicates} were in several runs" if merged.duplicates else ""
        say(f"{merged.folder}: {merged.cells} of {merged.planned} planned pictures{repeated}")
        if merged.cards:
            say(f"cards of heads: {_inputs(merged.cards)}")
        if merged.cards_left_out:
            say(
                f"some cards of {_inputs(merged.cards_left_out)} left out: their strength, bank or measured "
                f"faithfulness is not that of an earlier run; steerlens lens with --bank and --out {merged.folder} "
                "makes all anew"
            )
        if merged.cards_damaged:
            say(
                f"damaged cards of {_inputs(merged.cards_damaged)} left out; steerlens lens with --bank and --out "
                f"{merged.folder} makes them anew"
            )
        if not merged.complete:
            say("not complete: finish the runs that were merged, and merge them into a new folder")
        return 0


@dataclass(frozen=True)
class Export:
    """Export a run: as one parquet file, as a folder of PNG files with an index, or as a report.

    Examples:
      steerlens runs export week --format parquet --out week.parquet
      steerlens runs export week --format png --out pictures
      steerlens runs export week --format report --inputs cup cat --out page
    """

    run_folder: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="RUN")]
    """Run directory."""

    format: Literal["parquet", "png", "report"]
    """Format of the export."""

    out: Path
    """File (parquet) or folder (png, report) to write."""

    inputs: tuple[str, ...] = ()
    """Names or ids of the inputs to export. Default: all."""

    force: bool = False
    """Replace existing files of the same names."""

    json: bool = False
    """Print the result as JSON on standard output, and nothing else."""

    def interrupted(self) -> str:
        """Message about an interrupted export."""
        half = self.format == "report" and self.out.exists()
        return f"The run is unchanged; {f'{self.out} is incomplete' if half else 'nothing was written'}."

    def run(self) -> int:
        """Exports the run and returns the exit code."""
        from steerlens.runs import export_parquet, export_pictures, load_run
        from steerlens.runs.export import export_report

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
            pictures, inputs = counted(len(atlas.finished), "picture"), counted(len(atlas.readings), "input")
            say(f"{written}: {pictures} of {inputs}")
        return 0


@dataclass(frozen=True)
class Verify:
    """Check every file of a run, cards too: its hash, and whether it can be read; say what is lost and how to redo it.

    Files that version 0.1.0 wrote have no hash, and are checked by reading them. Exit code 1 if anything is damaged and
    was not moved aside.

    Examples:
      steerlens runs verify week
      steerlens runs verify week --remove-damaged
    """

    run_folder: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="RUN")]
    """The run directory."""

    remove_damaged: bool = False
    """Move damaged parts, readings and cards to RUN/damaged. The command that made them, with --resume, redoes them."""

    json: bool = False
    """Print the result as JSON on standard output, and nothing else."""

    def run(self) -> int:
        """Prints the result and returns the exit code."""
        from steerlens.runs import verify_run

        result = verify_run(self.run_folder, remove_damaged=self.remove_damaged)
        if self.json:
            emit_json(result)
        else:
            _print_verification(result)
        return 1 if result.damaged and not self.remove_damaged else 0


def _print_verification(result: "Verification") -> None:
    for damaged in result.damaged:
        moved = "" if damaged.moved is None else f"; moved to {damaged.moved}"
        say(f"{result.folder / damaged.file}: {damaged.reason}{moved}")
    if result.without_hash:
        say(f"{result.without_hash} files have no hash (an earlier version wrote them): checked by reading them")
    state = f"{len(result.damaged)} damaged" if result.damaged else "all intact"
    say(f"{result.folder}: {result.files} files, {state}")
    missing = result.expected_pictures - result.intact_pictures
    if result.redo:
        lost = [f"{missing} of {result.expected_pictures} pictures"]
        lost += [
            f"the {what} of {_inputs(len(ids))}"
            for what, ids in (("readings", result.lost_readings), ("cards", result.lost_cards))
            if ids
        ]
        say(f"missing without them: {' and '.join(lost)}")
        say(f"to redo: {result.redo}")


def _inputs(count: int) -> str:
    return f"{count} input{'' if count == 1 else 's'}"


def _with_progress(events: "Generator[Progress, None, _Result]", *, quiet: bool) -> _Result:
    from steerlens.progress import run_to_end

    with ProgressBar(quiet=quiet) as progress:
        return run_to_end(events, progress.show)


def _print_summary(summary: "RunSummary") -> None:
    decoded, planned = sum(summary.decoded.values()), sum(summary.planned.values())
    most = "" if summary.decode == "all" else "at most "
    state = "complete" if summary.complete else f"not complete, {most}{planned - decoded} pictures are missing"
    say(f"{summary.folder}: {state}{'; a process is writing to it now' if summary.being_written else ''}")
    say(f"encoder: {summary.encoder}, {summary.layers} layers x {summary.heads} heads")
    say(f"decoder: {summary.decoder}")
    names = ", ".join(summary.inputs[:6]) + (", ..." if len(summary.inputs) > 6 else "")
    say(f"inputs: {len(summary.inputs)} ({names}), {summary.read} read")
    lenses = ", ".join(f"{lens} {summary.decoded[lens]} of {count}" for lens, count in summary.planned.items())
    say(f"pictures: {lenses}; {summary.sites} sites, seeds {', '.join(map(str, summary.seeds))}")
    if summary.decode != "all":
        say(f"decoded of every input: {summary.decode}; all other sites are ranked without decoding")
    if summary.cards:
        say(f"cards of heads: {_inputs(summary.cards)}")
    say(f"strength: {summary.strength}; compared with {summary.target}")
    say(f"options: {', '.join(f'{name} {_text(value)}' for name, value in summary.options.items())}")
    time = "unknown, because the run was interrupted" if summary.seconds is None else f"{summary.seconds:g} s"
    say(f"size: {plain_bytes(summary.size)}" + (f"; time: {time}" if summary.complete else ""))
    if not summary.complete and not summary.being_written:
        say(f"to resume: repeat the command that started it, with --out {summary.folder}")


def _text(value: Any) -> str:
    return " x ".join(map(str, value)) if isinstance(value, list) else str(value)


Command = (
    Annotated[Show, tyro.conf.subcommand("show")]
    | Annotated[Merge, tyro.conf.subcommand("merge")]
    | Annotated[Export, tyro.conf.subcommand("export")]
    | Annotated[Publish, tyro.conf.subcommand("publish")]
    | Annotated[Verify, tyro.conf.subcommand("verify")]
)
