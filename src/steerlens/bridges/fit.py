"""Fitting a bridge from both encoders' embeddings of the same pictures, cross-validated, and measuring its quality."""

from collections.abc import Generator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
from jaxtyping import Float, Float64, Int64
from torch import Tensor

from steerlens.bridges.kernel import fit_kernel
from steerlens.bridges.linear import procrustes, ridge
from steerlens.bridges.maps import Bridge, Kind
from steerlens.errors import ModelError, UsageError
from steerlens.progress import Progress
from steerlens.scores import cosine_similarity

Choice = Literal["auto", "ridge", "procrustes", "kernel"]

PENALTIES = tuple(10.0 ** (exponent / 2) for exponent in range(-12, 5))
"""Candidate λ for ridge, as shares of the mean eigenvalue."""

GAIN = 0.005
"""Least gain in held-out cosine of the kernel over the best linear map, beside two standard errors."""

FEWEST = 50
"""Fewest pictures to fit a bridge on: with fewer, its figures would not generalise."""

RETRIEVED = 500
"""Most pictures among which retrieval is measured."""


@dataclass(frozen=True)
class Candidate:
    """A kind of map, and its quality on held-out folds.

    Attributes:
        kind: the kind.
        cosine: mean cosine similarity over all pictures, each mapped by a bridge fitted without it, in [-1,1].
        penalty: λ of the linear part as a share of the mean eigenvalue; None for Procrustes and a rejected kernel.
    """

    kind: Kind
    cosine: float
    penalty: float | None


@dataclass(frozen=True, eq=False)
class Fitted:
    """A fitted bridge, and the candidates.

    Attributes:
        bridge: the bridge in float32, fitted on all pictures.
        candidates: the candidates, in the order of fitting.
        chosen: the kind of the bridge.
        n_pictures: number of fitted pictures.
    """

    bridge: Bridge
    candidates: tuple[Candidate, ...]
    chosen: Kind
    n_pictures: int


@dataclass(frozen=True)
class Measured:
    """Quality of a bridge on pictures that it was not fitted on: mean cosine similarities, in [-1,1].

    Attributes:
        n_pictures: number of pictures.
        cosine: cosine of the mapped embedding with the target's own.
        baseline: cosine of the mean embedding of the fitted pictures with the target's own, without any bridge.
        centred: as `cosine`, with that mean subtracted from both sides.
        retrieval: share of pictures whose mapped embedding is closest to the target's own embedding of that picture.
        n_retrieved: number of pictures to retrieve from; the chance level of `retrieval` is its inverse.
        n_decoded: number of decoded pictures.
        decoded: cosine of the target's embeddings of the decoded picture and of the picture; None if none was decoded.
        decoded_own: the same for pictures decoded from the target's own embedding, the ceiling for any bridge.
    """

    n_pictures: int
    cosine: float
    baseline: float
    centred: float
    retrieval: float
    n_retrieved: int
    n_decoded: int = 0
    decoded: float | None = None
    decoded_own: float | None = None


def fit_bridge(
    source: Float[Tensor, "N E"],
    target: Float[Tensor, "N F"],
    choice: Choice = "auto",
    *,
    folds: int = 5,
    seed: int = 0,
) -> Generator[Progress, None, Fitted]:
    """Fits a bridge; progress counts, fold by fold, the mapped held-out pictures.

    Args:
        source: embeddings of pictures by the first encoder.
        target: embeddings of the same pictures by the second encoder, row by row.
        choice: `auto` takes the linear map with the higher cosine on held-out folds, and the kernel only if it gains
            `GAIN` and two standard errors over that.
        folds: number of folds of the cross-validation.
        seed: seed of the folds, and of the pictures held out within them to choose settings.

    Raises:
        UsageError: if there are too few pictures, or the two numbers of rows differ.
        ModelError: if an embedding is not finite, or all are equal.
    """
    x, y = _checked(source), _checked(target)
    if len(x) != len(y):
        raise UsageError(f"{len(x)} embeddings cannot be fitted to {len(y)}; both are of the same pictures.")
    if len(x) < FEWEST:
        raise UsageError(f"{len(x)} pictures are too few to fit a bridge on; give at least {FEWEST}, better thousands.")
    kinds: tuple[Kind, ...] = ("ridge", "procrustes", "kernel") if choice == "auto" else (choice,)
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(seed))
    parts = [part.sort().values for part in order.tensor_split(folds)]

    done, total = 0, len(x) * len(kinds)
    yield Progress("fitting", done, total, "pictures")
    scores: dict[Kind, Tensor] = {kind: torch.zeros(len(x), dtype=torch.float64) for kind in kinds}
    for kind in kinds:
        for part in parts:
            kept = _without(order, part)
            bridge, _ = _fit(kind, x[kept], y[kept], seed)
            scores[kind][part] = cosine_similarity(bridge(x[part]), y[part])
            done += len(part)
            yield Progress("fitting", done, total, "pictures")

    chosen = _choose(scores)
    whole = {kind: _fit(kind, x, y, seed) for kind in kinds if kind in (chosen, "ridge", "procrustes")}
    candidates = tuple(
        Candidate(kind, float(scores[kind].mean()), whole[kind][1] if kind in whole else None) for kind in kinds
    )
    return Fitted(whole[chosen][0].to(dtype=torch.float32), candidates, chosen, len(x))


