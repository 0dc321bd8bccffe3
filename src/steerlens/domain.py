"""The domain of a pair: how unusual a picture and its reconstruction are among pictures like those it was trained on.

A decoder draws anything as if it were of its own kind, and the embedding of a foreign picture need not look foreign: an
encoder trained on emoji puts photographs among them. So a picture is described by plain statistics of its pixels
besides the place of its embedding, each compared with those of reference pictures:

    u(x) = mean over statistics i of |f_i(x) - median_i| / scale_i

where `scale_i` is the distance of the reference's 5th or 95th percentile from its median, on the side of `f_i(x)`. The
reconstruction is described by its fidelity, the cosine of its embedding with that of the input. Both are given as
percentiles of the reference's own values.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, cast

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor
from torch.nn import functional

from steerlens.errors import ModelError, UsageError
from steerlens.spread import Spread, leading, spread

SIDE = 64
"""Height and width, in pixels, to which a picture is scaled before its statistics are computed."""

UNUSUAL = 98.0
"""Percentile of the reference above which a picture is said to lie outside the domain."""

LEAST = 100
"""Least number of reference pictures: half of them give the scales, the others the percentiles."""

_AXES = 64
"""Principal axes of the reference embeddings that are stored."""

_QUANTILES = 201
"""Stored quantiles of the reference's values."""

_FRAME = 3
"""Width in pixels of the frame whose colours tell whether a picture has a background."""

_FORMAT = "1"


@dataclass(frozen=True, eq=False, repr=False)
class DomainReference:
    """Statistics of reference pictures of a pair.

    Attributes:
        pictures: what the reference pictures are, in words.
        count: their number.
        median: median of each statistic.
        below: scale of each statistic below its median.
        above: scale above it.
        spread: mean and covariance of the embeddings.
        unusual: quantiles of `u` over reference pictures that the scales were not computed from.
        fidelity: quantiles of the fidelity of their reconstructions; None if none were decoded.
        options: options that decide reconstructions; fidelity is compared only under the same.
    """

    pictures: str
    count: int
    median: Float[Tensor, "K"]
    below: Float[Tensor, "K"]
    above: Float[Tensor, "K"]
    spread: Spread
    unusual: Float[Tensor, "P"]
    fidelity: Float[Tensor, "P"] | None = None
    options: Mapping[str, Any] = field(default_factory=dict[str, Any])

    def __repr__(self) -> str:
        return f"DomainReference({self.count} pictures: {self.pictures})"

    def percentile(self, view: Image.Image, embedding: Float[Tensor, "E"]) -> float:
        """Percentage of the reference that is less unusual than a picture, in [0,100].

        Args:
            view: the part of the picture that the encoder sees.
            embedding: its image embedding.
        """
        values = _statistics([view], embedding[None], self.spread)
        return percentile(float(_unusual(values, self.median, self.below, self.above)), self.unusual)


def percentile(value: float, quantiles: Float[Tensor, "P"]) -> float:
    """Percentage of a reference that lies below a value, from evenly spaced quantiles; in [0,100]."""
    levels = np.linspace(0, 100, len(quantiles))
    return float(np.interp(value, quantiles.double().numpy(), levels))


def fit_reference(
    views: list[Image.Image],
    embeddings: Float[Tensor, "N E"],
    pictures: str,
    *,
    fidelity: Float[Tensor, "N"] | None = None,
    options: Mapping[str, Any] | None = None,
) -> DomainReference:
    """Computes the statistics of reference pictures.

    Args:
        views: the part of each picture that the encoder sees; alternate ones give the scales and the percentiles.
        embeddings: their image embeddings.
        pictures: what the pictures are, in words.
        fidelity: fidelity of some reconstructions.
        options: the options that they were decoded with.

    Raises:
        UsageError: if there are too few pictures, or all are the same.
    """
    if len(views) < LEAST:
        raise UsageError(f"reference statistics need at least {LEAST} different pictures, not {len(views)}.")
    embeddings = embeddings.detach().float().cpu()
    around = leading(spread(embeddings[::2]), _AXES)
    fitted, others = (
        _statistics(views[::2], embeddings[::2], around),
        _statistics(views[1::2], embeddings[1::2], around),
    )
    low, median, high = torch.quantile(fitted, torch.tensor([0.05, 0.5, 0.95], dtype=fitted.dtype), dim=0)
    # A statistic that hardly varies, such as the colour of pictures in black and white, keeps a small scale.
    least = 0.1
    below, above = (median - low).clamp_min(least), (high - median).clamp_min(least)
    levels = torch.linspace(0, 1, _QUANTILES, dtype=torch.float64)
    return DomainReference(
        pictures,
        len(views),
        median,
        below,
        above,
        around,
        torch.quantile(_unusual(others, median, below, above), levels),
        None if fidelity is None else torch.quantile(fidelity.detach().double().cpu(), levels),
        dict(options or {}),
    )


def _unusual(
    values: Float[Tensor, "N K"], median: Float[Tensor, "K"], below: Float[Tensor, "K"], above: Float[Tensor, "K"]
) -> Float[Tensor, "N"]:
    away = values - median
    return (away.clamp_min(0) / above + (-away).clamp_min(0) / below).mean(dim=-1)


