"""A pair: an encoder and the decoder of its embedding space, with their identity."""

from dataclasses import dataclass, field
from typing import Any

from jaxtyping import Float
from torch import Tensor

from steerlens.decoders import Decoder
from steerlens.domain import DomainReference
from steerlens.encoders import Encoder
from steerlens.storage.parameters import check_numbers, weights_state
from steerlens.vocabulary import TextVocabulary, Vocabulary
from steerlens.zoo.cards import Card
from steerlens.zoo.provenance import Provenance
from steerlens.zoo.text import TextSource, direction_of


@dataclass(frozen=True, eq=False)
class Pair:
    """An encoder and the decoder of its embedding space.

    Attributes:
        name: the card's name, or the folder.
        encoder: the encoder.
        decoder: the decoder of its embeddings or tokens.
        vocabulary: texts or classes that name directions of the embedding space, or None.
        card: its card in the zoo, or None for a folder without a card.
        provenance: origin and identity of the weights.
        texts: turns texts outside the vocabulary into directions, or None.
        notes: messages to the user about loading.
        reference: statistics of pictures like those of the training, to recognise inputs of other kinds; or None.
        loaded: mark of the encoder when the pair was made; see `storage.parameters.weights_state`.
        loaded_decoder: mark of the decoder then, whose weights may change their place without changing.
    """

    name: str
    encoder: Encoder
    decoder: Decoder
    vocabulary: Vocabulary | None = None
    card: Card | None = None
    provenance: Provenance = field(default=Provenance(), repr=False)
    texts: TextSource | None = field(default=None, repr=False)
    notes: tuple[str, ...] = ()
    reference: DomainReference | None = field(default=None, repr=False)
    loaded: str = field(init=False, repr=False, default="")
    loaded_decoder: str = field(init=False, repr=False, default="")

    def __post_init__(self) -> None:
        for part in (self.encoder, self.decoder):  # a custom adapter may not have checked its own
            check_numbers(part, part.spec.name)
        object.__setattr__(self, "loaded", weights_state(self.encoder))
        object.__setattr__(self, "loaded_decoder", weights_state(self.decoder, moves=True))

    def __getstate__(self) -> dict[str, Any]:
        # Marks hold for one process, so a copy or pickle stores only whether the models were unchanged.
        return {**vars(self), "loaded": self.is_as_loaded, "loaded_decoder": self.has_decoder_as_loaded}

    def __setstate__(self, state: dict[str, Any]) -> None:
        mark = weights_state(state["encoder"]) if state["loaded"] else ""
        of_decoder = weights_state(state["decoder"], moves=True) if state["loaded_decoder"] else ""
        vars(self).update(state | {"loaded": mark, "loaded_decoder": of_decoder})

    @property
    def is_as_loaded(self) -> bool:
        """True if the encoder's weights and settings have not changed in memory since the pair was loaded."""
        return self.loaded == weights_state(self.encoder)

    @property
    def has_decoder_as_loaded(self) -> bool:
        """True if the decoder's weights and settings have not changed in memory since the pair was loaded."""
        return self.loaded_decoder == weights_state(self.decoder, moves=True)

    def __repr__(self) -> str:
        encoder, decoder = self.encoder.spec, self.decoder.spec
        height, width = decoder.defaults.size
        return (
            f"Pair({self.name}: {encoder.family} encoder of {encoder.n_layers} layers x {encoder.n_heads} heads, "
            f"{decoder.family} decoder of {height} x {width} pixels)"
        )

    def text_direction(self, text: str) -> Float[Tensor, "E"]:
        """Returns a text's direction in embedding space, of unit norm, on the host.

        A text of the vocabulary has its own direction. Other texts go through the text encoder of the pair, if it has
        one; for a vocabulary of sentence embeddings that is the optional package of extra `train`.

        Raises:
            UsageError: if neither knows the text; the message suggests similar texts.
        """
        vocabulary = self.vocabulary if isinstance(self.vocabulary, TextVocabulary) else None
        return direction_of(text, vocabulary, self.texts)
