"""Bank of real pictures that are not studied: their embeddings, names, and directions of names.

The direction of a name is the mean embedding of the bank's pictures of that name, minus the mean over the bank.
"""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar

import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from steerlens.decoders.neighbours import NeighboursDecoder
from steerlens.encoders import Encoder
from steerlens.errors import UsageError
from steerlens.images import load_picture
from steerlens.progress import Progress
from steerlens.scenes import TRAIN
from steerlens.studies.shared.folder import StudyFolder
from steerlens.studies.shared.parts import Part, TensorName
from steerlens.studies.shared.scenes import draw_scenes, open_pictures
from steerlens.studies.shared.subjects import concept_of
from steerlens.vocabulary import TextVocabulary, Vocabulary

BANK = "bank"
"""Name of its part."""

_BATCH = 32

_NO_NAMES = (
    "this pair knows no names of its own; give pictures with names as a bank: --bank INDEX (steerlens neighbours "
    "index), or --data DIR."
)
_TOO_FEW_NAMES = "effects are measured towards at least 2 names."


@dataclass(frozen=True, eq=False)
class BankPart(Part):
    """Embeddings of a bank's pictures.

    Attributes:
        embeddings: by the studied encoder.
        judged: by the outside judge, if there is one.
    """

    WHAT: ClassVar[str] = "embeddings of real pictures"

    embeddings: Annotated[Float[Tensor, "M E"], TensorName("embeddings")]
    judged: Annotated[Float[Tensor, "M F"] | None, TensorName("judged", optional=True)] = None


@dataclass(frozen=True, eq=False)
class PictureSource:
    """Pictures of a bank before they are embedded.

    Attributes:
        names: name of what each picture shows.
        identity: JSON values that identify the pictures.
        read: reads pictures by index.
    """

    names: tuple[str, ...]
    identity: dict[str, Any]
    read: Callable[[Sequence[int]], Sequence[Image.Image]]


