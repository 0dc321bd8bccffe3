"""What similarities and signed effects are taken towards: the input, a label's text, another picture, a given text.

A target of a signed effect is never the clean embedding itself: the signed effect would be the unsigned one again.
"""

from collections.abc import Sequence

from jaxtyping import Float
from torch import Tensor

from steerlens.errors import UsageError
from steerlens.studies.shared.subjects import Subject, SubjectSet
from steerlens.zoo.pair import Pair

INPUT, TEXT, OTHER, GIVEN = "input", "text", "other", "given text"
"""The picture itself; the text of its label; another picture of its concept; one text that was given for all."""

TARGETS = (GIVEN, TEXT, OTHER)
"""What signed effects can be taken towards."""


def subject_targets(pair: Pair, subject: Subject, given: str = "") -> dict[str, Float[Tensor, "E"]]:
    """The targets of one picture, by name; a label that the pair does not know is left out.

    Raises:
        UsageError: if there is none, or the pair does not know the given text.
    """
    targets: dict[str, Tensor] = {}
    if given:
        targets[GIVEN] = pair.text_direction(given).float()
    if (direction := label_direction(pair, subject.concept)) is not None:
        targets[TEXT] = direction
    if subject.other is not None:
        targets[OTHER] = pair.encoder.embed(pair.encoder.preprocess([subject.other]))[0].float()
    if not targets:
        raise UsageError(
            f"{subject.id}: the model knows no text {subject.concept!r}, and there is no other picture of the same "
            "concept, so there is no target for a signed effect."
        )
    return targets


def label_direction(pair: Pair, label: str) -> Float[Tensor, "E"] | None:
    """The direction of a label, or None if the pair reads no texts or does not know this one."""
    if pair.vocabulary is None and pair.texts is None:
        return None
    try:
        return pair.text_direction(label).float()
    except UsageError:
        return None


def target_for(pair: Pair, subjects: SubjectSet, wanted: str = "", given: str = "") -> str:
    """The target of signed effects: the one that is wanted, by default the labels' texts, or else other pictures.

    Raises:
        UsageError: if some picture has no such target; the message names a label or text that the model does not know.
    """
    known = known_targets(pair, subjects, given)
    for name in (wanted,) if wanted else (TEXT, OTHER):
        if name in known:
            return name
    if wanted == TEXT:
        raise UsageError(
            f"no target is there for all pictures: no text of each label ({_unknown_words(pair, subjects)})."
        )
    missing = "" if wanted else f"neither a label's text ({_unknown_words(pair, subjects)}) nor another picture of each"
    raise UsageError(f"no target is there for all pictures: {missing or 'no other picture of each'} concept.")


def known_targets(pair: Pair, subjects: SubjectSet, given: str = "") -> tuple[str, ...]:
    """The targets that every picture of a study has.

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
    """Sentences on targets that had to be left out, and why."""
    alone = [subject for subject in subjects.everyone if subject.other is None]
    notes: list[str] = []
    if _unknown_labels(pair, subjects.everyone):
        notes.append(f"Nothing is taken towards the labels' texts: {_unknown_words(pair, subjects)}.")
    if alone:
        notes.append(
            "Nothing is taken towards other pictures of the same concept: there is none for "
            f"{', '.join(subject.id for subject in alone[:3])}{' and others' if len(alone) > 3 else ''}."
        )
    return tuple(notes)


def _unknown_labels(pair: Pair, subjects: Sequence[Subject]) -> list[str]:
    labels = dict.fromkeys(subject.concept for subject in subjects)
    return [label for label in labels if label_direction(pair, label) is None]


def _unknown_words(pair: Pair, subjects: SubjectSet) -> str:
    if pair.vocabulary is None and pair.texts is None:
        return "this model reads none"
    labels = _unknown_labels(pair, subjects.everyone)
    return f"the model knows no {', '.join(map(repr, labels[:5]))}{' and others' if len(labels) > 5 else ''}"
