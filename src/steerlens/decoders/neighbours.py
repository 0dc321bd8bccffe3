"""The decoder that invents nothing: an embedding becomes the picture of the user's own folder that comes closest to it.

    decode(e) = picture_n,   n = argmax_n cos(e, e_n)

No network draws, so nothing in a picture can be an artifact of one: a control for what generators add, and the decoder
of every encoder that has no other. What it shows is limited to the folder: look at the similarity, too.

An index is a folder of two small files, `neighbours.json` (the encoder, the pictures and their hashes) and
`neighbours.safetensors` (their embeddings); the pictures stay where they are.
"""

import hashlib
import json
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from jaxtyping import Float, Int
from PIL import Image
from torch import Tensor

from steerlens.conditioning import Conditioning
from steerlens.decoders.base import Decoded, DecodeOptions, DecoderSpec, check_request
from steerlens.encoders.base import Encoder
from steerlens.errors import ModelError, PictureError, UsageError
from steerlens.images import load_picture, picture_files
from steerlens.progress import Progress, run_to_end
from steerlens.storage.folder import OwnedFolder

_INDEX, _TENSORS, _FORMAT = "neighbours.json", "neighbours.safetensors", 1
_BATCH = 32


@dataclass(frozen=True)
class Skipped:
    """A file that cannot be read as a picture: the payload of the progress of indexing.

    Attributes:
        reason: why not; it names the file.
    """

    reason: str


def index_pictures(
    encoder: Encoder, pictures: Path, out: Path, *, source: str = "", batch_size: int = _BATCH
) -> Generator[Progress, None, Path]:
    """Embeds the pictures of a folder, those of its subfolders too; yields progress and returns the index's folder.

    Files that cannot be read as pictures are passed over (see `Skipped`); pictures of equal bytes are indexed once.

    Args:
        encoder: whose embeddings are compared.
        pictures: the folder.
        out: folder of the index, made if it is not there; an index in it is replaced.
        source: where the encoder can be loaded from, so that the index can be opened by itself.
        batch_size: pictures embedded at once.

    Raises:
        UsageError: if the folder is not there or holds no picture.
        ModelError: if an embedding is not finite or zero.
    """
    from safetensors.torch import save

    files = picture_files(pictures)
    rows: list[Tensor] = []
    kept: dict[str, str] = {}
    waiting: list[tuple[str, str, Image.Image]] = []

    def embed() -> None:
        inputs = encoder.preprocess([image for _, _, image in waiting])
        rows.append(encoder.embed(inputs).float().cpu())
        kept.update((digest, name) for name, digest, _ in waiting)
        waiting.clear()

    for done, file in enumerate(files, start=1):
        skipped: Skipped | None = None
        try:
            picture = load_picture(file)
        except (PictureError, UsageError) as error:
            skipped = Skipped(str(error))
        else:
            if picture.sha256 not in kept and all(picture.sha256 != digest for _, digest, _ in waiting):
                waiting.append((file.relative_to(pictures).as_posix(), picture.sha256, picture.image))
        if len(waiting) == batch_size:
            embed()
        yield Progress("indexing", done, len(files), "pictures", skipped)
    if waiting:
        embed()
    if not rows:
        raise UsageError(f"no file of {pictures} can be read as a picture.")
    embeddings = torch.cat(rows)
    if not bool(torch.isfinite(embeddings).all()) or bool((embeddings.norm(dim=-1) == 0).any()):
        raise ModelError(f"encoder {encoder.spec.name} gave embeddings that are zero or not finite.")
    own, tensors = OwnedFolder(out), save({"embeddings": embeddings})
    own.write(tensors, _TENSORS)
    content = {
        "format": _FORMAT,
        "encoder": {"name": encoder.spec.name, "family": encoder.spec.family, "source": source},
        "embedding_size": encoder.spec.embedding_size,
        "size": list(encoder.spec.image_size),
        "folder": str(pictures.resolve()),
        "pictures": [{"file": name, "sha256": digest} for digest, name in kept.items()],
        "sha256": hashlib.sha256(tensors).hexdigest(),
    }
    own.write((json.dumps(content, indent=1, ensure_ascii=False) + "\n").encode(), _INDEX)
    return out


def build_index(encoder: Encoder, pictures: Path | str, out: Path | str, *, source: str = "") -> "NeighboursDecoder":
    """Indexes a folder without telling of progress, and opens the index; arguments as in `index_pictures`."""
    return NeighboursDecoder(run_to_end(index_pictures(encoder, Path(pictures), Path(out), source=source)))


def is_index(folder: Path) -> bool:
    """Whether a folder holds an index."""
    return (folder / _INDEX).is_file()


def source_of_index(index: Path) -> str:
    """Where the encoder that made an index was loaded from, or empty if it does not say or is no index."""
    try:
        return str(json.loads((index / _INDEX).read_text(encoding="utf-8"))["encoder"]["source"])
    except (OSError, ValueError, KeyError, TypeError):
        return ""


