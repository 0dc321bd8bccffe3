"""Summary of a run directory in numbers, read from its manifest and the keys of its cells, without pictures."""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from steerlens.runs.cards import StoredCards
from steerlens.runs.manifest import check_fingerprint, is_complete, plan_from_json, read_manifest, readable_run
from steerlens.runs.reader import check_hashes, finished_keys, reading_files
from steerlens.storage import files_under, is_being_written


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
        read: number of inputs that have been read.
        planned: number of pictures to decode, by lens; an upper bound if only selected sites are decoded.
        decoded: number of decoded pictures, by lens.
        decode: sites that are decoded: `all`, or the text form of a selection.
        sites: number of sites.
        seeds: seeds of the decoder.
        strength: steering strength of the Steering Lens.
        target: target of the similarities, in words.
        options: options of the decoder.
        size: bytes on disk, including the report.
        seconds: duration of the run; None if it is incomplete, or was interrupted and resumed.
        complete: True if every planned picture is stored.
        being_written: True if a process is writing to it now.
        cards: number of inputs with cards of heads.
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
    cards: int = 0


def run_summary(folder: str | Path) -> RunSummary:
    """Summarises a run directory, finished or not.

    Raises:
        UsageError: if the folder contains no run.
        StoreError: if the run cannot be read.
    """
    folder = Path(folder)
    manifest = read_manifest(folder)
    check_hashes(folder)
    with readable_run(folder):
        plan, keys = plan_from_json(manifest["plan"]), finished_keys(folder)
        planned = Counter(cell.lens for cell in plan.cells)
        decoded = Counter(cell.lens for cell in plan.cells if cell.key in keys)
        summary = RunSummary(
            folder=folder,
            encoder=manifest["encoder"]["name"],
            decoder=manifest["decoder"]["name"],
            layers=manifest["encoder"]["n_layers"],
            heads=manifest["encoder"]["n_heads"],
            inputs=tuple(entry["name"] for entry in manifest["inputs"].values()),
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
            cards=len(StoredCards(folder, plan.pictures)),
        )
    check_fingerprint(folder, manifest)
    return summary
