"""The command `steerlens cache`: shows and clears the traces that runs share."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro

from steerlens.cli.console import emit_json, plain_bytes, print_table, say


@dataclass(frozen=True)
class Show:
    """Show the folder of stored traces, their models, their size and its limit.

    STEERLENS_CACHE sets another folder, STEERLENS_CACHE_GB another limit in gigabytes (default: 5; 0 stores none).
    The least recently used traces are removed first.

    Examples:
      steerlens cache show
    """

    model: str | None = None
    """Only the traces of this encoder."""

    json: bool = False
    """Print the result as JSON on standard output, and nothing else."""

    def run(self) -> int:
        """Prints the contents of the cache and returns the exit code."""
        from steerlens.errors import UsageError
        from steerlens.sweep import cache_folder, cached_models, foreign_files, size_limit

        folder, limit = cache_folder(), size_limit()
        kept = cached_models(folder)
        models = [entry for entry in kept if self.model in (None, entry.name)]
        if self.model is not None and not models:
            known = ", ".join(sorted({entry.name for entry in kept})) or "none"
            raise UsageError(f"the cache in {folder} has no traces of {self.model!r}; it has traces of: {known}.")
        size, entries = sum(entry.size for entry in models), sum(entry.entries for entry in models)
        foreign = foreign_files(folder)
        if self.json:
            totals: dict[str, Any] = {"folder": folder, "bytes": size, "limit_bytes": limit, "entries": entries}
            emit_json({**totals, "foreign_files": foreign, "models": models})
            return 0
        say(f"{folder}: {entries} traces, {plain_bytes(size)} of {plain_bytes(limit)}")
        if models:
            print_table(
                ("MODEL", "TRACES", "SIZE", "FOLDER"),
                [(entry.name, str(entry.entries), plain_bytes(entry.size), entry.folder.name) for entry in models],
            )
        _mention_foreign(folder, foreign)
        return 0


@dataclass(frozen=True)
class Clear:
    """Remove stored traces, and nothing else. Nothing is lost except the time to compute them again.

    Examples:
      steerlens cache clear
      steerlens cache clear --model emoji
    """

    model: str | None = None
    """Only the traces of this encoder. Default: all."""

    json: bool = False
    """Print the result as JSON on standard output, and nothing else."""

    def run(self) -> int:
        """Removes the traces and returns the exit code."""
        from steerlens.sweep import cache_folder, clear_cache

        folder = cache_folder()
        cleared = clear_cache(folder, self.model)
        size, entries = sum(entry.size for entry in cleared.models), sum(entry.entries for entry in cleared.models)
        if self.json:
            emit_json({"folder": folder, "bytes": size, "entries": entries, "foreign_files": cleared.foreign})
            return 0
        say(f"removed {entries} traces, {plain_bytes(size)}")
        _mention_foreign(folder, cleared.foreign)
        return 0


def _mention_foreign(folder: Path, count: int) -> None:
    if count:
        say(f"{count} files in {folder / 'traces'} were not written by steerlens and are left alone")


Command = Annotated[Show, tyro.conf.subcommand("show")] | Annotated[Clear, tyro.conf.subcommand("clear")]
