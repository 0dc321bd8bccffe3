"""Indexes of pictures: embeddings of a folder's pictures by one encoder.

An index is a folder of two small files, `neighbours.json` (the encoder, the pictures and their hashes) and
`neighbours.safetensors` (their embeddings); the pictures stay where they are.
"""

import hashlib
import json
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, cast

import torch
from jaxtyping import Float
from torch import Tensor

from steerlens.ahead import mapped_ahead
from steerlens.encoders import Encoder, Inputs, joined_inputs
from steerlens.errors import ModelError, PictureError, UsageError
from steerlens.images import load_picture, picture_files
from steerlens.limits import read_file
from steerlens.progress import Progress
from steerlens.storage import OwnedFolder, parse_json, too_large

_INDEX, _TENSORS, _FORMAT = "neighbours.json", "neighbours.safetensors", 1
_BATCH = 32


@dataclass(frozen=True)
class Skipped:
    """A file that cannot be read as a picture: the payload of the progress of indexing.

    Attributes:
        reason: the reason, which names the file.
    """

    reason: str


def index_pictures(
    encoder: Encoder, pictures: Path, out: Path, *, source: str = "", batch_size: int = _BATCH
) -> Generator[Progress, None, Path]:
    """Embeds the pictures of a folder, those of its subfolders too; yields progress and returns the index's folder.

    Files that cannot be read as pictures are passed over (see `Skipped`); pictures of equal bytes are indexed once.

    Args:
        encoder: the encoder of the embeddings.
        pictures: the folder.
        out: folder of the index, created if needed; an index in it is replaced.
        source: source of the encoder, so that the index can be opened by itself.
        batch_size: pictures embedded at once.

    Raises:
        UsageError: if the folder is not there or holds no picture.
        ModelError: if an embedding is not finite or zero.
    """
    from safetensors.torch import save

    if batch_size < 1:
        raise UsageError(f"a batch holds at least 1 picture, not {batch_size}.")
    files = picture_files(pictures)
    rows: list[Tensor] = []
    kept: dict[str, str] = {}
    waiting: list[Inputs] = []

    def read(file: Path) -> tuple[str, Inputs] | Skipped:
        try:
            picture = load_picture(file)
            return picture.sha256, encoder.preprocess([picture.image])
        except (PictureError, UsageError) as error:
            return Skipped(str(error))

    def embed() -> None:
        rows.append(encoder.embed(joined_inputs(waiting)).float().cpu())
        waiting.clear()

    for done, (file, result) in enumerate(zip(files, mapped_ahead(read, files, ahead=2 * batch_size), strict=True), 1):
        skipped = result if isinstance(result, Skipped) else None
        if not isinstance(result, Skipped) and result[0] not in kept:
            kept[result[0]] = file.relative_to(pictures).as_posix()
            waiting.append(result[1])
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


def is_index(folder: Path) -> bool:
    """True if a folder contains an index."""
    return (folder / _INDEX).is_file()


def source_of_index(index: Path) -> str:
    """Reads the source of an index's encoder; empty if the index does not name it, or there is no index."""
    try:
        return str(_content(index)["encoder"]["source"])
    except (UsageError, ValueError, LookupError, TypeError, RecursionError):
        return ""


def read_index(index: Path) -> tuple[Mapping[str, Any], Tensor]:
    """Reads an index: the parsed `neighbours.json` and the embeddings, float32.

    Raises:
        UsageError: if there is no index.
        ModelError: if its files are broken or do not belong together.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load

    if not is_index(index):
        raise UsageError(f"{index} holds no index of pictures; make one with `steerlens neighbours index`.")
    try:
        content = _content(index)
        data = read_file(index / _TENSORS, "tensors_bytes")
        embeddings = load(data)["embeddings"]
        whole = content["format"] == _FORMAT and embeddings.shape == (
            len(content["pictures"]),
            content["embedding_size"],
        )
        texts = [content["folder"], content["encoder"]["source"], content["encoder"]["name"]]
        texts += [entry[key] for entry in content["pictures"] for key in ("file", "sha256")]
        if not all(isinstance(text, str) and "\0" not in text for text in texts):
            raise ValueError("a folder, an encoder or a picture in it is no text")
        if len(content["size"]) != 2 or not all(isinstance(side, int) and side > 0 for side in content["size"]):
            raise ValueError("its size is not two whole numbers of pixels")
        outside = [entry["file"] for entry in content["pictures"] if not _is_below(entry["file"])]
    except (OSError, UsageError, ValueError, LookupError, TypeError, RecursionError, SafetensorError) as error:
        raise ModelError(f"the index in {index} cannot be read ({str(error).rstrip('.')}); make it again.") from None
    if words := too_large({"size": content["size"]}):
        raise ModelError(f"the index in {index} says {words}.")
    if outside:
        raise ModelError(f"the index in {index} names {outside[0]!r}, which lies outside the folder of its pictures.")
    if not whole or content.get("sha256") != hashlib.sha256(data).hexdigest():
        raise ModelError(f"the files of the index in {index} do not belong together; make it again.")
    return content, embeddings.float()


def index_identity(hashes: Sequence[str], embeddings: Float[Tensor, "N E"]) -> str:
    """Returns a text that is equal for indexes of the same pictures and embeddings."""
    digest = hashlib.sha256(" ".join(hashes).encode())
    digest.update(embeddings.numpy().tobytes())
    return digest.hexdigest()


def _content(index: Path) -> dict[str, Any]:
    return cast(dict[str, Any], parse_json(read_file(index / _INDEX, "list_bytes")))


def _is_below(name: str) -> bool:
    """True if a name names a file in or below a folder: relative, and without steps upwards."""
    path = PurePosixPath(name)
    return bool(path.parts) and not path.is_absolute() and ".." not in path.parts
