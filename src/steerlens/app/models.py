"""Models of the explorer: pairs with the arguments that open them again, and named directions to steer along."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from steerlens.encoders import NativeEncoder
from steerlens.errors import SteerlensError
from steerlens.lenses import Direction
from steerlens.saes import SparseAutoencoder
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
class OpenAutoencoder:
    """A sparse autoencoder that is open, and what opens it again.

    Attributes:
        sae: the autoencoder.
        source: its folder or file, or the name of a bundled one.
        site: where it reads, if its files do not say.
        activation: its activation, if its files do not say.
    """

    sae: SparseAutoencoder
    source: str
    site: str | None = None
    activation: str | None = None

    @property
    def is_named_by_source(self) -> bool:
        """True if the autoencoder has the name that its folder or file gives it."""
        path = Path(self.source)
        return self.sae.name == (path.stem if path.is_file() else path.name)


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
        autoencoders: sparse autoencoders of this model, by name.
    """

    name: str
    pair: Pair
    arguments: Mapping[str, str] = field(default_factory=dict[str, str])
    vocabulary: Vocabulary | None = None
    vocabulary_file: Path | None = None
    vectors: Mapping[str, Direction] = field(default_factory=dict[str, Direction])
    vector_file: Path | None = None
    autoencoders: Mapping[str, OpenAutoencoder] = field(default_factory=dict[str, OpenAutoencoder])

    @property
    def labels(self) -> Vocabulary | None:
        """Labels of the Logit Lens, or None."""
        return self.pair.vocabulary if self.vocabulary is None else self.vocabulary

    @property
    def neurons(self) -> tuple[int, ...]:
        """Number of neurons in the MLP of each layer; empty if the encoder does not show them."""
        encoder = self.pair.encoder
        if not isinstance(encoder, NativeEncoder):
            return ()
        try:
            return tuple(module.neurons().n_neurons for module in encoder.layers())
        except SteerlensError:
            return ()
