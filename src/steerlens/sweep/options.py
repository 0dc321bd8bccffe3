"""Options of a sweep: which sites, lenses and seeds, and how to decode. Imports nothing heavy."""

from dataclasses import dataclass
from typing import Literal

from steerlens.decoders import DecodeOverrides
from steerlens.naming import NamesMethod
from steerlens.option_types import convert_options

DEFAULT_SITES = "resid_post,heads"

SAE_SITES = "resid_post,features"
"""Default sites where a sparse autoencoder is given."""

STRONGEST = 24
"""Default number of features of an autoencoder, and of neurons, that are shown of each input."""

RankedBy = Literal["activation", "effect", "target"]


@dataclass(frozen=True)
class SiteOptions:
    """Sites to look at, and the tokens that are steered there."""

    sites: str = DEFAULT_SITES
    """Sites to look at, comma-separated: heads, all, resid_pre, resid_mid, resid_post, attn_out, mlp_out, a single
    site such as head.3.4 or L3H4, or a pattern such as head.8-11.* or mlp_out.3-5; features, feature.NAME or
    feature.NAME.7 of a sparse autoencoder (--sae), after which the default is resid_post,features; neurons, neuron.5
    or neuron.5.7 of an MLP's hidden layer. Layers, heads, features and neurons count from 0."""

    strongest: int = STRONGEST
    """Features of each sparse autoencoder, and neurons, to show of each input: the strongest, where the sites do not
    number them."""

    rank: RankedBy = "activation"
    """What makes a feature or neuron strong: activation, on the readout token, times the norm of its decoder row;
    effect, how far the embedding moves without it; or target, the cosine of the steered embedding with the target."""

    tokens: str = "all"
    """Tokens that the Steering Lens WRITES TO, for decoders that read image tokens (rae-dinov2, rae-mae,
    ip-adapter-plus-sd15): all; the number of a token, counting the class token and registers first; or a part of the
    picture as in --region, for example 8,8,40,40 or patches=2-4,0-3. For what heads READ FROM, see --region."""


@dataclass(frozen=True)
class LensOptions:
    """Lenses, their strength, and the number of controls and labels."""

    lenses: tuple[Literal["diffusion", "steering"], ...] = ("diffusion", "steering")
    """Lenses whose pictures are decoded. The Logit Lens always runs if the model has a vocabulary."""

    strength: str | None = None
    """Steering strength of the Steering Lens. s=40 multiplies what a head writes by 40 (s=1 is the clean run); rho=1
    adds a vector as long as the final residual, equally for all heads. s below 1 and rho below 0 steer away. Default:
    the model's own."""

    effect: str | tuple[str, ...] = "direct"
    """Effect of steering a site: direct, its own write into the final residual, everything after it frozen; total, the
    site scaled in the real forward pass, everything after it reacting, with a picture of its ablation and the effect
    of ablating every head, decoded or not; or direct,total to see both side by side."""

    vector_at: str | None = None
    """For the total effect of directions (--vector): the point of the residual stream where they are added, such as
    resid_post.6. The direct effect is the same wherever they are added."""

    controls: int = 1
    """Controls of each head: random directions steered equally hard, which the head should beat; 0 for none."""

    foils: int = 0
    """Foils of each head: its write for other inputs of the run, steered from this input as hard as its own. The own
    should be closer to the input. Needs more inputs than foils; 0 for none."""

    n_labels: int = 5
    """Number of Logit Lens labels for every site."""

    names: NamesMethod = "nearest"
    """Texts that label sites: nearest, those closest to what a site holds; omp, a sparse sum of texts that approximates
    it; textspan, texts that together span a head's writes over all inputs. The last two state the variance that they
    explain, beside that explained by random texts."""


@dataclass(frozen=True)
class DecodingOptions(DecodeOverrides):
    """What is decoded, and how; None means the decoder's own default."""

    decode: str = "all"
    """Sites to decode: all; top:K, for the K heads (or other writes) of every picture and lens whose embedding is
    closest to the target before decoding; above:X, for those with a cosine above X; or none, for their scores alone.
    Sites of the residual stream are always decoded: with --sites heads, that is the clean reconstruction."""

    seed: int = 0
    """First seed of the decoder. All pictures share it, so that they differ only in their site."""

    n_seeds: int = 1
    """Number of seeds, counting up from the first. With two or more, the report shows how well they agree."""


@dataclass(frozen=True)
class LookOptions(SiteOptions, LensOptions, DecodingOptions):
    """Options of a sweep; None means the pair's own default."""

    cache: bool = False
    """Reuse traces of earlier runs. Weights must be as they were loaded, since their files identify the traces."""

    def __post_init__(self) -> None:
        convert_options(self)
