"""Targets of similarities and signed effects: the input, a label's text, another picture, a given text.

The clean embedding itself is no target of a signed effect: the signed effect would equal the unsigned effect.
"""

from collections.abc import Sequence

from jaxtyping import Float
from torch import Tensor

from steerlens.errors import UsageError
from steerlens.studies.shared.subjects import Subject, SubjectSet
from steerlens.vocabulary import TextVocabulary
from steerlens.zoo import Pair

INPUT, TEXT, OTHER, GIVEN = "input", "text", "other", "given text"
"""The picture itself; the text of its label; another picture of its concept; a text given for all pictures."""

TARGETS = (GIVEN, TEXT, OTHER)
"""Targets of signed effects."""


def subject_targets(pair: Pair, subject: Subject, given: str = "") -> dict[str, Float[Tensor, "E"]]:
    """Embeds the targets of a picture, by name; leaves out a label that the pair does not know.

    Raises:
        UsageError: if the pair does not know the given text.
    """
    targets: dict[str, Tensor] = {}
    if given:
        targets[GIVEN] = pair.text_direction(given).float()
    if (direction := label_direction(pair, subject.concept)) is not None:
        targets[TEXT] = direction
    if subject.other is not None:
        targets[OTHER] = pair.encoder.embed(pair.encoder.preprocess([subject.other]))[0].float()
    return targets


def mean_targets(pair: Pair, subjects: Sequence[Subject], given: str = "") -> float:
    """Mean number of targets of signed effects per subject; see `subject_targets`."""
    unknown = set(_unknown_labels(pair, subjects))
    numbers = [bool(given) + (subject.concept not in unknown) + (subject.other is not None) for subject in subjects]
    return sum(numbers) / max(1, len(numbers))


RECOGNISED = 5
"""A picture is recognised if its own label is among so many best names of the vocabulary."""


def name_rank(pair: Pair, subject: Subject, embedding: Float[Tensor, "E"]) -> int | None:
    """Number of vocabulary names that fit an embedding better than the picture's own label.

    None if the pair has no vocabulary of texts, or the vocabulary lacks the label.
    """
    vocabulary = pair.vocabulary
    if not isinstance(vocabulary, TextVocabulary) or (own := vocabulary.index(subject.concept)) is None:
        return None
    scores = vocabulary.scores(embedding[None])[0]
    return int((scores > scores[own]).sum())


def label_direction(pair: Pair, label: str) -> Float[Tensor, "E"] | None:
    """Direction of a label, or None if the pair reads no texts or does not know the label."""
    if pair.vocabulary is None and pair.texts is None:
        return None
    try:
        return pair.text_direction(label).float()
    except UsageError:
        return None


def target_for(pair: Pair, subjects: SubjectSet, wanted: str = "", given: str = "") -> str:
    """Chooses the target of signed effects: the wanted target; by default the labels' texts, else other pictures.

    Raises:
        UsageError: if a picture lacks that target; the message names labels that the model does not know.
    """
    known = known_targets(pair, subjects, given)
    for name in (wanted,) if wanted else (TEXT, OTHER):
        if name in known:
            return name
    if wanted == TEXT:
        raise UsageError(
            f"signed effects have no target for all pictures: there is no text of each label "
            f"({_unknown_words(pair, subjects)})."
        )
    missing = "no other picture of each concept"
    if not wanted:
        missing = f"neither a text of each label ({_unknown_words(pair, subjects)}) nor another picture of each concept"
    raise UsageError(
        f"signed effects have no target for all pictures: there is {missing}. Take an unsigned effect "
        "(steerlens study importance --effect total-unsigned), or one text for all pictures (--target TEXT)."
    )


def known_targets(pair: Pair, subjects: SubjectSet, given: str = "") -> tuple[str, ...]:
    """Names of the targets that every picture of a study has.

    Raises:
        UsageError: if the model does not know the given text.
    """
    known: list[str] = []
    if given:
        pair.text_direction(given)
        known.append(GIVEN)
    if not _unknown_labels(pair, subjects.everyone):
        known.append(TEXT)
    if all(subject.other is not None for subject in subjects.everyone):
        known.append(OTHER)
    return tuple(known)


def target_notes(pair: Pair, subjects: SubjectSet) -> tuple[str, ...]:
    """Sentences that name the left-out targets and the reason."""
    alone = [subject for subject in subjects.everyone if subject.other is None]
    notes: list[str] = []
    if _unknown_labels(pair, subjects.everyone):
        notes.append(f"The labels' texts are left out as targets: {_unknown_words(pair, subjects)}.")
    if alone:
        notes.append(
            "Other pictures of the same concept are left out as targets: there is none for "
            f"{', '.join(subject.id for subject in alone[:3])}{' and others' if len(alone) > 3 else ''}."
        )
    return tuple(notes)


def _unknown_labels(pair: Pair, subjects: Sequence[Subject]) -> list[str]:
    labels = dict.fromkeys(subject.concept for subject in subjects)
    return [label for label in labels if label_direction(pair, label) is None]


def _unknown_words(pair: Pair, subjects: SubjectSet) -> str:
    if pair.vocabulary is None and pair.texts is None:
        return "this model reads no texts"
    labels = _unknown_labels(pair, subjects.everyone)
    return f"the model knows no {', '.join(map(repr, labels[:5]))}{' and others' if len(labels) > 5 else ''}"
