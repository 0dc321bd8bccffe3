"""Folder of the training of a sparse autoencoder: opened for a new run, or to continue the same run, and no other.

`run.json` states everything that decides values and weights. `pictures.json` lists the pictures of a folder, to say
which of them changed if a run cannot be continued.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from steerlens.errors import UsageError
from steerlens.runs import first_difference
from steerlens.storage import read_json, write_json

_RUN, _PICTURES = "run.json", "pictures.json"

_NAMES = {
    "place": "--site",
    "tokens": "--tokens",
    "per_picture": "--per-picture",
    **{f"recipe.{name}": f"--{name}" for name in ("features", "k", "batch", "rate", "seed")},
    "encoder": "its name",
    "model.weights": "the hash of its weights",
    "model.dtype": "its precision",
}
"""Entries of `run.json` -> their names in messages: options of the command line, and facts about the model."""

_OF_MODEL, _OF_PICTURES = ("encoder", "model"), ("pictures", "pictures_hash")

_MOST_FILES = 3
"""Most files that a message names."""


@dataclass(frozen=True)
class PictureListing:
    """Files of a folder of pictures.

    Attributes:
        folder: the folder.
        names: name of every picture inside it.
        sizes: name of every picture that is trained on or measured -> size in bytes.
    """

    folder: Path
    names: frozenset[str]
    sizes: Mapping[str, int]

    def size(self, name: str) -> int | None:
        """Size of any of its pictures in bytes; None if there is none of this name.

        Read from the disk when it is needed: on a network drive, sizes of a million files take minutes.
        """
        if name not in self.names:
            return None
        return self.sizes[name] if name in self.sizes else (self.folder / name).stat().st_size

    def to_json(self) -> dict[str, Any]:
        """The chosen pictures, and the number of all, as JSON values."""
        return {"in_folder": len(self.names), "sizes": dict(self.sizes)}


def open_sae_run(out: Path, identity: dict[str, Any], listing: PictureListing | None, *, resume: bool) -> None:
    """Opens the folder of a run.

    Args:
        out: the folder.
        identity: everything that decides values and weights, as JSON values.
        listing: files of the folder of pictures; None for scenes.
        resume: True to continue the run in the folder.

    Raises:
        UsageError: if the folder contains a run and `resume` is False, no run and it is True, or another run.
        ModelError: if `run.json` is damaged.
        StoreError: if the folder cannot be written.
    """
    path = out / _RUN
    if out.exists() and not out.is_dir():
        raise UsageError(f"{out} is a file; give another --out.")
    if path.exists() and not resume:
        raise UsageError(f"{out} contains a run already: give --resume to continue it, or another --out.")
    if not path.exists() and resume:
        raise UsageError(f"{out} contains no run to continue; leave out --resume to start one.")
    if path.exists():
        _refuse_other(out, read_json(path, f"the run in {out}"), identity, listing)
    write_json(path, identity)
    if listing is not None:
        write_json(out / _PICTURES, listing.to_json())


def _refuse_other(
    out: Path, recorded: Mapping[str, Any], identity: Mapping[str, Any], listing: PictureListing | None
) -> None:
    """Refuses to continue a run with other options, another model or other pictures; says what differs."""
    if not recorded:
        raise UsageError(f"{out / _RUN} is empty, so the run cannot be continued; give another --out.")
    # Runs of earlier versions recorded neither the model nor a hash of the pictures.
    differing = [key for key, value in recorded.items() if identity.get(key) != value]
    options = [key for key in differing if key not in (*_OF_MODEL, *_OF_PICTURES)]
    for keys, what, option in ((options, "other options", ""), (_OF_MODEL, "another model", "--model ")):
        before, now = ({key: of[key] for key in keys if key in differing and key in of} for of in (recorded, identity))
        if (difference := first_difference(before, now)) is not None:
            name, was, is_now = difference
            changed = f"{_NAMES.get(name, name)} was {was}, and is {is_now}"
            raise UsageError(
                f"{out} contains a run with {what}: {changed}. Give the same {option or 'options'} to continue it, or "
                "another --out."
            )
    if differing:
        raise UsageError(
            f"{out} contains a run with other pictures: {_changed_pictures(out, recorded, identity, listing)}. The "
            "values in that folder come from the former pictures. Restore those to continue the run, or give another "
            "--out to begin one with these."
        )


def _changed_pictures(
    out: Path, recorded: Mapping[str, Any], identity: Mapping[str, Any], listing: PictureListing | None
) -> str:
    now: list[Any] = identity["pictures"]
    before: list[Any] = recorded.get("pictures", now)
    if before[2] != now[2]:
        return f"they came from {before[2]}, and now come from {now[2]}"
    if listing is None:
        if before[:2] != now[:2]:
            return f"--count was {sum(before[:2])}, and is {sum(now[:2])}"
        return "the prepared pictures of --data changed since it began"
    stored = read_json(out / _PICTURES, f"the run in {out}") if (out / _PICTURES).exists() else {}
    sizes = cast(Mapping[str, int], stored.get("sizes", {}))
    gone = [name for name in sizes if name not in listing.names]
    resized = [name for name in sizes if name in listing.names and listing.size(name) != sizes[name]]
    in_folder = int(stored.get("in_folder", len(listing.names)))
    changes = [
        f"{_file_names(names)} {what}"
        for names, what in ((gone, "no longer there"), (resized, "of another size"))
        if names
    ]
    if in_folder != len(listing.names):
        changes.append(f"the folder contained {in_folder} pictures, and contains {len(listing.names)}")
    if changes:
        return "; ".join(changes)
    if before[:2] != now[:2]:
        return f"{sum(before[:2])} pictures were chosen, and {sum(now[:2])} are now (see --count)"
    return "names or sizes of files in the folder changed since it began"


def _file_names(names: Sequence[str]) -> str:
    more = f" and {len(names) - _MOST_FILES} more" if len(names) > _MOST_FILES else ""
    return f"{', '.join(names[:_MOST_FILES])}{more} {'is' if len(names) == 1 else 'are'}"
