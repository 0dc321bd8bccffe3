"""The command `steerlens models`: lists models, and says whether they are here and fit this machine."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import tyro

from steerlens.cli.console import emit_json, plain_bytes, print_table, say, terminal_width
from steerlens.zoo import Card, Repository, card, card_of, cards, recommendations, unbuildable

_HERE = {"bundled": "bundled", "downloaded": "yes", "partly": "in part", "no": "no"}

_HEADINGS = ("NAME", "HERE", "FITS", "SIZE", "TRAINED ON", "ENCODER", "CONDITIONS ON", "LICENCE", "TITLE")
_COLUMNS = {180: 9, 96: 6, 70: 5, 0: 4}
"""Columns that a terminal shows, by its least width; `steerlens models NAME` has the others."""
_PIPED = 96
"""Width by which the columns are chosen where stdout is no terminal."""
_WHOLE = ("NAME", "HERE", "FITS", "SIZE", "ENCODER")
"""Columns that never wrap: names are typed, and the others are short."""


@dataclass(frozen=True)
class Command:
    """List the models that can be given by name, without using the network.

    Examples:
      steerlens models
      steerlens models rae-dinov2
    """

    name: tyro.conf.Positional[str | None] = None
    """Model to describe in full. Default: a table of all models."""

    json: bool = False
    """Print JSON instead of a table."""

    def run(self) -> int:
        """Prints the list."""
        memory = host_memory()
        rows = [describe(known, memory) for known in (cards().values() if self.name is None else [card(self.name)])]
        if self.json:
            emit_json(rows)
        elif self.name is not None:
            _print_model(rows[0], memory)
        else:
            _print_list(rows, memory)
        return 0


def _print_list(rows: Sequence[dict[str, Any]], memory: int | None) -> None:
    width = terminal_width() or _PIPED
    shown = next(columns for least, columns in _COLUMNS.items() if width >= least)
    print_table(_HEADINGS[:shown], [_cells(row)[:shown] for row in rows], whole=_WHOLE)
    say("\nHERE: bundled, in the package; yes, in the cache; in part, the rest is downloaded at first use.")
    if memory is not None:
        say(
            f"FITS: this machine has {plain_bytes(memory)} of memory, and weights take one to two times their SIZE. A "
            "GPU needs as much of its own. --dry-run says more."
        )
    say("steerlens models NAME describes a model in full: title, conditioning, licence, terms.")
    for row in rows:
        if row["unusable"]:
            say(f"\n{row['name']} cannot be used here: {row['unusable']}")
    say("\nWhich one?")
    for advice in recommendations():
        say(f"  {advice.need}: {advice.name} ({advice.reason})")
    say("\nThe folder of a pair is a model too: steerlens lens PICTURE --model FOLDER")


def _cells(row: dict[str, Any]) -> tuple[str, ...]:
    return (
        row["name"],
        "unusable" if row["unusable"] else _HERE[row["here"]],
        row["fits"] or "?",
        f"{row['gigabytes']:g} GB",
        row["domain"],
        f"{row['layers']} x {row['heads']}" if row["layers"] else "any",
        _conditioning(row),
        row["licence"],
        row["title"],
    )


def _print_model(row: dict[str, Any], memory: int | None) -> None:
    """Prints all that is known of a model, a line each; what does not apply is left out."""
    has = "" if memory is None else f"; this machine has {plain_bytes(memory)}"
    places = {part: _place(row[part]) for part in ("encoder", "decoder", "adapter")}
    lines = {
        "trained on": row["domain"],
        "here": f"{_HERE[row['here']]} (the whole download: {row['gigabytes']:g} GB)",
        "fits": f"{row['fits'] or '?'} (weights take {row['gigabytes']:g} to {2 * row['gigabytes']:g} GB{has})",
        "cannot be used here": row["unusable"],
        "layers x heads": f"{row['layers']} x {row['heads']}" if row["layers"] else "any",
        "conditions on": _conditioning(row),
        **places,
        "paper": row["paper"],
        "licence": row["licence"],
        "terms": row["terms"],
    }
    say(f"{row['name']}: {row['title']}")
    for name, value in lines.items():
        if value:
            say(f"  {name}: {value}")


def _place(repository: Repository | None) -> str:
    """Address of a repository on the hub, with the folder or file in it; empty if there is none."""
    return "" if repository is None else "/".join(filter(None, (repository.repository, repository.path)))


def _conditioning(row: dict[str, Any]) -> str:
    return f"{row['consumes']} ({row['embedding_size'] or 'any size'})"


def host_memory() -> int | None:
    """Bytes of memory of this machine; None where the system does not say."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, OSError, ValueError):
        return None


def fits(gigabytes: float, memory: int | None) -> str | None:
    """`yes`, `tight` or `no`: whether weights of a download fit a memory twice, once, or not; None if it is not known.

    Weights that are published in half precision take twice as much where they are computed with in float32.
    """
    if memory is None:
        return None
    return "yes" if 2e9 * gigabytes <= memory else "tight" if 1e9 * gigabytes <= memory else "no"


def describe(card: Card, memory: int | None = None) -> dict[str, Any]:
    """Card as a row of the list, for a machine of so many bytes of memory."""
    return {
        "name": card.name,
        "title": card.title,
        "domain": card.domain,
        "here": on_this_machine(card),
        "unusable": unbuildable(card.family),
        "fits": fits(card.gigabytes, memory),
        "gigabytes": card.gigabytes,
        "licence": card.licence,
        "terms": card.terms,
        "family": card.family,
        "consumes": card.consumes,
        "embedding_size": card.embedding_size,
        "layers": card.layers,
        "heads": card.heads,
        "paper": None if card.paper == "none" else f"arXiv {card.paper}",
        "encoder": card.encoder,
        "decoder": card.decoder,
        "adapter": card.adapter,
    }


def on_this_machine(card: Card) -> str:
    """`bundled`, `downloaded`, `partly` or `no`, from the package and the cache of the hub; no network."""
    from steerlens.zoo import cached_snapshot, card_files

    bundled = card.bundled_folder is not None and card.bundled_folder.is_dir()
    if card.bundled is not None and (card.encoder is None or not bundled):
        return "bundled" if bundled else "no"
    if card.encoder is None or card.pickled:  # pickled weights are of no use from the cache
        return "no"
    cached = [cached_snapshot(source.repository, source.at, names) for source, names in card_files(card)]
    cached += [card.bundled_folder] * bundled  # the decoder is in the package, its encoder on the hub
    return "downloaded" if all(cached) else "partly" if any(cached) else "no"


def lines_of_dry_run(model: str, *, local: bool) -> list[str]:
    """Domain of a model known by name, and what it would download; for `--dry-run`.

    Args:
        model: value of `--model`.
        local: whether the files come from a folder.
    """
    known = None if model.startswith("bridge:") else card_of(model)
    if known is None or known.family == "neighbours":
        return []
    lines = [f"domain of the decoder: {known.domain}"] if known.domain else []
    if local or known.folder is not None:
        return lines
    here, size = on_this_machine(known), f"about {known.gigabytes:g} GB"
    if here in ("bundled", "downloaded"):
        return [*lines, "download: none, all files are here"]
    return [*lines, f"download: {size}, " + ("in part in the cache" if here == "partly" else "not in the cache")]
