"""Cards of heads as data: what a head adds to one input, and how far that was measured to be true."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from PIL import Image

from steerlens.images import stored_picture
from steerlens.sites import Site, SiteLike, as_site


@dataclass(frozen=True)
class TextScore:
    """Text with its score for a head.

    Attributes:
        text: the text.
        score: cosine with the head's direction; for a classifier, the change of its logit.
        excess: the score minus the text's mean score over the other heads.
        stands_out: True if the excess is above that of the best text of 95 % of meaningless directions.
    """

    text: str
    score: float
    excess: float
    stands_out: bool


@dataclass(frozen=True)
class Faithfulness:
    """Measured faithfulness of one way of showing heads, on one model.

    Attributes:
        of: what is shown: `contrast pair`, `real pictures`, or `own write`.
        measure: the measure, in words.
        value: over all heads.
        low: lower end of its 95 % interval.
        high: upper end.
        heads: label of a head -> its own figure, which has no interval: a rough guide. For the first two a correlation
            over names, for the last the head's share.
        pictures: number of pictures.
    """

    of: str
    measure: str
    value: float
    low: float
    high: float
    heads: Mapping[str, float]
    pictures: int


@dataclass(frozen=True)
class CardPicture:
    """Picture on a card.

    Attributes:
        name: what it shows.
        value: of a decoded picture, its fidelity; of a real one, its cosine with the changed embedding minus that with
            the opposite change.
        png: bytes of a PNG file.
    """

    name: str
    value: float
    png: bytes = field(repr=False)

    @property
    def image(self) -> Image.Image:
        """The picture as a PIL image."""
        return stored_picture(self.png)


@dataclass(frozen=True)
class CardEnd:
    """One end of a head's card: what the input gains along the head's centred write, or loses.

    Attributes:
        decoded: the input's residual steered to this end, decoded.
        real: real pictures near the embedding changed to this end and not near the opposite change, best first.
        names: texts that the embedding at this end gains over that at the other, best first; empty without a
            vocabulary.
    """

    decoded: CardPicture
    real: tuple[CardPicture, ...]
    names: tuple[TextScore, ...]


@dataclass(frozen=True)
class HeadCard:
    """Card of a head on one input.

    Attributes:
        site: the head.
        gains: steered along the centred write, by the strength of the card.
        loses: steered against it, as strongly; both decoded pictures are the contrast pair.
    """

    site: Site
    gains: CardEnd
    loses: CardEnd


@dataclass(frozen=True)
class InputCards:
    """Cards of heads on one input.

    Attributes:
        model: name of the pair.
        strength: of the steering, in text form.
        bank: origin of the real pictures, in words.
        chance: excess that the best text of a meaningless direction stays below in 95 of 100 cases; None without texts.
        heads: a card for each of some heads.
        faithfulness: measured faithfulness of what the cards show, on this model; empty if no study measured it.
    """

    model: str
    strength: str
    bank: str
    chance: float | None
    heads: tuple[HeadCard, ...]
    faithfulness: tuple[Faithfulness, ...] = ()

    def head(self, site: SiteLike) -> HeadCard | None:
        """Card of a head; None if it has none."""
        wanted = as_site(site)
        return next((card for card in self.heads if card.site == wanted), None)
