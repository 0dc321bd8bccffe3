"""Pictures of a training: a run that is resumed must go on with the prepared pictures that it began with.

Weights, embedded scenes and embedded pictures of a run come from those pictures; other pictures would mix with them
unseen. `data.json` states what they were.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from steerlens.errors import UsageError
from steerlens.scenes import PictureSet
from steerlens.storage import read_json, write_json

_FILE = "data.json"


def keep_to_pictures(folder: Path, pictures: PictureSet, *, resume: bool) -> None:
    """Records the pictures of a new run, or checks that those of a resumed run are the same.

    Args:
        folder: folder of the run.
        pictures: the prepared pictures.
        resume: True if the run in the folder is continued; a run of an earlier version has no record, and gets one.

    Raises:
        UsageError: if the run began with other pictures.
        ModelError: if the record of a resumed run is damaged.
        StoreError: if the record cannot be written.
    """
    path, counts = folder / _FILE, _counts(pictures)
    now: dict[str, Any] = {"sha256": _digest(pictures), "pictures": counts}
    before = read_json(path, "the run") if resume and path.exists() else now
    if before.get("sha256") != now["sha256"]:
        changes = list(_changes(before.get("pictures", {}), counts))
        what = "; ".join(changes) or "as many of every source, but not the same pictures, names or splits"
        raise UsageError(
            f"{folder} contains a run of other prepared pictures: {what}. Its weights and embeddings come from the "
            "former ones. Prepare those again (steerlens train prepare) to continue it, or give another --out."
        )
    write_json(path, now)


def _digest(pictures: PictureSet) -> str:
    digest = hashlib.sha256()
    for tensor in (pictures.pictures, pictures.concept, pictures.style, pictures.split):
        digest.update(tensor.contiguous().numpy().data)
    names = [f"{concept.name}\0{concept.category}\0{concept.key}" for concept in pictures.concepts]
    digest.update("\n".join([*names, *pictures.styles]).encode())
    return digest.hexdigest()


def _counts(pictures: PictureSet) -> dict[str, int]:
    """Number of pictures of each source."""
    return {name: int((pictures.style == index).sum()) for index, name in enumerate(pictures.styles)}


def _changes(before: Mapping[str, Any], now: Mapping[str, int]) -> Iterator[str]:
    for source in dict.fromkeys((*before, *now)):
        if source not in now:
            yield f"{source} is no longer among them"
        elif source not in before:
            yield f"{source} is new"
        elif before[source] != now[source]:
            yield f"{source} had {before[source]} pictures, and has {now[source]}"