class NeighboursDecoder:
    """Shows for each embedding (N,E) the nearest picture of an index, cropped and scaled; the seed changes nothing.

    Args:
        index: folder of the index.
        pictures: where the pictures are now, if they were moved.
        name: what to call it in reports.

    Attributes:
        files: the pictures, in the order of the index.
        encoder_source: where the encoder that made the index can be loaded from, or empty.

    Raises:
        UsageError: if there is no index, or its pictures are not there.
        ModelError: if the index is broken.
    """

    def __init__(self, index: Path | str, pictures: Path | str | None = None, name: str = "") -> None:
        index = Path(index)
        content, self.embeddings = _read(index)
        self.folder = Path(content["folder"] if pictures is None else pictures)
        if not self.folder.is_dir():
            raise UsageError(f"the pictures of {index} are not in {self.folder} any more; say where, or index again.")
        self.files = tuple(self.folder / entry["file"] for entry in content["pictures"])
        self._hashes = tuple(str(entry["sha256"]) for entry in content["pictures"])
        self.encoder_source, self.encoder_name = content["encoder"]["source"], content["encoder"]["name"]
        self._unit = torch.nn.functional.normalize(self.embeddings, dim=-1)
        height, width = content["size"]
        self.spec = DecoderSpec(
            name=name or f"neighbours in {self.folder.name}",
            family="neighbours",
            consumes="image_embedding",
            embedding_size=self.embeddings.shape[-1],
            defaults=DecodeOptions(1, 1.0, "none", (height, width)),
        )

    def nearest(self, embeddings: Float[Tensor, "N E"], k: int = 1) -> tuple[Int[Tensor, "N k"], Float[Tensor, "N k"]]:
        """The k nearest pictures of each embedding, best first: their indices and cosine similarities.

        Raises:
            ModelError: if an embedding is zero, which no picture is near to.
        """
        rows = embeddings.detach().float().cpu()
        if bool((rows.norm(dim=-1) == 0).any()):
            raise ModelError("an embedding to decode is zero: no picture is nearer to it than any other.")
        # One row at a time, so that rounding does not depend on the batch.
        cosines = torch.stack([self._unit @ row for row in torch.nn.functional.normalize(rows, dim=-1)])
        best = cosines.topk(min(k, len(self.files)), dim=-1)
        return best.indices, best.values

    def batch_size(self, options: DecodeOptions) -> int:
        """Pictures read at once."""
        return options.batch_size or _BATCH

    def decode_batches(
        self, conditioning: Conditioning, seeds: Sequence[int], options: DecodeOptions | None = None
    ) -> Iterator[Progress]:
        """Finds and reads pictures, batch after batch; there are no steps within one.

        Args:
            conditioning: image embeddings (N,E).
            seeds: one a picture; they change nothing.
            options: of which only size and batch size matter.

        Raises:
            ModelError: if the embeddings are of another size, or a picture has changed since it was indexed.
            UsageError: if the seeds do not fit, or a picture is gone.
        """
        options = options or self.spec.defaults
        check_request(self.spec, conditioning, seeds)
        size = self.batch_size(options)
        for start in range(0, len(seeds), size):
            indices, _ = self.nearest(conditioning.values[start : start + size])
            decoded = Decoded(start, torch.stack([self.picture(int(row[0]), options.size) for row in indices]))
            yield Progress("decoding", start + len(decoded.pictures), len(seeds), "pictures", decoded)

    def picture(self, index: int, size: tuple[int, int]) -> Float[Tensor, "3 height width"]:
        """One picture of the index, its centre cropped and scaled to a size, values in [0,1].

        Raises:
            ModelError: if it is not the file that was indexed.
            UsageError: if it is gone.
        """
        picture = load_picture(self.files[index])
        if picture.sha256 != self._hashes[index]:
            raise ModelError(f"{self.files[index]} has changed since it was indexed; index the folder again.")
        (width, height), (rows, columns) = picture.image.size, size
        seen = min(width / columns, height / rows)
        left, top = (width - seen * columns) / 2, (height - seen * rows) / 2
        # Cropped before it is scaled: a filter must not see what lies outside.
        box = (round(left), round(top), round(left + seen * columns), round(top + seen * rows))
        scaled = picture.image.crop(box).resize((columns, rows), Image.Resampling.BICUBIC)
        return torch.from_numpy(np.array(scaled)).permute(2, 0, 1).float() / 255

    @classmethod
    def from_folder(
        cls, folder: Path, negative: Tensor | None = None, *, name: str = "", **_: Any
    ) -> "NeighboursDecoder":
        """Opens an index."""
        return cls(folder, name=name)


def _read(index: Path) -> tuple[Mapping[str, Any], Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    if not is_index(index):
        raise UsageError(f"{index} holds no index of pictures; make one with `steerlens neighbours index`.")
    try:
        content = cast(dict[str, Any], json.loads((index / _INDEX).read_text(encoding="utf-8")))
        embeddings = load_file(index / _TENSORS)["embeddings"]
        whole = content["format"] == _FORMAT and embeddings.shape == (
            len(content["pictures"]),
            content["embedding_size"],
        )
        _ = content["folder"], content["encoder"]["source"], content["encoder"]["name"], content["size"]
    except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
        raise ModelError(f"the index in {index} cannot be read ({error}); make it again.") from None
    if not whole or content.get("sha256") != hashlib.sha256((index / _TENSORS).read_bytes()).hexdigest():
        raise ModelError(f"the files of the index in {index} do not belong together; make it again.")
    return content, embeddings.float()
