"""Activations of all features over many pictures, in memory that does not grow with the pictures.

For each feature: how often and how strongly it is active, a histogram of its activations, and its top pictures with the
activation of every token. A picture counts with its strongest token.
"""

import math
from collections.abc import Mapping

import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor

BINS = 24
"""Bins of a histogram, equally wide in the logarithm of the activation."""

_DECADES = 3
"""Powers of ten that a histogram spans; smaller activations count in the first bin."""

_COLUMNS = 2048
"""Features whose top pictures are updated at once, which bounds memory."""

_STATE = ("tokens", "pictures", "active", "in_pictures", "total", "values", "tops", "heat", "histogram", "largest")


class ActivationMeter:
    """Meter of F features, fed with batches of pictures.

    Attributes:
        tokens: number of tokens so far.
        pictures: number of pictures so far.
        active: tokens that activate each feature.
        in_pictures: pictures with such a token.
        total: sum of each feature's activations.
        values: activation of each feature in its top pictures, strongest first; 0 where there are fewer.
        tops: indices of these pictures; -1 where there are fewer.
        heat: activation of every token there, as a share of the strongest, 255 for all of it.
        histogram: number of activations in each bin.
        largest: upper edge of the last bin; larger activations count there too.
    """

    tokens: Int[Tensor, ""]
    pictures: Int[Tensor, ""]
    active: Int[Tensor, "F"]
    in_pictures: Int[Tensor, "F"]
    total: Float[Tensor, "F"]
    values: Float[Tensor, "k F"]
    tops: Int[Tensor, "k F"]
    heat: UInt8[Tensor, "k F T"]
    histogram: Int[Tensor, "bins F"]
    largest: Float[Tensor, ""]

    def __init__(self, n_features: int, n_tokens: int, n_top: int, largest: float) -> None:
        self.tokens = torch.zeros((), dtype=torch.int64)
        self.pictures = torch.zeros((), dtype=torch.int64)
        self.active = torch.zeros(n_features, dtype=torch.int64)
        self.in_pictures = torch.zeros(n_features, dtype=torch.int64)
        self.total = torch.zeros(n_features, dtype=torch.float64)
        self.values = torch.zeros(n_top, n_features)
        self.tops = torch.full((n_top, n_features), -1)
        self.heat = torch.zeros(n_top, n_features, n_tokens, dtype=torch.uint8)
        self.histogram = torch.zeros(BINS, n_features, dtype=torch.int64)
        self.largest = torch.tensor(largest)

    def state(self) -> dict[str, Tensor]:
        """Everything measured so far, as tensors."""
        return {name: getattr(self, name) for name in _STATE}

    @classmethod
    def from_state(cls, state: Mapping[str, Tensor]) -> "ActivationMeter":
        """Restores a meter from `state`."""
        meter = cls(0, 0, 1, 1.0)
        for name in _STATE:
            setattr(meter, name, state[name].clone())
        return meter

    def edges(self) -> list[float]:
        """Lower edges of the bins, and the upper edge of the last."""
        return [float(self.largest) * 10 ** (_DECADES * (number / BINS - 1)) for number in range(BINS + 1)]

    def add(self, activations: Float[Tensor, "B T F"]) -> None:
        """Adds the activations of the next pictures."""
        B, T, _ = activations.shape
        first, peaks = int(self.pictures), activations.amax(dim=1)
        self._count(activations)
        self.in_pictures += (peaks > 0).sum(dim=0).cpu()
        self.tokens += B * T
        self.pictures += B
        entering = ((peaks > 0) & (peaks > self.values[-1].to(peaks))).any(dim=0).nonzero()[:, 0]
        pictures = torch.arange(first, first + B)
        for columns in entering.split(_COLUMNS):
            new = activations[:, :, columns].transpose(1, 2)
            heat = (255 * new / peaks[:, columns, None].clamp_min(1e-30)).round().to(torch.uint8).cpu()
            columns = columns.cpu()
            values = torch.cat([self.values[:, columns], peaks[:, columns].float().cpu()])
            numbers = torch.cat([self.tops[:, columns], pictures[:, None].expand(-1, len(columns))])
            heats = torch.cat([self.heat[:, columns], heat])
            best = values.sort(dim=0, descending=True, stable=True).indices[: len(self.values)]
            chosen = values.gather(0, best)
            self.values[:, columns] = chosen
            self.tops[:, columns] = torch.where(chosen > 0, numbers.gather(0, best), -1)
            self.heat[:, columns] = heats.gather(0, best[..., None].expand(-1, -1, heats.shape[-1]))

    def _count(self, activations: Float[Tensor, "B T F"]) -> None:
        flat = activations.flatten(0, 1)
        rows, features = (flat > 0).nonzero(as_tuple=True)
        strengths = flat[rows, features].double().cpu()
        features = features.cpu()
        self.active += torch.bincount(features, minlength=len(self.active))
        self.total.index_add_(0, features, strengths)
        place = BINS * (1 + (strengths / float(self.largest)).log10() / _DECADES)
        bins = place.floor().clamp(0, BINS - 1).long()
        flat_histogram = self.histogram.view(-1)
        flat_histogram += torch.bincount(bins * len(self.active) + features, minlength=flat_histogram.numel())

    def densities(self) -> Float[Tensor, "F"]:
        """Share of tokens that activate each feature, in [0,1]."""
        return self.active.double() / max(1, int(self.tokens))

    def means(self) -> Float[Tensor, "F"]:
        """Mean activation over the tokens that activate each feature; 0 for dead features."""
        return self.total / self.active.clamp_min(1)


def histogram_range(values: Float[Tensor, "N D"]) -> float:
    """Upper edge of histograms of features with decoder rows of unit norm: the root mean square of the values."""
    size = math.sqrt(float(values.double().square().sum(dim=-1).mean()))
    return size if size > 0 else 1.0
