"""The atlas: results of a sweep by picture, lens and site, without any drawing."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import chain, groupby, islice
from typing import Any, Self

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from steerlens.atlas.cards import InputCards
from steerlens.atlas.domain import DomainCheck, check_domain
from steerlens.atlas.lazy import Lazy
from steerlens.atlas.plan import CONTROLS, Cell, LensName, Plan, clean_site
from steerlens.atlas.results import CellResult, LazyResults, Reading, SiteScore
from steerlens.atlas.tables import Rows, arrow_table, pandas_frame, polars_frame
from steerlens.decoders import DecoderSpec
from steerlens.encoders import EncoderSpec
from steerlens.errors import UsageError
from steerlens.printable import counted
from steerlens.scores import seed_agreement, share_beaten
from steerlens.sites import Site, SiteLike, as_site

_INDEXED_PICTURES = 4
"""Input pictures whose index by site is cached; reports go picture by picture."""

_RANKING: tuple[LensName, ...] = ("steering", "total", "diffusion")
"""Lenses that rank heads, the first that a run has."""


@dataclass(frozen=True, eq=False)
class Atlas:
    """Results of a sweep: for every input picture, every site under every lens.

    The atlas of a stored run reads readings and results from disk on access.

    Attributes:
        encoder: sizes of the encoder.
        decoder: sizes of the decoder and the conditioning that it consumes.
        plan: the planned cells.
        readings: the reading of each input picture.
        results: the decoded pictures.
        manifest: versions, models and options of the run.
        cards: id of an input -> cards of its best heads, if they were made.
    """

    encoder: EncoderSpec
    decoder: DecoderSpec
    plan: Plan
    readings: Sequence[Reading]
    results: Sequence[CellResult]
    manifest: Mapping[str, Any] = field(default_factory=dict)
    cards: Mapping[str, InputCards] = field(default_factory=dict[str, InputCards], repr=False)

    def __repr__(self) -> str:
        inputs, decoded = counted(len(self.readings), "input"), counted(len(self.results), "decoded picture")
        return f"Atlas({inputs}, {decoded}, {self.encoder.name})"

    @cached_property
    def finished(self) -> Sequence[Cell]:
        """Cells that have been decoded, in the order of `results`."""
        results = self.results
        return results.cells if isinstance(results, LazyResults) else [result.cell for result in results]

    def only(self, pictures: Sequence[str]) -> Self:
        """Atlas of some of the input pictures, in the order of the run.

        Args:
            pictures: ids or names.

        Raises:
            UsageError: if there is no such picture.
        """
        ids = {self.id_of(picture) for picture in pictures}
        rows = [row for id in self._rows if id in ids for row in self._rows_of(id)]
        cells = tuple(cell for id in self.plan.pictures if id in ids for cell in self.plan.of(id))
        matching = (index for index, reading in enumerate(self.readings) if reading.id in ids)
        read = list(islice(matching, len(ids)))  # stops early, to avoid reading thousands of readings
        return replace(
            self,
            plan=replace(self.plan, cells=cells),
            readings=Lazy(len(read), lambda index: self.readings[read[index]]),
            results=LazyResults([self.finished[row] for row in rows], lambda index: self.results[rows[index]]),
        )

    def id_of(self, picture: str | None = None) -> str:
        """Id of an input picture, by id or name; by default of the first.

        Raises:
            UsageError: if there is no such picture.
        """
        return picture if picture is not None and picture in self._rows else self.reading(picture).id

    def reading(self, picture: str | None = None) -> Reading:
        """Reading of an input picture, by id or name; by default of the first.

        Raises:
            UsageError: if there is no such picture.
        """
        places = self._places
        if picture in places and places[picture] < len(self.readings):
            reading = self.readings[places[picture]]
            if reading.id == picture:  # not in an unfinished run, whose readings may be fewer than its inputs
                return reading
        for reading in self.readings:
            if picture is None or picture in (reading.id, reading.picture.name):
                return reading
        raise UsageError(f"no input picture is called {picture!r}.")

    def cells(self, lens: LensName, site: SiteLike, picture: str | None = None) -> tuple[CellResult, ...]:
        """Decoded pictures of a site under a lens, seed after seed; empty if there are none."""
        rows = self._sites_of(self.id_of(picture)).get((lens, as_site(site)), ())
        return tuple(self.results[row] for row in rows)

    def results_of(self, picture: str | None = None) -> Sequence[CellResult]:
        """All decoded pictures of an input picture."""
        rows = self._rows_of(self.id_of(picture))
        return LazyResults([self.finished[row] for row in rows], lambda index: self.results[rows[index]])

    def clean(self, picture: str | None = None) -> tuple[CellResult, ...]:
        """Clean reconstructions (s = 1), seed after seed."""
        return self.cells("diffusion", clean_site(self.plan.n_layers), picture)

    def sites(self, lens: LensName, picture: str | None = None) -> tuple[Site, ...]:
        """Sites of a lens, in order."""
        return tuple(site for name, site in self._sites_of(self.id_of(picture)) if name == lens)

    def score(self, lens: LensName, site: SiteLike, picture: str | None = None) -> SiteScore:
        """Scores of a site under a lens, over all seeds, and of its controls.

        Raises:
            UsageError: if the run has no picture of that site under that lens.
        """
        site = as_site(site)
        results = self.cells(lens, site, picture)
        if not results:
            raise UsageError(f"this run has no {lens} picture of {site}.")
        similarity = _mean([result.similarity for result in results])
        random = CONTROLS.get(lens)
        controls = [] if random is None else [result.similarity for result in self.cells(random, site, picture)]
        pool = self._control_pool(self.id_of(picture), random) if random is not None and controls else None
        foils = [result.similarity for result in self.cells("foil", site, picture)] if lens == "steering" else []
        return SiteScore(
            site=site,
            lens=lens,
            similarity=similarity,
            steered_similarity=results[0].steered_similarity,
            fidelity=_mean([result.fidelity for result in results]),
            agreement=seed_agreement(torch.stack([result.reencoded for result in results])),
            rho=results[0].rho,
            control=_mean(controls) if controls else None,
            beats_control=similarity > _mean(controls) if controls else None,
            control_share=None if pool is None else share_beaten(similarity, pool),
            foil=_mean(foils) if foils else None,
            beats_foil=similarity > _mean(foils) if foils else None,
            direct_cosine=results[0].direct_cosine,
            change_cosine=results[0].change_cosine,
            cells=results,
        )

    def ranked(
        self, lens: LensName = "steering", picture: str | None = None, *, kind: str = "head", k: int | None = None
    ) -> tuple[SiteScore, ...]:
        """Ranks the decoded sites of one kind by similarity of their pictures with the target, best first.

        Sites that were not decoded are left out; `score_map(decoded=False)` and `to_arrow` have all heads.

        Args:
            lens: `steering`, `diffusion`, `total` or `ablation`.
            picture: id or name of the input; by default the first.
            kind: kind of the sites: `head`, `mlp_out`, `attn_out`, `resid_post`, `vector`, ...
            k: number of sites; None for all.
        """
        scores = [self.score(lens, site, picture) for site in self.sites(lens, picture) if site.kind == kind]
        scores.sort(key=lambda score: -score.similarity)
        return tuple(scores[:k])

    def ranking_lens(self, picture: str | None = None) -> LensName | None:
        """Lens by which pages and cards rank the heads of an input; None if no picture of a head was decoded.

        Args:
            picture: id or name of the input; by default the first.

        Raises:
            UsageError: if there is no such input.
        """
        shown = {lens for lens, site in self._sites_of(self.id_of(picture)) if site.kind == "head"}
        return next((lens for lens in _RANKING if lens in shown), None)

    def score_map(
        self, lens: LensName = "steering", picture: str | None = None, *, decoded: bool = True
    ) -> Float[np.ndarray, "L H"]:
        """Similarity of every head with the target; NaN for heads that the run did not look at.

        Args:
            lens: the lens.
            picture: id or name of the input.
            decoded: True for the re-encoded picture; False for the embedding before decoding, which the Steering Lens
                computes for every head, decoded or not.
        """
        known = self.reading(picture).steered_similarity
        if lens == "steering" and not decoded and known is not None:
            return known.double().numpy()
        scores = np.full((self.encoder.n_layers, self.encoder.n_heads), np.nan)
        for score in self.ranked(lens, picture):
            value = score.similarity if decoded else score.steered_similarity
            scores[score.site.layer, score.site.head] = value
        return scores

    def domain(self, picture: str | None = None) -> DomainCheck | None:
        """Compares an input with the reference pictures of the pair; None if there are no reference statistics.

        Args:
            picture: id or name of the input; by default the first.
        """
        return check_domain(self, picture)

    def to_arrow(self, rows: Rows = "scores", *, images: bool = False) -> Any:
        """Returns a `pyarrow.Table`.

        Columns of both: `picture`, `id`, `lens`, `site`, `kind`, `layer`, `head`, `rho`, `similarity` (of the decoded
        picture with the target), `steered_similarity` (before decoding), `fidelity`, `direct_cosine`, `change_cosine`,
        and `image` if pictures are added. Of `scores` alone: `agreement` (empty with one seed), `control`,
        `beats_control`, `control_share`, `foil`, `beats_foil`, `ablation_effect`, `label`. Of `cells` alone:
        `strength`, `seed`, `draw`. `docs/tables.md` says what each means.

        Args:
            rows: `scores`, a row for each input, lens and site, over all seeds, also for heads that the Steering Lens
                ranked, or that were ablated, but that were not decoded, with empty columns for their
                pictures; or `cells`, a row for each decoded picture, controls among them.
            images: add the decoded pictures as the bytes of PNG files.
        """
        return arrow_table(self, rows, images=images)

    def to_pandas(self, rows: Rows = "scores", *, images: bool = False) -> Any:
        """Returns a `pandas.DataFrame`; arguments as in `to_arrow`.

        Raises:
            UsageError: if pandas is not installed.
        """
        return pandas_frame(self.to_arrow(rows, images=images))

    def to_polars(self, rows: Rows = "scores", *, images: bool = False) -> Any:
        """Returns a `polars.DataFrame`; arguments as in `to_arrow`.

        Raises:
            UsageError: if polars is not installed.
        """
        return polars_frame(self.to_arrow(rows, images=images))

    @cached_property
    def _rows(self) -> dict[str, list[range]]:
        """Rows of the results of each input picture; usually a single range, as the plan goes picture by picture."""
        rows: dict[str, list[range]] = {}
        for id, run in groupby(enumerate(self.finished), key=lambda row: row[1].picture):
            numbers = [row for row, _ in run]
            rows.setdefault(id, []).append(range(numbers[0], numbers[-1] + 1))
        return rows

    @cached_property
    def _places(self) -> dict[str | None, int]:
        """Place of each input picture in the plan, by id: a search through stored readings reads every one of them."""
        return {id: place for place, id in enumerate(self.plan.pictures)}

    def _rows_of(self, id: str) -> list[int]:
        return list(chain.from_iterable(self._rows.get(id, ())))

    @cached_property
    def _sites(self) -> dict[str, dict[tuple[LensName, Site], list[int]]]:
        """Rows of each site of the last few input pictures."""
        return {}

    def _sites_of(self, id: str) -> dict[tuple[LensName, Site], list[int]]:
        if id not in self._sites:
            if len(self._sites) == _INDEXED_PICTURES:
                self._sites.clear()
            grouped: dict[tuple[LensName, Site], list[int]] = {}
            for row in self._rows_of(id):
                cell = self.finished[row]
                grouped.setdefault((cell.lens, cell.site), []).append(row)
            self._sites[id] = grouped
        return self._sites[id]

    @cached_property
    def _control_pools(self) -> dict[tuple[str, LensName], Tensor]:
        """Similarities of the controls of the last few input pictures."""
        return {}

    def _control_pool(self, id: str, random: LensName) -> Tensor:
        """Score of every random direction of a picture under a lens, of all sites and draws: mean over seeds."""
        if (id, random) not in self._control_pools:
            if len(self._control_pools) >= _INDEXED_PICTURES * len(CONTROLS):
                self._control_pools.clear()
            by_draw: dict[tuple[Site, int], list[float]] = {}
            for (lens, site), rows in self._sites_of(id).items():
                for row in rows if lens == random else ():
                    by_draw.setdefault((site, self.finished[row].draw), []).append(self.results[row].similarity)
            means = [_mean(values) for values in by_draw.values()]
            self._control_pools[id, random] = torch.tensor(means, dtype=torch.float64)
        return self._control_pools[id, random]


def _mean(values: Sequence[float]) -> float:
    return float(np.mean(values))
