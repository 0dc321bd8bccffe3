"""Results of a sweep as data: decoded pictures, readings and scores of sites."""

from collections.abc import Callable, Sequence
from dataclasses import InitVar, dataclass, field
from functools import cached_property
from typing import cast

import numpy as np
from jaxtyping import Float, Float16, UInt8
from PIL import Image
from torch import Tensor

from steerlens.atlas.lazy import Lazy
from steerlens.atlas.plan import Cell, LensName
from steerlens.errors import UsageError
from steerlens.images import Picture, stored_picture
from steerlens.lenses import Label
from steerlens.sites import Site, SiteLike, as_site


@dataclass(frozen=True, eq=False, repr=False)
class CellResult:
    """Decoded picture with its numbers; every similarity is a cosine in [-1,1].

    Attributes:
        cell: cell of the plan.
        rho: signed relative steering strength applied; 0 for the Diffusion Lens.
        file: bytes of a PNG file of the decoded picture, or a function that reads them: a run of the paper's model
            has thousands of pictures, of 0.8 MB each in pixels.
        conditioning: image embedding that was decoded; for a decoder of image tokens, their mean over tokens, since
            the tokens themselves would take megabytes per picture.
        reencoded: image embedding of the decoded picture.
        similarity: cosine of `reencoded` and the target.
        steered_similarity: cosine of `conditioning` and the target, the similarity before decoding. For a decoder of
            image tokens, the cosine of all decoded tokens, flattened, with those of the target; NaN for a text, which
            has no tokens.
        fidelity: cosine of `conditioning` and `reencoded`, which measures how well the picture shows its conditioning.
            For a decoder of image tokens, the cosine of all decoded tokens, flattened, with those of the decoded
            picture.
        direct_cosine: for `total` and `ablation`, cosine of `conditioning` with that of the same change made directly,
            everything downstream frozen; None for other lenses. Image tokens are flattened.
        change_cosine: the same between both changes, each conditioning minus the clean one; None for other lenses, and
            where a change is too small to tell from rounding.
    """

    cell: Cell
    rho: float
    file: bytes | Callable[[], bytes] = field(repr=False)
    conditioning: Float[Tensor, "E"]
    reencoded: Float[Tensor, "E"]
    similarity: float
    steered_similarity: float
    fidelity: float
    direct_cosine: float | None = None
    change_cosine: float | None = None

    def __repr__(self) -> str:
        return (
            f"CellResult({self.cell.lens} {self.cell.site.label}, seed {self.cell.seed}: similarity "
            f"{self.similarity:.2f}, fidelity {self.fidelity:.2f}, rho {self.rho:.2f})"
        )

    @property
    def png(self) -> bytes:
        """Decoded picture as the bytes of a PNG file."""
        return self.file if isinstance(self.file, bytes) else self.file()

    @property
    def image(self) -> Image.Image:
        """Decoded picture as a PIL image."""
        return stored_picture(self.png)

    @property
    def picture(self) -> UInt8[np.ndarray, "height width 3"]:
        """Decoded picture, height x width x RGB."""
        return np.array(self.image)


@dataclass(frozen=True, eq=False)
class UnitReading:
    """Measurements of one unit on one input, which need no decoding: a neuron, or a part of a sparse autoencoder.

    Attributes:
        site: the neuron or feature, or the error or the bias of an autoencoder.
        activation: its activation on the readout token, the mean over several; None for an error or a bias.
        effect: length of the change of the embedding when its write is taken out, relative to the embedding; from 0.
        similarity: cosine in [-1,1] of the steered embedding with the target.
        tokens: activation on every token; of an error or a bias, the norm of its write there. None where the unit is
            one of the embedding itself.
        second_order: of a neuron, the effect of what later attention makes of its write, patterns and norms frozen, in
            the measure of `effect`; None where it was not measured.
        together: of a neuron, that effect and the direct one taken out together.
        ablated: of a neuron, the effect of zeroing it on every token of a real forward pass.
    """

    site: Site
    activation: float | None
    effect: float
    similarity: float
    tokens: Float[Tensor, "T"] | None = None
    second_order: float | None = None
    together: float | None = None
    ablated: float | None = None


