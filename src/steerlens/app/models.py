"""Models of the explorer: pairs with the arguments that open them again, and named directions to steer along."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from steerlens.lenses import Direction
from steerlens.vocabulary import Vocabulary
from steerlens.zoo import Pair


def page_name(source: str, taken: Collection[str] = ()) -> str:
    """Name of a model on the page: without the folders of this machine, and distinct."""
    name = plain = Path(source).name or source
    number = 1
    while name in taken:
        number += 1
        name = f"{plain}-{number}"
    return name


@dataclass(frozen=True, eq=False)
class OpenModel:
    """A pair that is open.

    Attributes:
        name: its name on the page, distinct among the open ones.
        pair: encoder and decoder.
        arguments: arguments of `steerlens.load` and options of `steerlens lens` that open it again, by name.
        vocabulary: labels of the Logit Lens; by default the pair's own.
        vocabulary_file: the file behind a user's vocabulary.
        vectors: directions to steer along, by name.
        vector_file: the file behind them.
    """

    name: str
    pair: Pair
    arguments: Mapping[str, str] = field(default_factory=dict[str, str])
    vocabulary: Vocabulary | None = None
    vocabulary_file: Path | None = None
    vectors: Mapping[str, Direction] = field(default_factory=dict[str, Direction])
    vector_file: Path | None = None

    @property
    def labels(self) -> Vocabulary | None:
        """Labels of the Logit Lens, or None."""
        return self.pair.vocabulary if self.vocabulary is None else self.vocabulary
