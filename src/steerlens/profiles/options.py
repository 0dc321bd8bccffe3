"""Options of a profile: which heads, how they are steered and decoded, and how many pictures are ablated."""

from dataclasses import dataclass

from steerlens.decoders.base import DecodeOptions
from steerlens.errors import UsageError
from steerlens.lenses.strength import Strength
from steerlens.sites import Site, all_heads, parse_sites


@dataclass(frozen=True)
class ProfileOptions:
    """Options of a profile.

    Attributes:
        decode: how to decode.
        strength: how hard to steer from the neutral base.
        heads: the heads to show; all heads are measured in closed form, for comparison.
        n_top: top pictures for each head and order.
        n_texts: texts for each direction of a head.
        n_ablated: pictures on which the shown heads are ablated in a real forward pass; 0 for none.
        seed: of the decoder, and of what is drawn at random.
        batch: pictures traced at once.
    """

    decode: DecodeOptions
    strength: Strength
    heads: tuple[Site, ...]
    n_top: int = 8
    n_texts: int = 6
    n_ablated: int = 16
    seed: int = 0
    batch: int = 16

    def __post_init__(self) -> None:
        if not self.heads or any(site.kind != "head" for site in self.heads):
            raise UsageError("only heads have profiles; name some, such as L3H4,head.5.* or all.")
        if self.n_top < 1 or self.n_texts < 0 or self.n_ablated < 0 or self.batch < 1:
            raise UsageError("--top is at least 1; --texts and --ablate are not negative.")


def heads_of(text: str, n_layers: int, n_heads: int) -> tuple[Site, ...]:
    """The heads that a text names: `all`, or sites and patterns of heads.

    Raises:
        UsageError: if it names another kind of site, or one that is not there.
    """
    sites = all_heads(n_layers, n_heads) if text.strip() == "all" else parse_sites(text, n_layers, n_heads)
    for site in sites:
        if site.kind != "head":
            raise UsageError(f"{site} is no head; only heads have profiles, such as L3H4, head.5.* or all.")
    return sites
