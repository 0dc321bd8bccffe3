"""Jobs: everything that a sweep needs to be carried out."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from jaxtyping import Float
from torch import Tensor

from steerlens.atlas.plan import Plan
from steerlens.decoders.base import DecodeOptions, Decoder
from steerlens.encoders.base import Encoder
from steerlens.images import Picture
from steerlens.lenses.components import Direction
from steerlens.lenses.regions import Area
from steerlens.sweep.selection import Selection
from steerlens.sweep.trace_cache import TraceCache
from steerlens.vocabulary import Vocabulary


@dataclass(frozen=True, eq=False)
class Target:
    """Embedding that similarities are measured against.

    Attributes:
        description: in words, for reports.
        direction: the embedding; None for each input's own.
        source: what the direction was made from, a text or the SHA-256 of a picture; part of a run's identity.
        tokens: for a decoder of image tokens, those of the picture that the direction was made from.
    """

    description: str = "the input itself"
    direction: Float[Tensor, "E"] | None = None
    source: str = ""
    tokens: Float[Tensor, "t D"] | None = None


@dataclass(frozen=True, eq=False)
class Job:
    """Models, inputs, plan and options of one sweep.

    Attributes:
        encoder: the encoder.
        decoder: a decoder of its embeddings, or of its image tokens.
        pictures: the inputs, by id.
        plan: the cells to decode.
        options: how to decode.
        vocabulary: labels for the Logit Lens, or None.
        target: what similarities are measured against.
        directions: the directions, groups and regions behind `vector`, `group` and `region` sites, by name.
        n_labels: labels kept for every site.
        tokens: for a decoder of image tokens, those that the Steering Lens writes to; None for all.
        traces: those of earlier runs, or None to take every trace anew.
        selection: which of the plan's cells are decoded.
        models: weights and precision of encoder and decoder, as a manifest states them; workers on other machines
            compare them with their own.
    """

    encoder: Encoder
    decoder: Decoder
    pictures: Mapping[str, Picture]
    plan: Plan
    options: DecodeOptions
    vocabulary: Vocabulary | None = None
    target: Target = field(default_factory=Target)
    directions: Mapping[str, Direction] = field(default_factory=dict)
    n_labels: int = 5
    tokens: Area | None = None
    traces: TraceCache | None = None
    selection: Selection = field(default_factory=Selection)
    models: Mapping[str, Any] = field(default_factory=dict[str, Any])

    @property
    def reads_tokens(self) -> bool:
        """Whether the decoder reads image tokens instead of an image embedding."""
        return self.decoder.spec.consumes == "image_tokens"
