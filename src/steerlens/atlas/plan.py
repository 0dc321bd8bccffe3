"""The plan: every picture that will be decoded, known before anything runs."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal, get_args, overload

from steerlens.errors import UsageError
from steerlens.lenses.strength import Strength
from steerlens.limits import over_limit
from steerlens.sites import Site

LensName = Literal["diffusion", "steering", "control"]

LENS_NAMES: tuple[LensName, ...] = get_args(LensName)


@dataclass(frozen=True)
class Cell:
    """One picture to decode.

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

    def __post_init__(self) -> None:
        if self.lens not in LENS_NAMES:  # cells are read from files, and lenses become names of folders
            raise ValueError(f"there is no lens {self.lens!r}")

    @property
    def key(self) -> str:
        """A text that names the cell among all cells of all runs of one pair."""
        strength = "" if self.strength is None else str(self.strength)
        return "|".join((self.picture, self.lens, str(self.site), strength, str(self.seed), str(self.draw)))


@dataclass(frozen=True, eq=False)
class RepeatedCells(Sequence[Cell]):
    """Cells repeated for every picture, made when they are used: those of thousands of pictures would fill memory.

    Attributes:
        pictures: ids of the inputs.
        each: the cells of one picture, its id left empty.
    """

    pictures: tuple[str, ...]
    each: tuple[Cell, ...]

    def __len__(self) -> int:
        return len(self.pictures) * len(self.each)

    @overload
    def __getitem__(self, index: int) -> Cell: ...

    @overload
    def __getitem__(self, index: slice) -> tuple[Cell, ...]: ...

    def __getitem__(self, index: int | slice) -> Cell | tuple[Cell, ...]:
        places = range(len(self))[index]
        return self._at(places) if isinstance(places, int) else tuple(self._at(place) for place in places)

    def __iter__(self) -> Iterator[Cell]:
        for picture in self.pictures:
            yield from self.of(picture)

    def __eq__(self, other: object) -> bool:
        if isinstance(other, RepeatedCells):
            return self.pictures == other.pictures and self.each == other.each
        return isinstance(other, tuple) and tuple(self) == other

    def of(self, picture: str) -> tuple[Cell, ...]:
        """The cells of one picture."""
        return tuple(_of_picture(cell, picture) for cell in self.each)

    def _at(self, place: int) -> Cell:
        picture, cell = divmod(place, len(self.each))
        return _of_picture(self.each[cell], self.pictures[picture])


def _of_picture(cell: Cell, picture: str) -> Cell:
    return Cell(picture, cell.lens, cell.site, cell.strength, cell.seed, cell.draw)


def grouped(cells: Iterable[Cell]) -> dict[str, tuple[Cell, ...]]:
    """Cells by picture, in order."""
    found: dict[str, list[Cell]] = {}
    for cell in cells:
        found.setdefault(cell.picture, []).append(cell)
    return {picture: tuple(held) for picture, held in found.items()}


def compact(cells: Sequence[Cell]) -> Sequence[Cell]:
    """Replaces cells that repeat from picture to picture by `RepeatedCells`; other cells stay as they are."""
    by_picture = {
        picture: tuple(replace(cell, picture="") for cell in held) for picture, held in grouped(cells).items()
    }
    if len(set(by_picture.values())) != 1:
        return cells
    same = RepeatedCells(tuple(by_picture), next(iter(by_picture.values())))
    return same if all(one == other for one, other in zip(same, cells, strict=True)) else cells


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

    cells: Sequence[Cell]
    strength: Strength
    seeds: tuple[int, ...]
    n_layers: int

    def __len__(self) -> int:
        return len(self.cells)

    @property
    def pictures(self) -> tuple[str, ...]:
        """Ids of the inputs, in order."""
        if isinstance(self.cells, RepeatedCells):
            return self.cells.pictures
        return tuple(dict.fromkeys(cell.picture for cell in self.cells))

    def of(self, picture: str) -> tuple[Cell, ...]:
        """The cells of one picture."""
        if isinstance(self.cells, RepeatedCells):
            return self.cells.of(picture)
        return tuple(cell for cell in self.cells if cell.picture == picture)

    def by_picture(self) -> Iterator[tuple[str, tuple[Cell, ...]]]:
        """The cells of each picture, in order, made a picture at a time."""
        if isinstance(self.cells, RepeatedCells):
            for picture in self.cells.pictures:
                yield picture, self.cells.of(picture)
        else:
            yield from grouped(self.cells).items()


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
    if words := over_limit("cells", len(seeds) * (len(shown) + len(steered) * (1 + controls))):
        raise UsageError(f"the plan has, for each input, {words}. Name fewer sites, seeds or controls.")
    each: dict[Cell, None] = {}
    for seed in seeds:
        for site in shown:
            each[Cell("", "diffusion", site, None, seed)] = None
        for site in steered:
            each[Cell("", "steering", site, strength, seed)] = None
        for site in steered:
            for draw in range(controls):
                each[Cell("", "control", site, strength, seed, draw)] = None
    return Plan(RepeatedCells(tuple(dict.fromkeys(pictures)), tuple(each)), strength, tuple(seeds), n_layers)
