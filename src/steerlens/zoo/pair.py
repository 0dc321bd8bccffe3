"""A pair: an encoder and the decoder of its embedding space, with all that identifies them."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from jaxtyping import Float
from torch import Tensor

from steerlens.decoders.base import Decoder
from steerlens.encoders.base import Encoder
from steerlens.vocabulary import TextVocabulary, Vocabulary
from steerlens.zoo.cards import Card
from steerlens.zoo.text import TextSource, direction_of


@dataclass(frozen=True, eq=False)
class Pair:
    """An encoder and the decoder of its embedding space.

    Attributes:
        name: the card's name, or the folder.
        encoder: opened for tracing and steering.
        decoder: turns its embeddings into pictures.
        vocabulary: texts or classes that name places of the embedding space, or None.
        card: what the zoo says of it, or None for a folder.
        provenance: what a manifest needs to find the same weights again: ids, revisions, hashes, precision, device,
            preprocessing, versions of the libraries; JSON.
        texts: turns texts outside the vocabulary into directions, or None.
        notes: what was decided on loading that the user should hear of.
    """

    name: str
    encoder: Encoder
    decoder: Decoder
    vocabulary: Vocabulary | None = None
    card: Card | None = None
    provenance: Mapping[str, Any] = field(default_factory=dict, repr=False)
    texts: TextSource | None = field(default=None, repr=False)
    notes: tuple[str, ...] = ()

    def __repr__(self) -> str:
        return f"Pair({self.name}: {self.encoder.spec}, {self.decoder.spec})"

    def text_direction(self, text: str) -> Float[Tensor, "E"]:
        """A text as a direction of the embedding space, of unit norm, on the host.

        A text of the vocabulary gives its own direction. Any other goes through the text encoder that belongs to the
        pair, if it has one; for a vocabulary of sentence embeddings that is the optional package of extra `train`.

        Raises:
            UsageError: if neither knows the text; the message names texts that come close.
        """
        vocabulary = self.vocabulary if isinstance(self.vocabulary, TextVocabulary) else None
        return direction_of(text, vocabulary, self.texts)