@dataclass(frozen=True, eq=False, repr=False)
class Reading:
    """Measurements of an input picture that need no decoding.

    Attributes:
        picture: the input.
        id: id of the input in cells.
        embedding: image embedding of the input.
        target: target of the similarities in words ("the input itself", a text, a file name).
        target_similarity: cosine of the input's embedding with the target; 1 for the input itself.
        labels: Logit Lens labels, site after site, best label first; empty without a vocabulary.
        attention: attention of the readout tokens to every token, mean over readout tokens, or None.
        write_norms: norm of each head's write relative to that of the final residual, means over width removed.
        direct_similarity: cosine of each head's write with the final residual, means over width removed.
        decomposition_error: relative error of the sum of all components against the final residual.
        steered_similarity: cosine of every head's steered embedding with the target, before decoding; None for a
            decoder of image tokens.
        ablation_effects: `1 - cos(e, e')` in [0,2] for every head, with e the input's embedding and e' the embedding
            of a real forward pass without the head; None in a run without total effects of heads.
        unusual: percentage of the pair's reference pictures that are less unusual than the input, in [0,100]; None if
            the pair has no reference statistics.
        units: measurements of the neurons and features of the plan, in its order.
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
    ablation_effects: Float[Tensor, "L H"] | None = None
    unusual: float | None = None
    units: tuple[UnitReading, ...] = ()

    def __repr__(self) -> str:
        L, H = self.write_norms.shape
        return f"Reading({self.picture.name}: {L} layers x {H} heads, {len(self.labels)} labels, target: {self.target})"

    def top_labels(self, site: SiteLike) -> tuple[Label, ...]:
        """Labels of a site, best first."""
        return self._labels_of.get(as_site(site), ())

    def unit(self, site: SiteLike) -> UnitReading | None:
        """Measurements of a neuron or feature; None if the run did not look at it."""
        wanted = as_site(site)
        return next((unit for unit in self.units if unit.site == wanted), None)

    @cached_property
    def _labels_of(self) -> dict[Site, tuple[Label, ...]]:
        grouped: dict[Site, tuple[Label, ...]] = {}
        for label in self.labels:
            grouped[label.site] = (*grouped.get(label.site, ()), label)
        return grouped


@dataclass(frozen=True, repr=False)
class SiteScore:
    """Scores of a site under a lens, over all seeds.

    Attributes:
        site: the site.
        lens: the lens.
        similarity: cosine of the re-encoded pictures and the target, mean over seeds.
        steered_similarity: cosine of the embedding and the target, before decoding.
        fidelity: cosine of the decoded embedding and the re-encoded picture, mean over seeds.
        agreement: mean pairwise cosine between the pictures of different seeds; 1 for one seed.
        rho: relative steering strength, signed; 0 for the Diffusion Lens.
        control: mean similarity of the site's own random directions, or None without controls.
        beats_control: True if `similarity` exceeds `control`; None without controls.
        foil: mean similarity of the site's writes for other inputs, steered as hard, or None without foils.
        beats_foil: True if `similarity` exceeds `foil`; None without foils.
        control_share: share of the picture's random directions, of all sites and draws, that score lower. Both scores
            are means over seeds; ties count half; None without controls. Comparable across sites if every site is
            steered by the same `rho`.
        direct_cosine: for `total` and `ablation`, cosine of the embedding with that of the direct effect, before
            decoding.
        change_cosine: the same between the changes of the clean embedding.
        cells: the decoded pictures; see `images`.
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
    foil: float | None = None
    beats_foil: bool | None = None
    direct_cosine: float | None = None
    change_cosine: float | None = None
    cells: InitVar[Sequence[CellResult]] = ()

    def __post_init__(self, cells: Sequence[CellResult]) -> None:
        # Not a field: a score is copied into tables and JSON, and pictures are not part of it.
        object.__setattr__(self, "_cells", tuple(cells))

    def __repr__(self) -> str:
        control = "" if self.control is None else f", control {self.control:.2f}"
        return (
            f"SiteScore({self.site.label}, {self.lens}: similarity {self.similarity:.2f}{control}, before decoding "
            f"{self.steered_similarity:.2f}, fidelity {self.fidelity:.2f}, rho {self.rho:.2f})"
        )

    @property
    def pngs(self) -> tuple[bytes, ...]:
        """Decoded pictures as the bytes of PNG files, seed after seed.

        Raises:
            UsageError: if the score was made without pictures.
        """
        cells = cast(tuple[CellResult, ...], vars(self)["_cells"])
        if not cells:
            raise UsageError(f"the score of {self.site} was made without pictures; take it from Atlas.score.")
        return tuple(cell.png for cell in cells)

    @property
    def images(self) -> tuple[Image.Image, ...]:
        """Decoded pictures, seed after seed."""
        return tuple(stored_picture(png) for png in self.pngs)

    @property
    def image(self) -> Image.Image:
        """Decoded picture of the first seed."""
        return self.images[0]


class LazyResults(Lazy[CellResult]):
    """Decoded pictures that are read from disk on access; their cells are known without reading.

    Args:
        cells: cell of each result.
        read: reads the result at an index from 0.
    """

    def __init__(self, cells: Sequence[Cell], read: Callable[[int], CellResult]) -> None:
        super().__init__(len(cells), read)
        self.cells = cells
