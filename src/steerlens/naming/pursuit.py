"""Orthogonal matching pursuit: a direction as a sparse sum of texts.

    x ≈ Σ_i w_i t_i,    t_next = argmax_t |<x - x̂, t>|

Every step adds the text whose direction fits the residual best and fits all weights again by least squares, so the
residual is orthogonal to every chosen text. The explained variance is `1 - |x - x̂|² / |x|²`.

References: Y. C. Pati, R. Rezaiifar, P. S. Krishnaprasad, "Orthogonal Matching Pursuit", Asilomar 1993;
U. Bhalla et al., "Interpreting CLIP with Sparse Linear Concept Embeddings (SpLiCE)", arXiv 2402.10376, which fits
non-negative weights under an L1 penalty; here weights are signed, as in Y. Gandelsman et al., arXiv 2406.04341.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import normalize

from steerlens.errors import ModelError, UsageError
from steerlens.naming.controls import check_count, control_of, random_vocabularies, text_directions
from steerlens.naming.decomposition import NamedText, TextDecomposition
from steerlens.vocabulary import Vocabulary

_NEGLIGIBLE = 1e-6
"""Norm of a residual, relative to the direction, below which everything is explained."""

_ROWS = 1024
"""Directions decomposed at once: their products with all texts are in memory together."""


def omp(
    direction: Float[Tensor, "E"], vocabulary: Vocabulary, k: int = 5, *, controls: int = 16, seed: int = 0
) -> TextDecomposition:
    """Decomposes a direction of the embedding space into k texts, by orthogonal matching pursuit.

    Args:
        direction: for example a row of a sparse autoencoder's decoder, or a head's contribution to the embedding.
        vocabulary: the texts to choose from.
        k: largest number of texts.
        controls: number of random vocabularies to compare with; 0 for none.
        seed: seed of the random vocabularies.

    Raises:
        UsageError: if the direction is of another size than the texts, zero or not finite, or k is below 1.
    """
    if direction.ndim != 1:
        raise UsageError(f"omp takes one direction (E,), not {tuple(direction.shape)}; omp_rows takes several.")
    if not bool(direction.any()):
        raise UsageError("a direction to decompose into texts is zero; it points nowhere.")
    return omp_rows(direction[None], vocabulary, k, controls=controls, seed=seed)[0]


@torch.no_grad()
def omp_rows(
    directions: Float[Tensor, "N E"], vocabulary: Vocabulary, k: int = 5, *, controls: int = 16, seed: int = 0
) -> tuple[TextDecomposition, ...]:
    """Decomposes several directions, all by the same vocabulary and the same random vocabularies; see `omp`.

    A direction of zeros has no texts.

    Raises:
        UsageError: as `omp`.
    """
    check_count(k, controls)
    texts = text_directions(vocabulary)
    rows = _unit(directions, texts.shape[1])
    k = min(k, *texts.shape)
    pursuit = matching_pursuit(rows, texts, k)
    random = [matching_pursuit(rows, other, k).explained for other in random_vocabularies(texts, controls, seed)]
    chance = torch.stack(random) if random else torch.zeros(0, len(rows), k)
    decompositions: list[TextDecomposition] = []
    for row in range(len(rows)):
        named = tuple(
            NamedText(vocabulary.names[int(index)], float(weight), float(explained))
            for index, weight, explained in zip(
                pursuit.chosen[row], pursuit.weights[row], pursuit.explained[row], strict=True
            )
            if index >= 0
        )
        control = control_of(chance[:, row])
        decompositions.append(TextDecomposition("omp", named, control.mean[: len(named)], control.level))
    return tuple(decompositions)


@dataclass(frozen=True, eq=False)
class Pursuit:
    """Orthogonal matching pursuit of N unit directions in k steps.

    Attributes:
        chosen: index of the text chosen at each step; -1 once a direction is explained.
        weights: coefficients of the chosen texts after the last step; 0 where there is none.
        explained: share of variance explained after each step, in [0,1].
    """

    chosen: Int[Tensor, "N k"]
    weights: Float[Tensor, "N k"]
    explained: Float[Tensor, "N k"]


def matching_pursuit(rows: Float[Tensor, "N E"], texts: Float[Tensor, "V E"], k: int) -> Pursuit:
    """Runs orthogonal matching pursuit on unit rows, with an orthonormal basis of the chosen texts for each."""
    parts = [_pursuit(part, texts, k) for part in rows.split(_ROWS)]
    return Pursuit(
        torch.cat([part.chosen for part in parts]),
        torch.cat([part.weights for part in parts]),
        torch.cat([part.explained for part in parts]),
    )


def _pursuit(rows: Float[Tensor, "N E"], texts: Float[Tensor, "V E"], k: int) -> Pursuit:
    N, E = rows.shape
    residual, everyone = rows.clone(), torch.arange(N)
    basis, atoms = rows.new_zeros(N, k, E), rows.new_zeros(N, k, E)
    chosen = torch.full((N, k), -1)
    explained, whole = rows.new_zeros(N, k), rows.square().sum(dim=1)
    for step in range(k):
        fit = (residual @ texts.T).abs()
        for before in range(step):  # rounding could choose a text twice
            fit[everyone, chosen[:, before].clamp_min(0)] = 0
        index = fit.argmax(dim=1)
        atom = texts[index]
        new = atom - torch.einsum("nke,nk->ne", basis, torch.einsum("nke,ne->nk", basis, atom))
        new = new - torch.einsum("nke,nk->ne", basis, torch.einsum("nke,ne->nk", basis, new))
        size = new.norm(dim=1)
        live = (residual.norm(dim=1) > _NEGLIGIBLE) & (size > _NEGLIGIBLE) & (fit[everyone, index] > 0)
        unit = torch.where(live[:, None], new / size.clamp_min(_NEGLIGIBLE)[:, None], 0)
        residual = residual - (residual * unit).sum(dim=1, keepdim=True) * unit
        basis[:, step], atoms[:, step] = unit, torch.where(live[:, None], atom, 0)
        chosen[:, step] = torch.where(live, index, -1)
        explained[:, step] = (whole - residual.square().sum(dim=1)).clamp(0, 1)
    # Atoms are combinations of the basis, A = T B with T triangular; the fit is (x Bᵀ) T⁻¹ A.
    triangle = atoms @ basis.mT
    empty = torch.diag_embed((chosen < 0).to(rows))
    along = torch.einsum("ne,nke->nk", rows, basis)
    weights = torch.linalg.solve(triangle.mT + empty, along)
    return Pursuit(chosen, weights, explained)


def _unit(directions: Float[Tensor, "N E"], size: int) -> Float[Tensor, "N E"]:
    if directions.ndim != 2 or directions.shape[1] != size:
        raise UsageError(
            f"directions of shape {tuple(directions.shape)} cannot be decomposed into texts of embedding size {size}."
        )
    rows = directions.detach().double().cpu()
    if not bool(rows.isfinite().all()):
        raise ModelError("a direction to decompose into texts is not finite.")
    return normalize(rows, dim=1)
