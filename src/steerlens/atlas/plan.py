"""The plan: every picture to decode, known before anything runs."""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import chain
from typing import Literal, get_args, overload

from steerlens.errors import UsageError
from steerlens.lenses import Strength
from steerlens.limits import over_limit
from steerlens.sites import Site, SiteKind

LensName = Literal["diffusion", "steering", "control", "foil", "total", "ablation", "total_control"]

LENS_NAMES: tuple[LensName, ...] = get_args(LensName)

REAL_PASSES: tuple[LensName, ...] = ("total", "ablation", "total_control")
"""Lenses whose embeddings come from real forward passes."""

CONTROLS: Mapping[LensName, LensName] = {"steering": "control", "total": "total_control"}
"""Steering lenses -> lens of their random directions."""

Effect = Literal["direct", "total"]

EFFECTS: tuple[Effect, ...] = get_args(Effect)

ABLATED = Strength("s", 0.0)
"""Strength of an ablation."""

_NOT_EXCHANGED = ("vector", "feature", "neuron")
"""Kinds without foils: a direction is the same for every input, a feature is silent on most."""


@dataclass(frozen=True)
class Cell:
    """One picture to decode.

    Attributes:
        picture: id of the input picture.
        lens: `diffusion`; `steering` (the direct effect) or `total` (everything downstream reacts); `control` or
            `total_control` for a random direction as strong as the site, under either; `ablation` for the embedding
            without the site, everything downstream reacting; `foil` for the same site's write for another input,
            steered as hard.
        site: site that the lens looks at.
        strength: steering strength; `s=0` for an ablation, None for the Diffusion Lens.
        seed: seed of the decoder.
        draw: number of the random direction of a control, from 0; for a foil, the number of inputs by which the other
            input follows this one, from 1 (`foil_of`).
    """

    picture: str
    lens: LensName
    site: Site
    strength: Strength | None
    seed: int
    draw: int = 0

    def __post_init__(self) -> None:
        if self.lens not in LENS_NAMES:  # cells are read from files, and lenses are used as folder names
            raise ValueError(f"there is no lens {self.lens!r}")

    @property
    def key(self) -> str:
        """Text that identifies the cell among all cells of all runs of a pair."""
        strength = "" if self.strength is None else str(self.strength)
        return "|".join((self.picture, self.lens, str(self.site), strength, str(self.seed), str(self.draw)))


