"""TextSpan: texts whose directions span the writes of a head.

    C   centred writes of the head over pictures, as contributions to the embedding
    t   text directions, projected onto the span of C
    t_next = argmax_t Var_p <c_p, t>;  then the direction of t_next is removed from C and from all texts

Projected texts keep their length: a text outside the span of the writes is short, and cannot be chosen for a few
coordinates that it shares with them. The explained variance is that of the writes within the span of the chosen texts,
over their total variance. Any K texts explain writes whose span has K dimensions, so compare it with the control.

References: Y. Gandelsman, A. A. Efros, J. Steinhardt, "Interpreting CLIP's Image Representation via Text-Based
Decomposition", arXiv 2310.05916, algorithm 1.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from steerlens.errors import ModelError, UsageError
from steerlens.naming.controls import check_count, control_of, random_vocabularies, text_directions
from steerlens.naming.decomposition import NamedText, TextDecomposition
from steerlens.vocabulary import Vocabulary

_NEGLIGIBLE = 1e-10
"""Share of variance below which nothing is left to explain."""


@torch.no_grad()
def text_span(
    writes: Float[Tensor, "P E"],
    vocabulary: Vocabulary,
    k: int = 5,
    *,
    rank: int | None = None,
    controls: int = 16,
    seed: int = 0,
) -> TextDecomposition:
    """Finds k texts that span a head's writes over many pictures (TextSpan).

    Args:
        writes: contributions of the head to the embeddings of P pictures, such as those of `LinearAttribution`; a head
            of width d has at most d independent ones.
        vocabulary: the texts to choose from.
        k: largest number of texts.
        rank: number of principal directions of the writes that texts are projected onto; by default all.
        controls: number of random vocabularies to compare with; 0 for none.
        seed: seed of the random vocabularies.

    Raises:
        UsageError: if there are fewer than two pictures, the writes do not vary, they are of another size than the
            texts, or k or rank is below 1.
    """
    check_count(k, controls)
    texts = text_directions(vocabulary)
    span = _span_of(writes, texts.shape[1], rank)
    k = min(k, len(texts), span.axes.shape[1])
    chosen, explained = _span_texts(span, texts, k)
    random = [_span_texts(span, other, k)[1] for other in random_vocabularies(texts, controls, seed)]
    before = [0.0, *explained[:-1]]
    named = tuple(
        NamedText(vocabulary.names[index], share - earlier, share)
        for index, share, earlier in zip(chosen, explained, before, strict=True)
    )
    # A random vocabulary that explains everything early stays at its last share.
    padded = [[*shares, *shares[-1:] * (k - len(shares))] for shares in random]
    control = control_of(torch.tensor(padded, dtype=torch.float64))
    return TextDecomposition("textspan", named, control.mean[: len(named)], control.level)


@dataclass(frozen=True, eq=False)
class _Span:
    """Principal axes of centred writes, the variance along each, and their total variance."""

    axes: Float[Tensor, "E K"]
    variances: Float[Tensor, "K"]
    total: float


def _span_of(writes: Float[Tensor, "P E"], size: int, rank: int | None) -> _Span:
    if writes.ndim != 2 or writes.shape[1] != size:
        raise UsageError(
            f"writes of shape {tuple(writes.shape)} cannot be decomposed into texts of embedding size {size}."
        )
    if len(writes) < 2:
        raise UsageError(
            f"TextSpan explains how writes vary over pictures, and {len(writes)} picture is too few; give more."
        )
    if rank is not None and rank < 1:
        raise UsageError(f"the rank of the writes' span must be at least 1, not {rank}.")
    rows = writes.detach().double().cpu()
    if not bool(rows.isfinite().all()):
        raise ModelError("writes to decompose into texts are not finite.")
    _, values, axes = torch.linalg.svd(rows - rows.mean(dim=0), full_matrices=False)
    total = float(values.square().sum())
    # Writes come in float32: smaller singular values are rounding.
    limit = max(rows.shape) * torch.finfo(torch.float32).eps
    if total <= (limit * float(rows.norm())) ** 2:
        raise UsageError("the writes are the same for every picture, so that TextSpan has no variance to explain.")
    kept = int((values > limit * values[0]).sum())
    kept = kept if rank is None else min(kept, rank)
    return _Span(axes[:kept].T, values[:kept].square(), total)


def _span_texts(span: _Span, texts: Float[Tensor, "V E"], k: int) -> tuple[list[int], list[float]]:
    """Indices of the chosen texts, and the share of variance explained after each.

    Works in the coordinates of the principal axes. Texts lose the directions already chosen, so their variances are
    those of the remaining writes without changing the writes.
    """
    left = texts @ span.axes
    chosen, explained, share = list[int](), list[float](), 0.0
    for _ in range(k):
        variances = left.square() @ span.variances
        variances[chosen] = 0
        index = int(variances.argmax())
        if float(variances[index]) <= _NEGLIGIBLE * span.total:
            break
        unit = left[index] / left[index].norm()
        share = min(1.0, share + float(unit.square() @ span.variances) / span.total)
        left = left - (left @ unit)[:, None] * unit
        chosen.append(index)
        explained.append(share)
    return chosen, explained