def measure(bridge: Bridge, source: Float[Tensor, "N E"], target: Float[Tensor, "N F"]) -> Measured:
    """Measures a bridge on pictures that it was not fitted on.

    Args:
        bridge: the bridge.
        source: embeddings of pictures by its source encoder.
        target: embeddings of the same pictures by its target encoder.

    Raises:
        UsageError: if there are fewer than two pictures.
        ModelError: if an embedding is not finite, or all are equal.
    """
    x, y = _checked(source), _checked(target)
    if len(x) < 2 or len(x) != len(y):
        raise UsageError(f"a bridge is measured on two pictures or more, not on {len(x)}.")
    mapped, mean = bridge(x), bridge.target_mean.to(y)
    n = min(RETRIEVED, len(x))
    alike = _unit(mapped[:n]) @ _unit(y[:n]).T
    return Measured(
        n_pictures=len(x),
        cosine=float(cosine_similarity(mapped, y).mean()),
        baseline=float(cosine_similarity(mean.expand_as(y), y).mean()),
        centred=float(cosine_similarity(mapped - mean, y - mean).mean()),
        retrieval=float((alike.argmax(dim=1) == torch.arange(n)).double().mean()),
        n_retrieved=n,
    )


def with_decoded(measured: Measured, cosines: Sequence[float], own: Sequence[float]) -> Measured:
    """Adds the cosines of pictures that were decoded and embedded again."""
    n = len(cosines)
    return replace(measured, n_decoded=n, decoded=sum(cosines) / n, decoded_own=sum(own) / n)


def _choose(scores: dict[Kind, Tensor]) -> Kind:
    linear: list[Kind] = [kind for kind in scores if kind != "kernel"]
    if not linear:
        return "kernel"
    best = max(linear, key=lambda kind: float(scores[kind].mean()))
    if "kernel" in scores:
        gain = scores["kernel"] - scores[best]
        if float(gain.mean()) > max(GAIN, 2 * float(gain.std()) / len(gain) ** 0.5):
            return "kernel"
    return best


def _fit(kind: Kind, x: Tensor, y: Tensor, seed: int) -> tuple[Bridge, float | None]:
    """Fits a bridge and returns its λ; settings are chosen on a share of the same pictures."""
    m_x, m_y = x.mean(dim=0), y.mean(dim=0)
    if kind == "procrustes":
        return Bridge("procrustes", m_x, m_y, procrustes(x - m_x, y - m_y)), None
    penalty = _penalty(x, y, seed)
    weight = next(ridge(x - m_x, y - m_y, (penalty,)))
    if kind == "ridge":
        return Bridge("ridge", m_x, m_y, weight), penalty
    kernel = fit_kernel(x - m_x, (x - m_x) @ weight, y - m_y, seed=seed)
    return Bridge("kernel", m_x, m_y, weight, kernel), penalty


def _penalty(x: Tensor, y: Tensor, seed: int) -> float:
    """Returns the best λ of `PENALTIES` on a held-out fifth of the pictures."""
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(seed))
    judged, kept = order[: len(x) // 5], order[len(x) // 5 :]
    m_x, m_y = x[kept].mean(dim=0), y[kept].mean(dim=0)
    reached = [
        float(cosine_similarity((x[judged] - m_x) @ weight + m_y, y[judged]).mean())
        for weight in ridge(x[kept] - m_x, y[kept] - m_y, PENALTIES)
    ]
    return PENALTIES[reached.index(max(reached))]


def _without(order: Int64[Tensor, "N"], part: Int64[Tensor, " M"]) -> Int64[Tensor, " K"]:
    return order[~torch.isin(order, part)].sort().values


def _unit(embeddings: Float64[Tensor, "N E"]) -> Float64[Tensor, "N E"]:
    return torch.nn.functional.normalize(embeddings, dim=-1)


def _checked(embeddings: Tensor) -> Float64[Tensor, "N E"]:
    precise = embeddings.detach().double().cpu()
    if precise.ndim != 2 or not bool(torch.isfinite(precise).all()):
        raise ModelError("embeddings to fit a bridge on are rows of finite numbers; these are not.")
    if len(precise) > 1 and bool((precise == precise[:1]).all()):
        raise ModelError("an encoder gives one embedding for every picture; no bridge can lead from it or to it.")
    return precise
