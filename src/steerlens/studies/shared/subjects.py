"""Pictures of a study, each with a concept and another picture of the same concept, and reference pictures.

Settings are selected on some concepts and reported on others; see `split`.
"""

import hashlib
import random
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeVar

from PIL import Image

from steerlens.errors import UsageError
from steerlens.images import load_picture, picture_files


@dataclass(frozen=True, eq=False)
class Subject:
    """One picture of a study.

    Attributes:
        id: unique among the pictures of the study.
        image: the picture, RGB.
        concept: in words.
        other: another picture of the same concept, or None.
    """

    id: str
    image: Image.Image
    concept: str
    other: Image.Image | None = None

    @property
    def images(self) -> tuple[Image.Image, ...]:
        """The picture, and the other picture of its concept if there is one."""
        return (self.image,) if self.other is None else (self.image, self.other)


@dataclass(frozen=True, eq=False)
class SubjectSet:
    """The pictures of a study.

    Attributes:
        selection: pictures to select settings on; no result is reported on them.
        reported: pictures to report on; they share no concept with the selection.
        reference: pictures that give means and typical embeddings.
        source: origin of the pictures, in words.
    """

    selection: tuple[Subject, ...]
    reported: tuple[Subject, ...]
    reference: tuple[Image.Image, ...]
    source: str

    @property
    def everyone(self) -> tuple[Subject, ...]:
        """All studied pictures."""
        return (*self.selection, *self.reported)

    def identity(self) -> dict[str, Any]:
        """JSON values that identify the set."""

        def named(subjects: Sequence[Subject]) -> dict[str, str]:
            return {
                subject.id: "|".join([subject.concept, *(image_hash(image) for image in subject.images)])
                for subject in subjects
            }

        return set_identity(self.source, named(self.selection), named(self.reported), self.reference)


def set_identity(
    source: str, selection: Mapping[str, str], reported: Mapping[str, str], reference: Sequence[Image.Image]
) -> dict[str, Any]:
    """JSON values that identify the pictures of a study; keys are those of the first version."""
    together = hashlib.sha256("".join(map(image_hash, reference)).encode()).hexdigest()
    return {
        "source": source,
        "chosen": dict(selection),
        "reported": dict(reported),
        "reference": {"pictures": len(reference), "sha256": together},
    }


def image_hash(image: Image.Image) -> str:
    """SHA-256 of a picture's size and pixels, cut to 16 digits."""
    content = f"{image.mode}{image.size}".encode() + image.tobytes()
    return hashlib.sha256(content).hexdigest()[:16]


class HasConcept(Protocol):
    """A picture, or its file, with a concept."""

    @property
    def concept(self) -> str:
        """The concept, in words."""
        ...


_Shows = TypeVar("_Shows", bound=HasConcept)


def split(
    subjects: Sequence[_Shows], n_selection: int, n_reported: int, seed: int
) -> tuple[list[_Shows], list[_Shows]]:
    """Draws pictures to select settings on and pictures to report on, which share no concept.

    Raises:
        UsageError: if there are too few pictures.
    """
    concepts = sorted({subject.concept for subject in subjects})
    random.Random(seed).shuffle(concepts)
    members = {concept: [subject for subject in subjects if subject.concept == concept] for concept in concepts}
    groups = [members[concept] for concept in concepts]
    taken = _concepts_taken(groups, n_selection)
    selection, rest = _in_turn(groups[:taken]), _in_turn(groups[taken:])
    if len(selection) < n_selection or len(rest) < n_reported:
        raise UsageError(
            f"{len(subjects)} pictures of {len(concepts)} concepts are too few to choose on {n_selection} and report "
            f"on {n_reported} of other concepts; give more pictures, or lower --choose and --count."
            + _that_work(groups, even=n_selection == n_reported)
        )
    return selection[:n_selection], rest[:n_reported]


def _concepts_taken(groups: Sequence[Sequence[_Shows]], n_selection: int) -> int:
    """Number of concepts that a selection takes."""
    if n_selection == 0:
        return 0
    taken = 0
    # At least two concepts: resampling takes a write from another concept's picture.
    while taken < len(groups) and (taken < 2 or sum(map(len, groups[:taken])) < n_selection):
        taken += 1
    return taken


