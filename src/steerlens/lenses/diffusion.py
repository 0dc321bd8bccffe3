"""The Diffusion Lens: read a representation as if it were the final residual, and decode the embedding.

    decode( P( LN( x ) ) )

References: M. Toker et al., "Diffusion Lens: Interpreting Text Encoders in Text-to-Image Pipelines", arXiv 2403.05846;
for image encoders R. Takatsuki et al., arXiv 2504.13763.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor

from steerlens.conditioning import Conditioning
from steerlens.encoders import Encoder
from steerlens.lenses.components import Direction
from steerlens.lenses.readout import read_out, writes
from steerlens.lenses.sae_parts import embedding_parts, of_embedding
from steerlens.sites import SitesLike, as_sites
from steerlens.trace import Trace


@dataclass(frozen=True, eq=False)
class DiffusionLens:
    """Lens that shows the content of a site by itself; suited to the residual stream, weak on single components.

    Attributes:
        encoder: the encoder of the trace.
        directions: directions, groups, regions and sparse autoencoders of the named sites, by name.
    """

    encoder: Encoder
    directions: Mapping[str, Direction] = field(default_factory=dict)

    name = "diffusion"

    @torch.no_grad()
    def embeddings(self, trace: Trace, sites: SitesLike) -> Float[Tensor, "B N E"]:
        """Computes image embeddings `P(LN(x))` of the content x of each site, for every picture of the trace.

        A part of the image embedding, such as a feature of an autoencoder that reads it, is its own embedding.

        Raises:
            UsageError: if the model has no such site, or `directions` has no such name.
        """
        chosen = as_sites(sites, trace.n_layers, trace.n_heads)
        after = of_embedding(chosen, self.directions)
        if not after:
            return read_out(self.encoder, writes(self.encoder, trace, chosen, self.directions))
        of_site = dict(zip(after, embedding_parts(trace, after, self.directions).unbind(dim=1), strict=True))
        if inside := [site for site in chosen if site not in of_site]:
            embeddings = read_out(self.encoder, writes(self.encoder, trace, inside, self.directions))
            of_site |= dict(zip(inside, embeddings.unbind(dim=1), strict=True))
        return torch.stack([of_site[site].to(trace.embedding) for site in chosen], dim=1)

    def conditioning(self, trace: Trace, sites: SitesLike) -> Conditioning:
        """Computes the same as conditioning of a decoder, (B N, E): picture by picture, site by site."""
        return Conditioning("image_embedding", self.embeddings(trace, sites).float().flatten(0, 1))