def _statistics(views: list[Image.Image], embeddings: Float[Tensor, "N E"], around: Spread) -> Float[Tensor, "N K"]:
    pixels = torch.stack([_pixels(view) for view in views])
    distances = around.distance(embeddings.detach().float().cpu())
    return torch.stack([*_of_pixels(pixels), distances.double()], dim=-1)


def _pixels(view: Image.Image) -> Float[Tensor, "3 height width"]:
    scaled = view.convert("RGB")
    if scaled.size != (SIDE, SIDE):
        scaled = scaled.resize((SIDE, SIDE), Image.Resampling.BICUBIC)
    return torch.from_numpy(np.array(scaled)).permute(2, 0, 1).double() / 255


def _of_pixels(pixels: Float[Tensor, "N 3 height width"]) -> list[Float[Tensor, "N"]]:
    """Statistics of pictures: flat areas, detail by scale, the frame and its colour, colourfulness."""

    def log_odds(share: Tensor) -> Tensor:
        return torch.logit(share.clamp(0.002, 0.998))

    across = (pixels[..., 1:] - pixels[..., :-1]).abs().amax(dim=1)
    down = (pixels[..., 1:, :] - pixels[..., :-1, :]).abs().amax(dim=1)
    flat = [
        log_odds(((across < least).double().mean(dim=(1, 2)) + (down < least).double().mean(dim=(1, 2))) / 2)
        for least in (0.01, 0.03)
    ]
    detail, coarse = list[Tensor](), pixels
    for _ in range(4):
        finer, coarse = coarse, functional.avg_pool2d(coarse, 2)
        lost = finer - functional.interpolate(coarse, scale_factor=2.0)
        detail.append(lost.square().mean(dim=(1, 2, 3)).add(1e-6).log())
    outside = torch.ones(SIDE, SIDE, dtype=torch.bool)
    outside[_FRAME:-_FRAME, _FRAME:-_FRAME] = False
    frame = pixels[:, :, outside]
    ground = frame.median(dim=-1, keepdim=True).values
    away = (frame - ground).abs()
    border = [
        away.mean(dim=(1, 2)).add(1e-3).log(),
        away.amax(dim=1).median(dim=-1).values.add(2e-3).log(),
        away.amax(dim=1).quantile(0.75, dim=-1).add(2e-3).log(),
    ]
    like_ground = ((pixels - ground[..., None]).abs().amax(dim=1) < 0.03).double().mean(dim=(1, 2))
    colourful = (pixels - pixels.mean(dim=1, keepdim=True)).square().mean(dim=(1, 2, 3)).add(1e-4).log()
    return [*flat, *detail, *border, log_odds(like_ground), colourful]


def reference_to_bytes(reference: DomainReference) -> bytes:
    """Writes a reference as the bytes of a safetensors file."""
    from safetensors.torch import save

    tensors = {
        "median": reference.median,
        "below": reference.below,
        "above": reference.above,
        "mean": reference.spread.mean,
        "axes": reference.spread.axes.half(),
        "variances": reference.spread.variances,
        "floor": torch.tensor([reference.spread.floor, reference.spread.weight]),
        "unusual": reference.unusual,
        **({} if reference.fidelity is None else {"fidelity": reference.fidelity}),
    }
    facts = {"format": _FORMAT, "pictures": reference.pictures, "count": str(reference.count)}
    facts["options"] = json.dumps(reference.options)
    stored = {name: (tensor if name == "axes" else tensor.float()).contiguous() for name, tensor in tensors.items()}
    return save(stored, facts)


def reference_from_bytes(data: bytes, embedding_size: int) -> DomainReference:
    """Reads a reference from the bytes of its file.

    Args:
        data: the bytes.
        embedding_size: E of the encoder.

    Raises:
        ModelError: if they are damaged, or of another encoder.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load

    try:
        header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])["__metadata__"]
        tensors = {name: tensor.double() for name, tensor in load(data).items()}
        size, axes = tensors["median"].shape, len(tensors["variances"])
        fits = (
            header["format"] == _FORMAT
            and size == tensors["below"].shape == tensors["above"].shape == (_N_STATISTICS,)
            and tensors["mean"].shape == (embedding_size,)
            and tensors["axes"].shape == (axes, embedding_size)
            and all(bool(torch.isfinite(tensor).all()) for tensor in tensors.values())
        )
        if not fits:
            raise ValueError("its sizes are not those of this encoder")
        floor, weight = tensors["floor"].tolist()
        around = Spread(tensors["mean"], tensors["axes"], tensors["variances"], floor, weight)
        options = cast(dict[str, Any], json.loads(header["options"]))
        parts = (tensors["median"], tensors["below"], tensors["above"], around, tensors["unusual"])
        return DomainReference(header["pictures"], int(header["count"]), *parts, tensors.get("fidelity"), options)
    except (SafetensorError, ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise ModelError(f"the reference statistics cannot be read: {str(error).rstrip('.')}.") from error


_N_STATISTICS = 12
"""K: eleven statistics of the pixels, and the distance of the embedding."""
