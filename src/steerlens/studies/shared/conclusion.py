"""Conclusion of a study in plain sentences, and its claims, which are compared between models."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from steerlens.studies.shared.records import Record
from steerlens.studies.shared.stats import Estimate, caution

SENTENCES = 5
"""Plain sentences with which a page opens."""


@dataclass(frozen=True)
class Conclusion(Record):
    """Plain sentences, five at most, that open the page of a study, and a next step.

    Attributes:
        sentences: the sentences; the first can stand alone.
        next_step: what to do with the result, in a sentence.
        together: number of the first sentences that mislead if some of them are left out.
    """

    sentences: tuple[str, ...] = ()
    next_step: str = ""
    together: int = 1

    def lines(self) -> list[str]:
        """Lines for the terminal; none without sentences."""
        if not self.sentences:
            return []
        return [f"conclusion: {' '.join(self.sentences)}", f"next step: {self.next_step}"]


@dataclass(frozen=True)
class Claim:
    """A claim that can be tested on any model.

    Attributes:
        what: the claim as a full sentence without its full stop, which a reader understands by itself; the same words
            on every model.
        estimate: the figure on which it stands.
        level: the claim holds if the whole interval lies above this value.
        how: what was measured, `before decoding` or `in pictures`, if both can be.
        leading: True of the few claims of which a newcomer should hear first.
        nulls: figures that the claim's own figure must exceed, with their names: the claim is open unless its interval
            lies above theirs.
        rests_on: a claim without which this one says nothing: it is open unless that one holds.
        note: caution that belongs beside the figure.
        narrow: True if the interval is known to be too narrow, so that the claim stays open.
    """

    what: str
    estimate: Estimate
    level: float = 0.0
    how: str = ""
    leading: bool = False
    nulls: Sequence[tuple[str, Estimate]] = ()
    rests_on: "Claim | None" = None
    note: str = ""
    narrow: bool = False

    @property
    def words(self) -> str:
        """The claim and what was measured; identifies the claim among those of a model."""
        return f"{self.what}, {self.how}" if self.how else self.what

    @property
    def holds(self) -> bool:
        """True if the interval lies above the level and those of all nulls, and a claim on which it rests holds.

        Never true of an interval that is known to be too narrow.
        """
        if self.narrow:
            return False
        specific = all(self.estimate.low > null.high for _, null in self.nulls)
        return self.estimate.above(self.level) and specific and (self.rests_on is None or self.rests_on.holds)

    @property
    def refuted(self) -> bool:
        """True if the interval lies below the level, unless it is known to be too narrow."""
        return not self.narrow and self.estimate.defined and self.estimate.high < self.level


def cautioned(claims: Sequence[Claim], count: int) -> list[Claim]:
    """Leaves every claim open, with a note, if the bootstrap drew from few concepts: its interval is too narrow."""
    return noted(claims, caution(count))


def noted(claims: Sequence[Claim], note: str) -> list[Claim]:
    """Leaves every claim open, with a note that says why its interval is too narrow; an empty note changes nothing."""
    if not note:
        return list(claims)
    return [replace(claim, note="; ".join(filter(None, (claim.note, note))), narrow=True) for claim in claims]


def joined(words: Sequence[str]) -> str:
    """Joins words with commas and `and`."""
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)