def _that_work(groups: Sequence[Sequence[_Shows]], *, even: bool) -> str:
    """Sentence that gives sizes for which the pictures are enough; empty if there are none.

    Args:
        groups: pictures of each concept.
        even: True to report on as many pictures as are chosen on.
    """
    for chosen in range(sum(map(len, groups)) // (2 if even else 4), 1, -1):
        left = sum(map(len, groups[_concepts_taken(groups, chosen) :]))
        if left >= (chosen if even else 2):
            return f" Enough for: --count {chosen}." if even else f" Enough for: --choose {chosen} --count {left}."
    return ""


def _in_turn(groups: Sequence[Sequence[_Shows]]) -> list[_Shows]:
    """Interleaves groups: the first member of each, then the second of each, and so on."""
    longest = max(map(len, groups), default=0)
    return [group[place] for place in range(longest) for group in groups if place < len(group)]


def other_concept(subjects: Sequence[Subject], place: int) -> Subject:
    """Next picture of another concept, from which resampling takes a head's write.

    Raises:
        UsageError: if all pictures show the same concept.
    """
    own = subjects[place]
    for step in range(1, len(subjects)):
        other = subjects[(place + step) % len(subjects)]
        if other.concept != own.concept:
            return other
    raise UsageError("resampling needs pictures of at least two concepts.")


def require_other_concepts(subjects: Sequence[Subject]) -> None:
    """Checks that every picture can be resampled; see `other_concept`.

    Raises:
        UsageError: if all pictures show the same concept.
    """
    for place in range(len(subjects)):
        other_concept(subjects, place)


_NUMBERED = re.compile(r"[ _-]*\d+$")


def concept_of(path: Path, root: Path) -> str:
    """Concept of a file: the name of its subfolder, or else its own name without a trailing number."""
    inside = path.relative_to(root)
    name = inside.parts[0] if len(inside.parts) > 1 else _NUMBERED.sub("", path.stem) or path.stem
    return name.replace("_", " ").strip()


@dataclass(frozen=True)
class _File:
    """File of a picture, and that of another picture of its concept."""

    path: Path
    concept: str
    other: Path | None


def folder_subjects(
    folder: Path, n_selection: int, n_reported: int, *, seed: int = 0, n_reference: int = 64
) -> SubjectSet:
    """Draws pictures of a folder: `concept/file.jpg`, or `concept 1.jpg`, `concept 2.jpg` in a single folder.

    Reads only the drawn pictures.

    Raises:
        UsageError: if the folder does not exist, or holds too few pictures.
        PictureError: if a drawn picture cannot be read.
    """
    files = _files(folder)
    selection, reported = split(files, n_selection, n_reported, seed)
    taken = {file.path for file in (*selection, *reported)}
    # Studied pictures serve as references only if too few others are left.
    spare = [file.path for file in files if file.path not in taken]
    pool = spare if len(spare) >= min(16, n_reference) else [file.path for file in files]
    random.Random(seed + 1).shuffle(pool)

    def read(file: _File) -> Subject:
        other = None if file.other is None else load_picture(file.other).image
        return Subject(_id(file.path.relative_to(folder)), load_picture(file.path).image, file.concept, other)

    return SubjectSet(
        tuple(map(read, selection)),
        tuple(map(read, reported)),
        tuple(load_picture(path).image for path in pool[:n_reference]),
        f"folder {folder.name}, seed {seed}",
    )


def _files(folder: Path) -> list[_File]:
    by_concept: dict[str, list[Path]] = {}
    for path in picture_files(folder):
        by_concept.setdefault(concept_of(path, folder), []).append(path)
    return [
        _File(path, concept, members[(number + 1) % len(members)] if len(members) > 1 else None)
        for concept, members in by_concept.items()
        for number, path in enumerate(members)
    ]


def _id(path: Path) -> str:
    text = re.sub(r"[^\w.-]+", "_", path.as_posix())
    return f"{text[:60]}-{hashlib.sha256(path.as_posix().encode()).hexdigest()[:8]}"
