"""Jobs: the models, inputs, plan and options of a sweep."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from jaxtyping import Float
from torch import Tensor

from steerlens.atlas import Plan
from steerlens.decoders import DecodeOptions, Decoder, NeighboursDecoder
from steerlens.domain import DomainReference
from steerlens.encoders import Encoder
from steerlens.images import Picture
from steerlens.lenses import Area, Direction
from steerlens.naming import NamesMethod, TextDecomposition
from steerlens.sites import Site
from steerlens.sweep.selection import Selection
from steerlens.sweep.survey import UnitSurvey
from steerlens.sweep.trace_cache import TraceCache
from steerlens.vocabulary import Vocabulary


@dataclass(frozen=True, eq=False)
class Target:
    """Embedding that the similarities of a sweep refer to.

    Attributes:
        description: the target in words, for reports.
        direction: the embedding; None for each input's own.
        source: the text behind the direction, or the SHA-256 of its picture; part of a run's identity.
        tokens: image tokens of the target picture, for a decoder of image tokens; else None.
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
        options: options of the decoder.
        vocabulary: labels for the Logit Lens, or None.
        target: the embedding that similarities refer to.
        directions: the directions, groups, regions and sparse autoencoders that sites name, by name.
        n_labels: number of labels stored for every site.
        names: how sites are named.
        spans: texts that span each head's writes over all inputs, for `textspan`.
        tokens: tokens that the Steering Lens writes to, for a decoder of image tokens; None for all.
        vector_at: point of the residual stream where directions are added for their total effect; None without one.
        inputs: ids of all inputs of the run, in order, also where `pictures` and `plan` hold a part of them; foils take
            the writes for other inputs.
        traces: cache of traces of earlier runs; None to compute every trace.
        selection: rule that selects the cells to decode.
        reference: statistics of the pair's domain, or None.
        left_out: hashes of inputs that an index of pictures holds and does not show.
        survey: the neurons and features of each picture, and how well autoencoders fit; None without any.
        models: hashes of weights, and precision, of encoder and decoder, as in the manifest; workers on other machines
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
    names: NamesMethod = "nearest"
    spans: Mapping[Site, TextDecomposition] = field(default_factory=dict[Site, TextDecomposition])
    tokens: Area | None = None
    vector_at: Site | None = None
    inputs: tuple[str, ...] = ()
    traces: TraceCache | None = None
    selection: Selection = field(default_factory=Selection)
    reference: DomainReference | None = None
    left_out: tuple[str, ...] = ()
    models: Mapping[str, Any] = field(default_factory=dict[str, Any])
    survey: UnitSurvey | None = None

    @property
    def reads_tokens(self) -> bool:
        """True if the decoder reads image tokens instead of an image embedding."""
        return self.decoder.spec.consumes == "image_tokens"


def without_inputs(decoder: Decoder, sha256: Sequence[str]) -> Decoder:
    """Returns an index of pictures without some files; any other decoder stays as it is."""
    return decoder.leaving_out(sha256) if sha256 and isinstance(decoder, NeighboursDecoder) else decoder
