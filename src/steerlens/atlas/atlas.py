"""The atlas: what a run found, as data; it draws nothing."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import chain, groupby, islice
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Float16, UInt8
from PIL import Image
from torch import Tensor

from steerlens.atlas.lazy import Lazy
from steerlens.atlas.plan import Cell, LensName, Plan, clean_site
from steerlens.decoders.base import DecoderSpec
from steerlens.encoders.base import EncoderSpec
from steerlens.errors import UsageError
from steerlens.images import Picture, stored_picture
from steerlens.lenses.logit import Label
from steerlens.scores import seed_agreement, share_beaten
from steerlens.sites import Site


@dataclass(frozen=True, eq=False)
class CellResult:
    """One decoded picture with its numbers; every similarity is a cosine in [-1,1].

    Attributes:
        cell: what was asked for.
        rho: relative steering strength that was applied, signed; 0 for the Diffusion Lens.
        file: the decoded picture as the bytes of a PNG file, or what reads them: a run of the paper's model holds
            thousands, of 0.8 MB each in pixels.
        conditioning: the image embedding that was decoded; for a decoder of image tokens, their mean over tokens, since
            the tokens themselves would take megabytes a picture.
        reencoded: the image embedding of the decoded picture.
        similarity: of `reencoded` with the target.
        steered_similarity: of `conditioning` with the target: the same number without decoding. For a decoder of image
            tokens, of all tokens that were decoded with those of the target, token by token (the cosine of the
            flattened tokens); NaN if the target is a text, which has none.
        fidelity: of `conditioning` with `reencoded`: how well the picture shows what was asked for. For a decoder of
            image tokens, of all tokens that were decoded with those of the decoded picture, token by token.
    """

    cell: Cell
    rho: float
    file: bytes | Callable[[], bytes] = field(repr=False)
    conditioning: Float[Tensor, "E"]
    reencoded: Float[Tensor, "E"]
    similarity: float
    steered_similarity: float
    fidelity: float

    @property
    def png(self) -> bytes:
        """The decoded picture as the bytes of a PNG file."""
        return self.file if isinstance(self.file, bytes) else self.file()

    @property
    def image(self) -> Image.Image:
        """The decoded picture as a PIL image."""
        return stored_picture(self.png)

    @property
    def picture(self) -> UInt8[np.ndarray, "height width 3"]:
        """The decoded picture, height x width x RGB."""
        return np.array(self.image)


@dataclass(frozen=True, eq=False)
class Reading:
    """What was found about one input picture before any decoding.

    Attributes:
        picture: the input.
        id: its name in cells.
        embedding: its image embedding.
        target: what similarities are measured against, in words ("the input itself", a text, a file name).
        target_similarity: cosine of the input's embedding with the target; 1 for the input itself.
        labels: Logit Lens readings, site after site, best label first; empty without a vocabulary.
        attention: attention of the readout tokens to every token, mean over readout tokens, or None.
        write_norms: norm of each head's write relative to the final residual, means over width removed.
        direct_similarity: cosine of each head's write with the final residual, means over width removed.
        decomposition_error: relative error of the sum of all components against the final residual.
        steered_similarity: cosine of every head's steered embedding with the target, which takes no decoding; None for
            a decoder of image tokens.
    """

    picture: Picture
    id: str
    embedding: Float[Tensor, "E"]
    target: str
    target_similarity: float
    labels: tuple[Label, ...]
    attention: Float16[Tensor, "L H T"] | None
    write_norms: Float[Tensor, "L H"]
    direct_similarity: Float[Tensor, "L H"]
    decomposition_error: float
    steered_similarity: Float[Tensor, "L H"] | None = None

    def top_labels(self, site: Site) -> tuple[Label, ...]:
        """The labels of one site, best first."""
        return self._labels_of.get(site, ())

    @cached_property
    def _labels_of(self) -> dict[Site, tuple[Label, ...]]:
        grouped: dict[Site, tuple[Label, ...]] = {}
        for label in self.labels:
            grouped[label.site] = (*grouped.get(label.site, ()), label)
        return grouped


@dataclass(frozen=True)
class SiteScore:
    """A site under a lens, over all seeds.

    Attributes:
        site: where the lens looked.
        lens: which lens.
        similarity: of the re-encoded pictures with the target, mean over seeds.
        steered_similarity: of the embedding with the target, without decoding.
        fidelity: cosine between the embedding asked for and the re-encoded picture, mean over seeds.
        agreement: mean pairwise cosine between the pictures of different seeds; 1 for one seed.
        rho: relative steering strength, signed; 0 for the Diffusion Lens.
        control: mean similarity of the site's own random directions, or None without controls.
        beats_control: whether `similarity` exceeds `control`; None without controls.
        control_share: share of the picture's random directions, of all sites and draws, that score lower; both scores
            are means over seeds, and ties count half. None without controls. Comparable across sites when every site is
            steered by the same `rho`.
    """

    site: Site
    lens: LensName
    similarity: float
    steered_similarity: float
    fidelity: float
    agreement: float
    rho: float
    control: float | None = None
    beats_control: bool | None = None
    control_share: float | None = None


class LazyResults(Lazy[CellResult]):
    """Decoded pictures that are read when they are asked for; of which cells they are is known without reading any.

    Args:
        cells: of each result, its cell.
        read: gives the result at an index from 0.
    """

    def __init__(self, cells: Sequence[Cell], read: Callable[[int], CellResult]) -> None:
        super().__init__(len(cells), read)
        self.cells = cells


_PICTURES_HELD = 4
"""Input pictures of which it is remembered where the results of every site are; reports go picture by picture."""


@dataclass(frozen=True, eq=False)
class Atlas:
    """Everything a run found: for every input picture, every site under every lens.

    One of a stored run reads readings and results when they are asked for.

    Attributes:
        encoder: sizes of the encoder.
        decoder: what the decoder takes and gives.
        plan: what was asked for.
        readings: one an input picture.
        results: the decoded pictures.
        manifest: versions, models, options: all that is needed to look again.
    """

    encoder: EncoderSpec
    decoder: DecoderSpec
    plan: Plan
    readings: Sequence[Reading]
    results: Sequence[CellResult]
    manifest: Mapping[str, Any] = field(default_factory=dict)

    def __repr__(self) -> str:
        return f"Atlas({len(self.readings)} input pictures, {len(self.results)} decoded pictures, {self.encoder.name})"

    @cached_property
    def finished(self) -> Sequence[Cell]:
        """The cells that have been decoded, in the order of `results`."""
        results = self.results
        return results.cells if isinstance(results, LazyResults) else [result.cell for result in results]

    def only(self, pictures: Sequence[str]) -> "Atlas":
        """The atlas of some of the input pictures, in the order of the run.

        Args:
            pictures: ids or names.

        Raises:
            UsageError: if there is no such picture.
        """
        chosen = {self.id_of(picture) for picture in pictures}
        rows = [row for id in self._rows if id in chosen for row in self._rows_of(id)]
        cells = tuple(cell for id in self.plan.pictures if id in chosen for cell in self.plan.of(id))
        matching = (index for index, reading in enumerate(self.readings) if reading.id in chosen)
        read = list(islice(matching, len(chosen)))  # the first few of thousands are found without reading the rest
        return replace(
            self,
            plan=replace(self.plan, cells=cells),
            readings=Lazy(len(read), lambda index: self.readings[read[index]]),
            results=LazyResults([self.finished[row] for row in rows], lambda index: self.results[rows[index]]),
        )

    def id_of(self, picture: str | None = None) -> str:
        """The id of an input picture, by id or name; that of the first one by default.

        Raises:
            UsageError: if there is no such picture.
        """
        return picture if picture is not None and picture in self._rows else self.reading(picture).id

    def reading(self, picture: str | None = None) -> Reading:
        """The reading of one input picture, by id or name; the first one by default.

        Raises:
            UsageError: if there is no such picture.
        """
        for reading in self.readings:
            if picture is None or picture in (reading.id, reading.picture.name):
                return reading
        raise UsageError(f"no input picture is called {picture!r}.")

    def cells(self, lens: LensName, site: Site, picture: str | None = None) -> tuple[CellResult, ...]:
        """The decoded pictures of one site under one lens, seed after seed; empty if it was not asked for."""
        rows = self._sites_of(self.id_of(picture)).get((lens, site), ())
        return tuple(self.results[row] for row in rows)

    def results_of(self, picture: str | None = None) -> Sequence[CellResult]:
        """All decoded pictures of one input picture."""
        rows = self._rows_of(self.id_of(picture))
        return LazyResults([self.finished[row] for row in rows], lambda index: self.results[rows[index]])

    def clean(self, picture: str | None = None) -> tuple[CellResult, ...]:
        """The clean reconstructions (s = 1), seed after seed."""
        return self.cells("diffusion", clean_site(self.plan.n_layers), picture)

    def sites(self, lens: LensName, picture: str | None = None) -> tuple[Site, ...]:
        """The sites that a lens was asked about, in order."""
        return tuple(site for name, site in self._sites_of(self.id_of(picture)) if name == lens)

    def score(self, lens: LensName, site: Site, picture: str | None = None) -> SiteScore:
        """A site under a lens, over all seeds, beside its controls.

        Raises:
            UsageError: if the run does not hold that site under that lens.
        """
        found = self.cells(lens, site, picture)
        if not found:
            raise UsageError(f"this run holds no {lens} picture of {site}.")
        similarity = _mean([result.similarity for result in found])
        own = [result.similarity for result in self.cells("control", site, picture)] if lens == "steering" else []
        pool = self._control_pool(self.id_of(picture)) if own else None
        return SiteScore(
            site=site,
            lens=lens,
            similarity=similarity,
            steered_similarity=found[0].steered_similarity,
            fidelity=_mean([result.fidelity for result in found]),
            agreement=seed_agreement(torch.stack([result.reencoded for result in found])),
            rho=found[0].rho,
            control=_mean(own) if own else None,
            beats_control=similarity > _mean(own) if own else None,
            control_share=None if pool is None else share_beaten(similarity, pool),
        )

    def ranked(
        self, lens: LensName = "steering", picture: str | None = None, *, kind: str = "head", k: int | None = None
    ) -> tuple[SiteScore, ...]:
        """Sites of one kind by similarity of their decoded pictures with the target, best first."""
        scores = [self.score(lens, site, picture) for site in self.sites(lens, picture) if site.kind == kind]
        scores.sort(key=lambda score: -score.similarity)
        return tuple(scores[:k])

    def score_map(
        self, lens: LensName = "steering", picture: str | None = None, *, decoded: bool = True
    ) -> Float[np.ndarray, "L H"]:
        """Similarity with the target of every head, NaN where a head was not looked at.

        Args:
            lens: which lens.
            picture: which input.
            decoded: of the re-encoded picture, or of the embedding before decoding: under the Steering Lens that is
                known of every head, decoded or not.
        """
        known = self.reading(picture).steered_similarity
        if lens == "steering" and not decoded and known is not None:
            return known.double().numpy()
        scores = np.full((self.encoder.n_layers, self.encoder.n_heads), np.nan)
        for score in self.ranked(lens, picture):
            value = score.similarity if decoded else score.steered_similarity
            scores[score.site.layer, score.site.head] = value
        return scores

    @cached_property
    def _rows(self) -> dict[str, list[range]]:
        """Of each input picture, where its results are; mostly one after the other, since they are planned so."""
        rows: dict[str, list[range]] = {}
        for id, run in groupby(enumerate(self.finished), key=lambda row: row[1].picture):
            places = [row for row, _ in run]
            rows.setdefault(id, []).append(range(places[0], places[-1] + 1))
        return rows

    def _rows_of(self, id: str) -> list[int]:
        return list(chain.from_iterable(self._rows.get(id, ())))

    @cached_property
    def _sites(self) -> dict[str, dict[tuple[LensName, Site], list[int]]]:
        """Of the last few input pictures, where the results of each site are."""
        return {}

    def _sites_of(self, id: str) -> dict[tuple[LensName, Site], list[int]]:
        if id not in self._sites:
            if len(self._sites) == _PICTURES_HELD:
                self._sites.clear()
            grouped: dict[tuple[LensName, Site], list[int]] = {}
            for row in self._rows_of(id):
                cell = self.finished[row]
                grouped.setdefault((cell.lens, cell.site), []).append(row)
            self._sites[id] = grouped
        return self._sites[id]

    @cached_property
    def _control_pools(self) -> dict[str, Tensor]:
        """Of the last few input pictures, what their controls score."""
        return {}

    def _control_pool(self, id: str) -> Tensor:
        """The score of every random direction of a picture, of all sites and draws: its mean over seeds."""
        if id not in self._control_pools:
            if len(self._control_pools) == _PICTURES_HELD:
                self._control_pools.clear()
            by_draw: dict[tuple[Site, int], list[float]] = {}
            for (lens, site), rows in self._sites_of(id).items():
                for row in rows if lens == "control" else ():
                    by_draw.setdefault((site, self.finished[row].draw), []).append(self.results[row].similarity)
            self._control_pools[id] = torch.tensor([_mean(values) for values in by_draw.values()], dtype=torch.float64)
        return self._control_pools[id]


def _mean(values: Sequence[float]) -> float:
    return float(np.mean(values))