@dataclass(frozen=True, eq=False)
class RepeatedCells(Sequence[Cell]):
    """Cells repeated for every picture, created on access: those of thousands of pictures would fill memory.

    Attributes:
        pictures: ids of the inputs.
        each: the cells of one picture, with an empty id.
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
        indices = range(len(self))[index]
        return self._at(indices) if isinstance(indices, int) else tuple(self._at(number) for number in indices)

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

    def _at(self, index: int) -> Cell:
        picture, cell = divmod(index, len(self.each))
        return _of_picture(self.each[cell], self.pictures[picture])


@dataclass(frozen=True, eq=False)
class CellsByPicture(Sequence[Cell]):
    """Cells that differ from picture to picture, such as those of the features active on each.

    Attributes:
        of_picture: id of an input -> its cells; inputs in order.
    """

    of_picture: Mapping[str, tuple[Cell, ...]]

    @cached_property
    def _all(self) -> tuple[Cell, ...]:
        return tuple(chain.from_iterable(self.of_picture.values()))

    def __len__(self) -> int:
        return sum(map(len, self.of_picture.values()))

    @overload
    def __getitem__(self, index: int) -> Cell: ...

    @overload
    def __getitem__(self, index: slice) -> tuple[Cell, ...]: ...

    def __getitem__(self, index: int | slice) -> Cell | tuple[Cell, ...]:
        return self._all[index]

    def __iter__(self) -> Iterator[Cell]:
        return chain.from_iterable(self.of_picture.values())

    def __eq__(self, other: object) -> bool:
        return isinstance(other, CellsByPicture | tuple) and self._all == tuple(other)


def _of_picture(cell: Cell, picture: str) -> Cell:
    return Cell(picture, cell.lens, cell.site, cell.strength, cell.seed, cell.draw)


def grouped(cells: Iterable[Cell]) -> dict[str, tuple[Cell, ...]]:
    """Cells by picture, in order."""
    by_picture: dict[str, list[Cell]] = {}
    for cell in cells:
        by_picture.setdefault(cell.picture, []).append(cell)
    return {picture: tuple(its_cells) for picture, its_cells in by_picture.items()}


def compact(cells: Sequence[Cell]) -> Sequence[Cell]:
    """Replaces cells that repeat from picture to picture by `RepeatedCells`; other cells stay as they are."""
    by_picture = {
        picture: tuple(replace(cell, picture="") for cell in its_cells) for picture, its_cells in grouped(cells).items()
    }
    if len(set(by_picture.values())) != 1:
        return cells
    same = RepeatedCells(tuple(by_picture), next(iter(by_picture.values())))
    return same if all(new == old for new, old in zip(same, cells, strict=True)) else cells


def cells_by_picture(cells: Sequence[Cell]) -> Sequence[Cell]:
    """Replaces cells that go picture by picture by `CellsByPicture`, to find those of one quickly; keeps others."""
    if isinstance(cells, RepeatedCells):
        return cells
    found = CellsByPicture(grouped(cells))
    return found if found == tuple(cells) else cells


@dataclass(frozen=True)
class Plan:
    """The cells of a run, each once, picture after picture.

    Attributes:
        cells: the cells to decode.
        strength: the steering strength.
        seeds: the seeds of the decoder.
        n_layers: layers that reach the decoder: L of the encoder, or fewer if tokens are read before its end. It
            determines which cell is the clean reconstruction.
    """

    cells: Sequence[Cell]
    strength: Strength
    seeds: tuple[int, ...]
    n_layers: int

    def __len__(self) -> int:
        return len(self.cells)

    @property
    def lenses(self) -> frozenset[LensName]:
        """Lenses that any cell has."""
        cells = self.cells.each if isinstance(self.cells, RepeatedCells) else self.cells
        return frozenset(cell.lens for cell in cells)

    @property
    def kinds(self) -> frozenset[SiteKind]:
        """Kinds of sites that any cell has."""
        cells = self.cells.each if isinstance(self.cells, RepeatedCells) else self.cells
        return frozenset(cell.site.kind for cell in cells)

    @property
    def pictures(self) -> tuple[str, ...]:
        """Ids of the input pictures, in order."""
        if isinstance(self.cells, RepeatedCells):
            return self.cells.pictures
        if isinstance(self.cells, CellsByPicture):
            return tuple(self.cells.of_picture)
        return tuple(dict.fromkeys(cell.picture for cell in self.cells))

    def of(self, picture: str) -> tuple[Cell, ...]:
        """The cells of one picture."""
        if isinstance(self.cells, RepeatedCells):
            return self.cells.of(picture)
        if isinstance(self.cells, CellsByPicture):
            return self.cells.of_picture[picture]
        return tuple(cell for cell in self.cells if cell.picture == picture)

    def by_picture(self) -> Iterator[tuple[str, tuple[Cell, ...]]]:
        """Cells of each picture, in order, created a picture at a time."""
        if isinstance(self.cells, RepeatedCells):
            for picture in self.cells.pictures:
                yield picture, self.cells.of(picture)
        elif isinstance(self.cells, CellsByPicture):
            yield from self.cells.of_picture.items()
        else:
            yield from grouped(self.cells).items()


def leading_lens(lens: LensName, planned: Collection[str]) -> LensName:
    """Lens whose ranking decides which sites are decoded under a lens.

    Controls and ablations follow their site. Where the direct effect is shown too, the total effect follows it, so that
    both are shown of the same sites.

    Args:
        lens: the lens.
        planned: all lenses of the plan.
    """
    if lens == "diffusion":
        return lens
    return "total" if lens in REAL_PASSES and "steering" not in planned else "steering"


def foil_of(inputs: Sequence[str], picture: str, draw: int) -> str:
    """Id of the input whose write a foil of a picture is steered with.

    Args:
        inputs: ids of all inputs of the run, in order; the first follows the last.
        picture: id of the picture.
        draw: of the foil's cell.

    Raises:
        UsageError: if the picture is not among them, or they are too few.
    """
    if picture not in inputs or not 0 < draw < len(inputs):
        raise UsageError(f"a foil of {picture} takes the write for another input, but there are {len(inputs)} inputs.")
    return inputs[(list(inputs).index(picture) + draw) % len(inputs)]


def clean_site(n_layers: int) -> Site:
    """Site whose Diffusion Lens picture is the clean reconstruction: the residual that the decoder itself reads."""
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
    effects: Sequence[Effect] = ("direct",),
    foils: int = 0,
    own: Mapping[str, Sequence[Site]] | None = None,
) -> Plan:
    """Plans the cells of every picture: its clean reconstruction, each site under each lens, and the controls.

    Sites of the residual stream are shown by the Diffusion Lens only. Equal cells are planned once.

    Args:
        pictures: ids of the inputs.
        sites: sites to look at.
        n_layers: layers that reach the decoder.
        strength: steering strength.
        seeds: seeds of the decoder, which all cells share, so that pictures differ only in their site.
        lenses: lenses to use.
        controls: number of random directions for each steered site and effect; 0 for none.
        effects: effects of steering: `direct`, or `total` with the ablation of each site, or both.
        foils: number of other inputs whose write each steered site is shown with, for its direct effect.
        own: id of an input -> sites that it is shown with besides, such as its active features.

    Raises:
        UsageError: if there is no picture, site or seed to plan for, no such lens, the number of controls is negative,
            the total effect is requested without the Steering Lens, or there are too few inputs for the foils.
    """
    if not pictures or not (sites or own) or not seeds:
        raise UsageError("nothing to do: at least one picture, one site and one seed are needed.")
    if unknown := [name for name in lenses if name not in ("diffusion", "steering")]:
        raise UsageError(f"there is no lens {unknown[0]!r}; known are diffusion, steering.")
    if controls < 0:
        raise UsageError(f"the number of controls cannot be negative, but it is {controls}.")
    inputs = tuple(dict.fromkeys(pictures))
    if foils < 0:
        raise UsageError(f"the number of foils cannot be negative, but it is {foils}.")
    if foils >= len(inputs):
        raise UsageError(
            f"foils show heads with their writes for other inputs: {foils} of them need {foils + 1} different inputs, "
            f"not {len(inputs)}."
        )
    rules = _Rules(strength, tuple(seeds), tuple(lenses), controls, tuple(effects), foils, n_layers)
    if "total" in effects and "steering" not in lenses:
        raise UsageError("the total effect is one of steering: name the Steering Lens too (--lens steering).")
    if own is None:
        return Plan(RepeatedCells(inputs, rules.cells(sites)), strength, tuple(seeds), n_layers)
    of_picture = {id: tuple(_of_picture(cell, id) for cell in rules.cells([*sites, *own.get(id, ())])) for id in inputs}
    return Plan(CellsByPicture(of_picture), strength, tuple(seeds), n_layers)


@dataclass(frozen=True)
class _Rules:
    """What is decoded of each site; see `make_plan`."""

    strength: Strength
    seeds: tuple[int, ...]
    lenses: tuple[LensName, ...]
    controls: int
    effects: tuple[Effect, ...]
    foils: int
    n_layers: int

    def cells(self, sites: Sequence[Site]) -> tuple[Cell, ...]:
        """The cells of one picture, with an empty id.

        Raises:
            UsageError: if there is nothing to show, or too much.
        """
        steered = [site for site in sites if site.is_write] if "steering" in self.lenses else []
        exchanged = [site for site in steered if site.kind not in _NOT_EXCHANGED] if "direct" in self.effects else []
        shown = list(sites) if "diffusion" in self.lenses else []
        if not steered and not shown:
            raise UsageError(
                "the Steering Lens alone was requested, but no site that it can steer: name heads, attn_out.N, "
                "mlp_out.N or a direction; only the Diffusion Lens shows the residual stream."
            )
        if clean_site(self.n_layers) not in shown:
            shown.insert(0, clean_site(self.n_layers))
        of_sites = len(steered) * _cells_of_a_site(self.effects, self.controls) + len(exchanged) * self.foils
        if words := over_limit("cells", len(self.seeds) * (len(shown) + of_sites)):
            raise UsageError(f"the plan has, for each input, {words}. Name fewer sites, seeds or controls.")
        each: dict[Cell, None] = {}
        for seed in self.seeds:
            for site in shown:
                each[Cell("", "diffusion", site, None, seed)] = None
            lens: LensName
            for lens in ("steering", "total"):
                if ("direct" if lens == "steering" else "total") not in self.effects:
                    continue
                for site in steered:
                    each[Cell("", lens, site, self.strength, seed)] = None
                for site in steered if lens == "total" else ():
                    each[Cell("", "ablation", site, ABLATED, seed)] = None
                for site in steered:
                    for draw in range(self.controls):
                        each[Cell("", CONTROLS[lens], site, self.strength, seed, draw)] = None
                for site in exchanged if lens == "steering" else ():
                    for draw in range(1, self.foils + 1):
                        each[Cell("", "foil", site, self.strength, seed, draw)] = None
        return tuple(each)


def _cells_of_a_site(effects: Collection[Effect], controls: int) -> int:
    return sum(1 + controls + int(effect == "total") for effect in effects)
