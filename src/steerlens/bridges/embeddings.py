"""Embeddings of the same pictures by two encoders."""

from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from steerlens.ahead import mapped_ahead
from steerlens.encoders import Encoder, Inputs, joined_inputs
from steerlens.errors import UsageError
from steerlens.images import load_picture
from steerlens.progress import Progress


@dataclass(frozen=True, eq=False)
class PairedEmbeddings:
    """Embeddings of the same pictures by two encoders, on the host.

    Attributes:
        source: embeddings by the first encoder, float32.
        target: embeddings by the second encoder, float32.
        paths: the files, row by row.
        sha256: hash of each file's bytes.
        doubles: files left out because an earlier file has the same bytes.
    """

    source: Float[Tensor, "N E"]
    target: Float[Tensor, "N F"]
    paths: tuple[Path, ...]
    sha256: tuple[str, ...]
    doubles: int

    def __len__(self) -> int:
        return len(self.paths)

    def rows(self, rows: Tensor) -> "PairedEmbeddings":
        """Selects some of the pictures."""
        numbers: list[int] = rows.tolist()
        return PairedEmbeddings(
            self.source[rows],
            self.target[rows],
            tuple(self.paths[number] for number in numbers),
            tuple(self.sha256[number] for number in numbers),
            0,
        )


def embed_both(
    source: Encoder, target: Encoder, paths: list[Path], *, batch_size: int = 32, stage: str = "embedding"
) -> Generator[Progress, None, PairedEmbeddings]:
    """Embeds pictures with two encoders, batch by batch; the same file twice counts once.

    Args:
        source: the first encoder.
        target: the second encoder.
        paths: picture files.
        batch_size: pictures read and embedded at once.
        stage: name of the stage in progress events.

    Raises:
        UsageError: if a file cannot be opened, or the batch size is less than 1.
        PictureError: if a file is no picture; the message names it.
    """
    if batch_size < 1:
        raise UsageError(f"a batch holds at least 1 picture, not {batch_size}.")
    encoders = (source, target)
    met: dict[str, Path] = {}
    doubles, columns = 0, (list[Tensor](), list[Tensor]())
    waiting: list[tuple[Inputs, ...]] = []

    def read(path: Path) -> tuple[str, tuple[Inputs, ...]]:
        picture = load_picture(path)
        return picture.sha256, tuple(encoder.preprocess([picture.image]) for encoder in encoders)

    def embed() -> None:
        for encoder, column, inputs in zip(encoders, columns, zip(*waiting, strict=True), strict=True):
            column.append(encoder.embed(joined_inputs(inputs)).float().cpu())
        waiting.clear()

    yield Progress(stage, 0, len(paths), "pictures")
    for done, (path, (digest, inputs)) in enumerate(zip(paths, mapped_ahead(read, paths), strict=True), start=1):
        if digest in met:
            doubles += 1
        else:
            met[digest] = path
            waiting.append(inputs)
        if len(waiting) == batch_size or (waiting and done == len(paths)):
            embed()
            yield Progress(stage, done, len(paths), "pictures")
    first, second = (torch.cat(column) for column in columns)
    return PairedEmbeddings(first, second, tuple(met.values()), tuple(met), doubles)


def held_out(embedded: PairedEmbeddings, seed: int, most: int = 500) -> tuple[PairedEmbeddings, PairedEmbeddings]:
    """Splits pictures into those to fit on, and a fifth of them, at most `most`, to measure on."""
    order = torch.randperm(len(embedded), generator=torch.Generator().manual_seed(seed))
    n = min(most, len(embedded) // 5)
    return embedded.rows(order[n:].sort().values), embedded.rows(order[:n].sort().values)


def without(embedded: PairedEmbeddings, others: PairedEmbeddings) -> PairedEmbeddings:
    """Selects the pictures that are not among others: the fitted pictures cannot measure a bridge's quality."""
    known = set(others.sha256)
    kept = [row for row, digest in enumerate(embedded.sha256) if digest not in known]
    return embedded.rows(torch.tensor(kept, dtype=torch.int64))
