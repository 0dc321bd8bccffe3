"""The Logit Lens: project a representation through the model's own readout and name it.

    scores( P( LN( x ) ) )   over a vocabulary of text embeddings (cosine similarity) or classes (logits)

References: nostalgebraist, "interpreting GPT: the logit lens", 2020.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from jaxtyping import Float
from torch import Tensor

from steerlens.encoders import Encoder
from steerlens.lenses.components import Direction
from steerlens.lenses.diffusion import DiffusionLens
from steerlens.sites import Site, SitesLike, as_sites
from steerlens.trace import Trace
from steerlens.vocabulary import Vocabulary


@dataclass(frozen=True)
class Label:
    """One entry of a Logit Lens reading.

    Attributes:
        site: the site that was read.
        rank: 1 for the best label.
        name: the label.
        score: cosine similarity in [-1,1] for texts, logit for classes; of a text decomposition, the text's weight.
        explained: of a text decomposition, the share of variance that this text and those before it explain.
        control: the same of random texts.
    """

    site: Site
    rank: int
    name: str
    score: float
    explained: float | None = None
    control: float | None = None


@dataclass(frozen=True, eq=False)
class LogitLens:
    """Lens that names the content of a site.

    Attributes:
        encoder: the encoder of the trace.
        vocabulary: the labels to choose from.
        directions: directions, groups, regions and sparse autoencoders of the named sites, by name.
    """

    encoder: Encoder
    vocabulary: Vocabulary
    directions: Mapping[str, Direction] = field(default_factory=dict)

    name = "logit"

    def scores(self, trace: Trace, sites: SitesLike) -> Float[Tensor, "B N V"]:
        """Computes the score of every label at every site, for every picture of the trace."""
        embeddings = DiffusionLens(self.encoder, self.directions).embeddings(trace, sites)
        return self.vocabulary.scores(embeddings)

    def read(self, trace: Trace, sites: SitesLike, k: int = 5) -> list[tuple[Label, ...]]:
        """Returns the k best labels of every site: one tuple per picture, site by site, best first."""
        sites = as_sites(sites, trace.n_layers, trace.n_heads)
        best = self.scores(trace, sites).topk(min(k, len(self.vocabulary.names)), dim=-1)
        return [
            tuple(
                Label(site, rank + 1, self.vocabulary.names[index], score)
                for site, indices, scores in zip(sites, picture_indices, picture_scores, strict=True)
                for rank, (index, score) in enumerate(zip(indices, scores, strict=True))
            )
            for picture_indices, picture_scores in zip(best.indices.tolist(), best.values.tolist(), strict=True)
        ]
