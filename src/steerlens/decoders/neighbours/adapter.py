"""The neighbours decoder: it shows the picture of the user's own folder that is nearest to an embedding.

    decode(e, seed k) = picture_n,   n the (k + 1)th nearest by cos(e, e_n)

No network draws the picture, so it has no artifacts of one: a control for what generators add, and a decoder for every
encoder that has no other. It can only show pictures of the folder, so check the similarity, too.
"""

from collections.abc import Iterable, Iterator, Sequence
from copy import copy
from pathlib import Path
from typing import Any, Self

import torch
from jaxtyping import Float, Int
from torch import Tensor

from steerlens.conditioning import Conditioning
from steerlens.decoders.base import Decoded, DecodeOptions, DecoderSpec, check_request
from steerlens.decoders.neighbours.index import index_identity, read_index
from steerlens.decoders.neighbours.pictures import folder_of, indexed_picture
from steerlens.decoders.neighbours.search import nearest_rows
from steerlens.errors import UsageError
from steerlens.progress import Progress

_BATCH = 32


class NeighboursDecoder:
    """Shows for each embedding (N,E) the nearest picture of an index, cropped and scaled; seed k shows the next but k.

    Args:
        index: folder of the index.
        pictures: current folder of the pictures, if they were moved.
        name: its name in reports.

    Attributes:
        files: the pictures, in the order of the index.
        encoder_source: source of the encoder of the index, or empty.

    Raises:
        UsageError: if there is no index, or its pictures are not there.
        ModelError: if the index is broken.
    """

    def __init__(self, index: Path | str, pictures: Path | str | None = None, name: str = "") -> None:
        content, self.embeddings = read_index(Path(index))
        self.folder = folder_of(content, Path(index), pictures)
        self.files = tuple(self.folder / entry["file"] for entry in content["pictures"])
        self._hashes = tuple(str(entry["sha256"]) for entry in content["pictures"])
        self.encoder_source, self.encoder_name = content["encoder"]["source"], content["encoder"]["name"]
        self._unit = torch.nn.functional.normalize(self.embeddings, dim=-1)
        self._left_out = frozenset[str]()
        height, width = content["size"]
        self.spec = DecoderSpec(
            name=name or f"neighbours in {self.folder.name}",
            family="neighbours",
            consumes="image_embedding",
            embedding_size=self.embeddings.shape[-1],
            defaults=DecodeOptions(1, 1.0, "none", (height, width)),
        )

    @property
    def identity(self) -> str:
        """A text that is equal for indexes of the same pictures and embeddings, wherever they are."""
        return index_identity(self._hashes, self.embeddings)

    def known(self, sha256: Iterable[str]) -> tuple[str, ...]:
        """Returns those hashes of files that are in the index, sorted."""
        return tuple(sorted(set(sha256) & set(self._hashes)))

    def leaving_out(self, sha256: Iterable[str]) -> "NeighboursDecoder":
        """Returns the same index without some files: a picture's own file would be its nearest neighbour.

        Args:
            sha256: hashes of the files' bytes.

        Raises:
            UsageError: if no picture is left.
        """
        other = copy(self)
        other._left_out = frozenset(sha256)
        if other._left_out.issuperset(self._hashes):
            raise UsageError(f"{self.spec.name}: every picture of the index is among the inputs; index other pictures.")
        return other

    @property
    def count(self) -> int:
        """Number of pictures that can be shown."""
        return len(self.rows)

    @property
    def rows(self) -> tuple[int, ...]:
        """Indices of the pictures that can be shown."""
        return tuple(index for index, digest in enumerate(self._hashes) if digest not in self._left_out)

    def nearest(self, embeddings: Float[Tensor, "N E"], k: int = 1) -> tuple[Int[Tensor, "N k"], Float[Tensor, "N k"]]:
        """Finds the k nearest pictures of each embedding, best first: their indices and cosine similarities.

        Raises:
            ModelError: if an embedding is zero, and so equally far from all pictures.
        """
        left_out = [index for index, digest in enumerate(self._hashes) if digest in self._left_out]
        return nearest_rows(self._unit, embeddings, min(k, self.count), left_out)

    def batch_size(self, options: DecodeOptions) -> int:
        """Returns the number of pictures read at once."""
        return options.batch_size or _BATCH

    def decode_batches(
        self, conditioning: Conditioning, seeds: Sequence[int], options: DecodeOptions | None = None
    ) -> Iterator[Progress]:
        """Finds and reads pictures, batch by batch; a batch has no steps.

        Args:
            conditioning: image embeddings (N,E).
            seeds: one per picture: 0 for the nearest, 1 for the second nearest, and so on.
            options: options of decoding; only size and batch size matter.

        Raises:
            ModelError: if the embeddings are of another size, or a picture has changed since it was indexed.
            UsageError: if the seeds do not fit, the index has fewer pictures, or a picture is gone.
        """
        options = options or self.spec.defaults
        check_request(self.spec, conditioning, seeds)
        for start in range(0, len(seeds), size := self.batch_size(options)):
            ranks = list(seeds[start : start + size])
            indices, _ = self.nearest(conditioning.values[start : start + size], max(ranks) + 1)
            if max(ranks) >= indices.shape[1]:
                raise UsageError(
                    f"{self.spec.name} has {self.count} pictures, so seeds go from 0 to {self.count - 1}: seed k shows "
                    "the (k + 1)th nearest."
                )
            chosen = [int(row[rank]) for row, rank in zip(indices, ranks, strict=True)]
            pictures = torch.stack([self.picture(index, options.size) for index in chosen])
            yield Progress("decoding", start + len(ranks), len(seeds), "pictures", Decoded(start, pictures))

    def picture(self, index: int, size: tuple[int, int]) -> Float[Tensor, "3 height width"]:
        """Reads a picture of the index, its centre cropped and scaled to a size, values in [0,1].

        Raises:
            ModelError: if the file has changed since it was indexed.
            UsageError: if it is gone.
        """
        return indexed_picture(self.files[index], self._hashes[index], size)

    @classmethod
    def from_folder(cls, folder: Path, negative: Tensor | None = None, *, name: str = "", **_: Any) -> Self:
        """Opens an index."""
        return cls(folder, name=name)
