"""Options of a profile: heads, steering, decoding, and number of ablated pictures."""

from dataclasses import dataclass

from steerlens.decoders import DecodeOptions
from steerlens.errors import UsageError
from steerlens.lenses import Strength
from steerlens.naming import NamesMethod
from steerlens.sites import Site, all_heads, parse_sites


@dataclass(frozen=True)
class ProfileOptions:
    """Options of a profile.

    Attributes:
        decode: options of the decoder.
        strength: steering strength from the neutral base.
        heads: heads to describe; all heads are measured in closed form, for comparison.
        n_top: number of top pictures for each head and order.
        n_texts: number of texts for each direction of a head.
        n_ablated: number of pictures on which the described heads are ablated in a real forward pass; 0 for none.
        seed: seed of the decoder and of all random draws.
        batch: number of pictures traced at once.
        names: how heads are named besides the nearest texts: `textspan`, `omp`, or `nearest` for no other way.
    """

    decode: DecodeOptions
    strength: Strength
    heads: tuple[Site, ...]
    n_top: int = 8
    n_texts: int = 6
    n_ablated: int = 16
    seed: int = 0
    batch: int = 16
    names: NamesMethod = "nearest"

    def __post_init__(self) -> None:
        if not self.heads or any(site.kind != "head" for site in self.heads):
            raise UsageError("only heads have profiles; name heads, such as L3H4,head.5.* or all.")
        if self.n_top < 1 or self.n_texts < 0 or self.n_ablated < 0 or self.batch < 1:
            raise UsageError("--top must be at least 1; --texts and --ablate cannot be negative.")
        if self.strength.is_clean:
            raise UsageError(f"{self.strength} is the clean run: nothing would be steered.")


def heads_of(text: str, n_layers: int, n_heads: int) -> tuple[Site, ...]:
    """Parses the heads that a text names: `all`, or sites and patterns of heads.

    Raises:
        UsageError: if it names another kind of site, or a head that does not exist.
    """
    sites = all_heads(n_layers, n_heads) if text.strip() == "all" else parse_sites(text, n_layers, n_heads)
    for site in sites:
        if site.kind != "head":
            raise UsageError(f"{site} is not a head; only heads have profiles, such as L3H4, head.5.* or all.")
    return sites
