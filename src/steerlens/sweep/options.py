"""Options of a sweep: which sites, lenses and seeds, and how to decode. Imports nothing heavy."""

from dataclasses import dataclass
from typing import Literal

from steerlens.decoders.options import DecodeOverrides

DEFAULT_SITES = "resid_post,heads"


@dataclass(frozen=True)
class LookOptions(DecodeOverrides):
    """Options of a sweep; what is None takes the pair's own default."""

    sites: str = DEFAULT_SITES
    """Where to look, comma-separated: heads, all, resid_pre, resid_mid, resid_post, attn_out, mlp_out, one site such
    as head.3.4 or L3H4, or a pattern such as head.8-11.* or mlp_out.3-5. Layers and heads are counted from 0."""

    strength: str | None = None
    """How hard the Steering Lens steers: s=40 multiplies what a head writes (s=1 is the clean run); rho=1 adds as much
    as the final residual itself, for every head alike; s below 1 and rho below 0 steer away. Default: what suits the
    model."""

    tokens: str = "all"
    """The tokens that the Steering Lens WRITES TO, for decoders that read image tokens (rae-dinov2, rae-mae,
    ip-adapter-plus-sd15): all; the number of one token, class token and registers first; or a part of the picture, as
    --region names it, for example 8,8,40,40 or patches=2-4,0-3. For what heads READ FROM, see --region."""

    lenses: tuple[Literal["diffusion", "steering"], ...] = ("diffusion", "steering")
    """Which lenses decode. The Logit Lens is always read where there is a vocabulary."""

    decode: str = "all"
    """What is decoded: all; top:K, the K heads (or other writes) of every picture and lens whose embedding comes
    closest to the target without decoding; or above:X, those closer than a cosine of X. The residual stream always
    is decoded."""

    seed: int = 0
    """First seed of the decoder; the same for every picture, so that pictures differ by their site alone."""

    n_seeds: int = 1
    """How many seeds, counted up from the first. With two or more, the report says how far they agree."""

    controls: int = 1
    """Random directions steered as hard as each head, which a head has to beat; 0 for none."""

    n_labels: int = 5
    """Logit Lens labels kept for every site."""

    cache: bool = False
    """Keep traces from run to run; only for weights as they were loaded, since their files identify the traces."""
