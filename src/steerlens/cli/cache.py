"""`steerlens cache`: the traces that are kept from run to run."""

from dataclasses import dataclass
from typing import Annotated, Any

import tyro

from steerlens.cli.console import emit_json, plain_bytes, print_table, say


@dataclass(frozen=True)
class Show:
    """Show where traces are kept, how much they take, how much they may take, and of which models they are.

    STEERLENS_CACHE names another folder, STEERLENS_CACHE_GB another limit in gigabytes (default: 5; 0 keeps none). What
    was not used for longest goes first.

    Examples:
      steerlens cache show
    """

    model: str | None = None
    """Only the traces of this encoder."""

    json: bool = False
    """Print the result as JSON on standard output, and nothing else."""

    def run(self) -> int:
        """Prints what there is and returns the exit code."""
        from steerlens.sweep.trace_cache import cache_folder, cached_models, size_limit

        folder, limit = cache_folder(), size_limit()
        held = [one for one in cached_models(folder) if self.model in (None, one.name)]
        size, entries = sum(one.size for one in held), sum(one.entries for one in held)
        if self.json:
            found: dict[str, Any] = {"folder": folder, "bytes": size, "limit_bytes": limit, "entries": entries}
            emit_json({**found, "models": held})
            return 0
        say(f"{folder}: {entries} traces, {plain_bytes(size)} of {plain_bytes(limit)}")
        if held:
            print_table(
                ("MODEL", "TRACES", "SIZE", "FOLDER"),
                [(one.name, str(one.entries), plain_bytes(one.size), one.folder.name) for one in held],
            )
        return 0


@dataclass(frozen=True)
class Clear:
    """Remove traces. Nothing is lost but the time to take them again.

    Examples:
      steerlens cache clear
      steerlens cache clear --model emoji
    """

    model: str | None = None
    """Only the traces of this encoder. Default: all."""

    json: bool = False
    """Print the result as JSON on standard output, and nothing else."""

    def run(self) -> int:
        """Removes them and returns the exit code."""
        from steerlens.sweep.trace_cache import cache_folder, clear_cache

        gone = clear_cache(cache_folder(), self.model)
        size, entries = sum(one.size for one in gone), sum(one.entries for one in gone)
        if self.json:
            emit_json({"folder": cache_folder(), "bytes": size, "entries": entries})
        else:
            say(f"removed {entries} traces, {plain_bytes(size)}")
        return 0


Command = Annotated[Show, tyro.conf.subcommand("show")] | Annotated[Clear, tyro.conf.subcommand("clear")]
