"""What a run directory holds, in numbers: read from its manifest and from the keys of its cells, without pictures."""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from steerlens.runs.manifest import is_complete, plan_from_json, read_manifest, readable_run
from steerlens.runs.reader import finished_keys, reading_files
from steerlens.storage.files import files_under
from steerlens.storage.lock import is_being_written


@dataclass(frozen=True)
class RunSummary:
    """A run in numbers.

    Attributes:
        folder: the run directory.
        encoder: name of the encoder.
        decoder: name of the decoder.
        layers: L.
        heads: H.
        inputs: names of the input pictures.
        read: how many of them have been read.
        planned: pictures to decode, by lens; an upper bound where only the best sites are decoded.
        decoded: pictures that are there, by lens.
        decode: what is decoded: `all`, or which sites of every picture.
        sites: how many places are looked at.
        seeds: seeds of the decoder.
        strength: how hard the Steering Lens steers.
        target: what similarities are measured against.
        options: how pictures are decoded.
        size: bytes on the disk, report included.
        seconds: time that the run took; None if it is not complete, or was interrupted and went on.
        complete: whether every planned picture is there.
        being_written: whether a process is writing to it now.
    """

    folder: Path
    encoder: str
    decoder: str
    layers: int
    heads: int
    inputs: tuple[str, ...]
    read: int
    planned: dict[str, int]
    decoded: dict[str, int]
    decode: str
    sites: int
    seeds: tuple[int, ...]
    strength: str
    target: str
    options: dict[str, Any]
    size: int
    seconds: float | None
    complete: bool
    being_written: bool


def run_summary(folder: str | Path) -> RunSummary:
    """Summarises a run directory, finished or not.

    Raises:
        UsageError: if the folder holds no run.
        StoreError: if the run cannot be read.
    """
    folder = Path(folder)
    manifest = read_manifest(folder)
    with readable_run(folder):
        plan, keys = plan_from_json(manifest["plan"]), finished_keys(folder)
        planned = Counter(cell.lens for cell in plan.cells)
        decoded = Counter(cell.lens for cell in plan.cells if cell.key in keys)
        return RunSummary(
            folder=folder,
            encoder=manifest["encoder"]["name"],
            decoder=manifest["decoder"]["name"],
            layers=manifest["encoder"]["n_layers"],
            heads=manifest["encoder"]["n_heads"],
            inputs=tuple(one["name"] for one in manifest["inputs"].values()),
            read=len(reading_files(folder)),
            planned=dict(planned),
            decoded={lens: decoded[lens] for lens in planned},
            decode=manifest.get("decode", "all"),
            sites=len({cell.site for cell in plan.cells}),
            seeds=plan.seeds,
            strength=str(plan.strength),
            target=manifest["target"]["description"],
            options=manifest["options"],
            size=sum(status.st_size for _, status in files_under(folder)),
            seconds=manifest.get("seconds"),
            complete=is_complete(manifest, decoded.total()),
            being_written=is_being_written(folder),
        )
