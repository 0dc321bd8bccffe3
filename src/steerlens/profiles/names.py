"""Names of heads beyond the nearest texts: sparse text decompositions of their directions or of their writes.

omp       decomposes the change of the embedding along each of a head's directions into texts
textspan  finds texts that span the head's contributions to the embeddings of all pictures, the divisor of the final
          norm frozen at each picture's own value
"""

from collections.abc import Generator, Mapping, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from steerlens.encoders import Encoder
from steerlens.lenses import LinearAttribution
from steerlens.naming import TextDecomposition, omp_rows, text_span
from steerlens.profiles.measure import native, traces
from steerlens.profiles.options import ProfileOptions
from steerlens.profiles.pictures import ProfilePicture, batches
from steerlens.progress import Progress
from steerlens.studies.shared import StudyFolder
from steerlens.vocabulary import Vocabulary

WRITES = "writes"
"""Name of a head's decomposition by TextSpan, beside those of its directions."""

Decompositions = Mapping[str, Sequence[TextDecomposition]]
"""Direction, or `WRITES`, -> decomposition of each described head."""


def measure_contributions(
    encoder: Encoder, pictures: Sequence[ProfilePicture], options: ProfileOptions, study: StudyFolder
) -> Generator[Progress, None, Float[Tensor, "P K E"]]:
    """Measures each described head's contribution to the embedding of every picture, part by part."""
    attribution, chunks = LinearAttribution(native(encoder)), batches(pictures, options.batch)
    parts: list[Tensor] = []
    yield Progress("contributions", 0, len(pictures), "pictures")
    for number, chunk in enumerate(chunks):
        name = f"contributions-{number:05d}"
        if not study.has(name):
            for _, trace in traces(encoder, chunk, len(chunk)):
                study.add(name, {"contributions": attribution.embeddings(trace, options.heads).float()})
        parts.append(study.part(name)["contributions"])
        yield Progress("contributions", sum(map(len, parts)), len(pictures), "pictures")
    return torch.cat(parts)


def span_decompositions(
    contributions: Float[Tensor, "P K E"], vocabulary: Vocabulary, options: ProfileOptions
) -> Decompositions:
    """Finds the texts that span each head's contributions (TextSpan)."""
    unchanging = TextDecomposition("textspan", (), (), 0.0)
    return {
        WRITES: [
            text_span(of_head, vocabulary, options.n_texts, seed=options.seed)
            if bool((of_head != of_head[0]).any())
            else unchanging
            for of_head in contributions.unbind(dim=1)
        ]
    }


def direction_decompositions(
    embeddings: Mapping[str, Float[Tensor, "K E"]],
    neutral: Float[Tensor, "E"],
    vocabulary: Vocabulary,
    options: ProfileOptions,
) -> Decompositions:
    """Decomposes the change of the embedding along each of the heads' directions (OMP).

    Args:
        embeddings: direction -> embeddings of the base steered along it, one of each described head.
        neutral: embedding of the base.
        vocabulary: the texts.
        options: options of the profile.
    """
    return {
        name: omp_rows(steered - neutral, vocabulary, options.n_texts, seed=options.seed)
        for name, steered in embeddings.items()
    }