def scenes_source(data: Path, size: int, seed: int) -> PictureSource:
    """Scenes of a random sample of training pictures, which no study shows.

    Raises:
        UsageError: if the folder holds no prepared pictures.
    """
    pictures, generator = open_pictures(data), torch.Generator().manual_seed(1_000_003 * seed + 29)
    rows = pictures.rows(TRAIN)
    rows = rows[torch.randperm(rows.numel(), generator=generator)[:size]]
    names = tuple(pictures.concepts[int(pictures.concept[row])].name for row in rows)
    digest = hashlib.sha256(pictures.pictures[rows].numpy().tobytes()).hexdigest()

    def read(indices: Sequence[int]) -> Sequence[Image.Image]:
        # Each batch has its own generator, so that a picture is the same in every selection.
        batches = {
            number: draw_scenes(
                pictures,
                rows[_BATCH * number : _BATCH * (number + 1)],
                torch.Generator().manual_seed(1_000_003 * seed + number),
            )
            for number in {index // _BATCH for index in indices}
        }
        return [batches[index // _BATCH][index % _BATCH] for index in indices]

    return PictureSource(names, {"source": f"training scenes, seed {seed}", "sha256": digest}, read)


def index_source(index: Path, size: int, seed: int) -> PictureSource:
    """Random sample of an index's pictures; their names are those of their folders or files.

    Raises:
        UsageError: if there is no index, or its pictures are gone.
        ModelError: if the index is broken.
    """
    opened = NeighboursDecoder(index)
    order = torch.randperm(len(opened.files), generator=torch.Generator().manual_seed(seed))[:size].tolist()
    files = [opened.files[place] for place in order]
    names = tuple(concept_of(file, opened.folder) for file in files)
    content = hashlib.sha256(opened.embeddings[order].numpy().tobytes()).hexdigest()

    def read(indices: Sequence[int]) -> Sequence[Image.Image]:
        return [load_picture(files[place]).image for place in indices]

    return PictureSource(names, {"source": f"index of {opened.folder.name}, seed {seed}", "sha256": content}, read)


@dataclass(frozen=True, eq=False)
class Bank:
    """Embedded pictures of a bank.

    Attributes:
        names: name of what each picture shows.
        embeddings: by the studied encoder.
        judged: by the outside judge, or None.
    """

    names: tuple[str, ...]
    embeddings: Float[Tensor, "M E"]
    judged: Float[Tensor, "M F"] | None


def embed_bank(
    source: PictureSource, encoder: Encoder, judge: Encoder | None, folder: StudyFolder
) -> Iterator[Progress]:
    """Embeds the pictures of a bank, unless the folder holds their embeddings.

    Raises:
        StoreError: if the part cannot be written.
    """
    total = len(source.names)
    yield Progress("bank", total if folder.has(BANK) else 0, total, "pictures")
    if folder.has(BANK):
        return
    own: list[Tensor] = []
    judged: list[Tensor] = []
    for start in range(0, total, _BATCH):
        images = source.read(range(start, min(total, start + _BATCH)))
        own.append(encoder.embed(encoder.preprocess(images)).float().cpu())
        if judge is not None:
            judged.append(judge.embed(judge.preprocess(images)).float().cpu())
        yield Progress("bank", start + len(images), total, "pictures")
    folder.keep(BANK, BankPart(torch.cat(own), torch.cat(judged) if judged else None))


def read_bank(source: PictureSource, folder: StudyFolder) -> Bank:
    """Loads the embedded bank.

    Raises:
        StoreError: if it cannot be read.
    """
    part = folder.read(BankPart, BANK)
    return Bank(source.names, part.embeddings.float(), None if part.judged is None else part.judged.float())


@dataclass(frozen=True, eq=False)
class Names:
    """Names towards which effects are measured.

    Attributes:
        words: the T names.
        directions: their directions in the encoder's space, of unit norm.
        judged: directions, in the judge's space, of the names that the bank shows; None without a judge.
        judged_places: indices of those names.
        source: origin of the directions, in words.
    """

    words: tuple[str, ...]
    directions: Float[Tensor, "T E"]
    judged: Float[Tensor, "J F"] | None
    judged_places: tuple[int, ...]
    source: str


def known_names(vocabulary: Vocabulary | None, source: PictureSource | None) -> int:
    """Number of names of the pair's vocabulary, or else of a bank that is not embedded yet.

    Raises:
        UsageError: if there are neither, or fewer than 2 names.
    """
    if isinstance(vocabulary, TextVocabulary):
        count = len(vocabulary.names)
    elif source is not None:
        count = len(set(source.names))
    else:
        raise UsageError(_NO_NAMES)
    if count < 2:
        raise UsageError(_TOO_FEW_NAMES)
    return count


def names_of(vocabulary: Vocabulary | None, bank: Bank | None, limit: int | None, seed: int) -> Names:
    """Names of the pair's vocabulary, or else of the bank.

    Args:
        vocabulary: the pair's vocabulary, whose texts have directions; other kinds are ignored.
        bank: the bank, whose pictures define directions for the judge.
        limit: number of names, a random sample; None for all.
        seed: of the sample.

    Raises:
        UsageError: if there are neither, or fewer than 2 names.
    """
    if isinstance(vocabulary, TextVocabulary):
        words, directions, source = vocabulary.names, vocabulary.directions().float().cpu(), "the pair's vocabulary"
    elif bank is not None:
        words, directions = prototypes(bank.names, bank.embeddings)
        source = "mean embeddings of the bank's pictures of each name"
    else:
        raise UsageError(_NO_NAMES)
    if limit is not None and limit < len(words):
        order = torch.randperm(len(words), generator=torch.Generator().manual_seed(seed))[:limit].sort().values
        words, directions = tuple(words[place] for place in order.tolist()), directions[order]
    if len(words) < 2:
        raise UsageError(_TOO_FEW_NAMES)
    if bank is None or bank.judged is None:
        return Names(words, directions, None, (), source)
    shown, judged = prototypes(bank.names, bank.judged)
    place_of = {name.lower(): place for place, name in enumerate(shown)}
    places = tuple(place for place, word in enumerate(words) if word.lower() in place_of)
    rows = [place_of[words[place].lower()] for place in places]
    return Names(words, directions, judged[rows] if rows else None, places, source)


def prototypes(names: Sequence[str], embeddings: Float[Tensor, "M E"]) -> tuple[tuple[str, ...], Float[Tensor, "T E"]]:
    """Distinct names, and the direction of each: mean embedding of its pictures, minus the mean of all; unit norm."""
    words = tuple(sorted(set(names)))
    place_of = {name: place for place, name in enumerate(words)}
    places = torch.tensor([place_of[name] for name in names])
    unit = torch.nn.functional.normalize(embeddings.float(), dim=-1)
    sums = torch.zeros(len(words), unit.shape[1]).index_add_(0, places, unit)
    means = sums / torch.bincount(places, minlength=len(words))[:, None]
    return words, torch.nn.functional.normalize(means - unit.mean(dim=0), dim=-1)
