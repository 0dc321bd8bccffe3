"""The plan: every picture that will be decoded, known before anything runs."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from steerlens.errors import UsageError
from steerlens.lenses.strength import Strength
from steerlens.sites import Site

LensName = Literal["diffusion", "steering", "control"]


@dataclass(frozen=True)
class Cell:
    """One decoded picture to be.

    Attributes:
        picture: id of the input picture.
        lens: `diffusion`, `steering`, or `control`: a random direction steered as hard as the site would be.
        site: where the lens looks.
        strength: how hard to steer; None for the Diffusion Lens.
        seed: seed of the decoder.
        draw: for a control, which random direction, from 0.
    """

    picture: str
    lens: LensName
    site: Site
    strength: Strength | None
    seed: int
    draw: int = 0

    @property
    def key(self) -> str:
        """A text that names the cell among all cells of all runs of one pair."""
        strength = "" if self.strength is None else str(self.strength)
        return "|".join((self.picture, self.lens, str(self.site), strength, str(self.seed), str(self.draw)))


@dataclass(frozen=True)
class Plan:
    """The cells of a run, each once, picture after picture.

    Attributes:
        cells: what to decode.
        strength: the steering strength.
        seeds: the seeds of the decoder.
        n_layers: layers that reach the decoder: L of the encoder, or fewer where tokens are read before its end; it
            says which cell is the clean reconstruction.
    """

    cells: tuple[Cell, ...]
    strength: Strength
    seeds: tuple[int, ...]
    n_layers: int

    def __len__(self) -> int:
        return len(self.cells)

    def by_picture(self) -> Iterator[tuple[str, tuple[Cell, ...]]]:
        """The cells of each picture, in order."""
        grouped: dict[str, list[Cell]] = {}
        for cell in self.cells:
            grouped.setdefault(cell.picture, []).append(cell)
        for picture, cells in grouped.items():
            yield picture, tuple(cells)

    def without(self, keys: frozenset[str]) -> "Plan":
        """The plan less the cells of these keys: what is left to do."""
        left = tuple(cell for cell in self.cells if cell.key not in keys)
        return Plan(left, self.strength, self.seeds, self.n_layers)


def clean_site(n_layers: int) -> Site:
    """The site whose Diffusion Lens picture is the clean reconstruction: the residual that the decoder reads itself."""
    return Site("resid_post", n_layers - 1)


def make_plan(
    pictures: Sequence[str],
    sites: Sequence[Site],
    n_layers: int,
    *,
    strength: Strength,
    seeds: Sequence[int] = (0,),
    lenses: Sequence[LensName] = ("diffusion", "steering"),
    controls: int = 1,
) -> Plan:
    """Plans the cells of every picture: its clean reconstruction, each site under each lens, and the controls.

    A site of the residual stream is shown by the Diffusion Lens alone. Equal cells are planned once.

    Args:
        pictures: ids of the inputs.
        sites: where to look.
        n_layers: layers that reach the decoder.
        strength: how hard to steer.
        seeds: decoder seeds; the same for every cell of a picture, so that pictures differ by their site alone.
        lenses: which lenses to use.
        controls: random directions for each steered site; 0 for none.

    Raises:
        UsageError: if there is no picture, site or seed to plan for, or the number of controls is negative.
    """
    if not pictures or not sites or not seeds:
        raise UsageError("nothing to do: at least one picture, one site and one seed are needed.")
    if controls < 0:
        raise UsageError(f"the number of controls cannot be negative, as {controls} is.")
    steered = [site for site in sites if site.is_write] if "steering" in lenses else []
    shown = list(sites) if "diffusion" in lenses else []
    if not steered and not shown:
        raise UsageError(
            "the Steering Lens alone was asked for, and no site that can be steered: name heads, attn_out.N, mlp_out.N "
            "or a direction; the residual stream is shown by the Diffusion Lens."
        )
    if clean_site(n_layers) not in shown:
        shown.insert(0, clean_site(n_layers))
    cells: dict[Cell, None] = {}
    for picture in pictures:
        for seed in seeds:
            for site in shown:
                cells[Cell(picture, "diffusion", site, None, seed)] = None
            for site in steered:
                cells[Cell(picture, "steering", site, strength, seed)] = None
            for site in steered:
                for draw in range(controls):
                    cells[Cell(picture, "control", site, strength, seed, draw)] = None
    return Plan(tuple(cells), strength, tuple(seeds), n_layers)
