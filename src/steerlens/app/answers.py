"""Answers to the page: results as JSON values. Nothing is computed that a sweep would compute otherwise."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from steerlens.atlas import CellResult
from steerlens.report import data_uri
from steerlens.scores import cosine_similarity
from steerlens.sites import Site
from steerlens.sweep import Job, SteeredCell
from steerlens.vocabulary import Vocabulary

_PICTURE_SIDE = 512
"""Longest side, in pixels, at which the page gets a picture."""

_LABELS = 8
"""Labels that the page shows before and after an ablation, of each."""


@dataclass(frozen=True, eq=False)
class Answer:
    """One event for the page.

    Attributes:
        kind: what it is, such as `preview`.
        content: JSON values.
    """

    kind: str
    content: Mapping[str, Any]


def rounded(values: Sequence[float]) -> list[float | None]:
    """Numbers for the page, to five digits after the point; None for what is not finite."""
    return [round(value, 5) + 0.0 if math.isfinite(value) else None for value in values]


def _number(value: float | None) -> float | None:
    return None if value is None else rounded([value])[0]


def numbers(job: Job, steered: SteeredCell, site: Site) -> dict[str, Any]:
    """Computes the numbers of a view that need no decoding: similarity, strength and labels."""
    return {
        **_site(site),
        "undecoded": _number(steered.steered_similarity),
        "rho": _number(steered.rho),
        "directCosine": _number(steered.direct_cosine),
        "changeCosine": _number(steered.change_cosine),
        "target": job.target.description,
        "steps": job.options.steps,
        "guidance": job.options.guidance,
        "labels": label_scores(job.vocabulary, steered.conditioning, job.n_labels),
    }


def result_answer(result: CellResult, site: Site) -> dict[str, Any]:
    """A decoded picture with its numbers."""
    return {
        **_site(site),
        "src": data_uri(result.picture, side=_PICTURE_SIDE),
        "similarity": _number(result.similarity),
        "undecoded": _number(result.steered_similarity),
        "fidelity": _number(result.fidelity),
        "rho": _number(result.rho),
        "seed": result.cell.seed,
    }


def _site(site: Site) -> dict[str, Any]:
    return {"site": str(site), "label": site.label}


def label_scores(vocabulary: Vocabulary | None, conditioning: Tensor, count: int) -> list[tuple[str, float]]:
    """The labels closest to an embedding, best first; empty without a vocabulary, and for image tokens."""
    if vocabulary is None or conditioning.ndim != 1 or count < 1:
        return []
    best = vocabulary.scores(conditioning.float()[None])[0].topk(min(count, len(vocabulary.names)))
    pairs = zip(best.indices.tolist(), best.values.tolist(), strict=True)
    return [(vocabulary.names[index], round(score, 4)) for index, score in pairs]


def ablation_numbers(
    clean: SteeredCell, ablated: SteeredCell, vocabulary: Vocabulary | None, members: Sequence[Site]
) -> dict[str, Any]:
    """The real, total change of the embedding, and the labels before and after."""
    before, after = clean.conditioning.flatten().float(), ablated.conditioning.flatten().float()
    return {
        "sites": [str(site) for site in members],
        "cosine": _number(float(cosine_similarity(before, after))),
        "change": _number(float((after - before).norm() / before.norm())),
        "directCosine": _number(ablated.direct_cosine),
        "changeCosine": _number(ablated.change_cosine),
        "similarityBefore": _number(clean.steered_similarity),
        "similarityAfter": _number(ablated.steered_similarity),
        "labels": _labels_of_both(vocabulary, clean.conditioning, ablated.conditioning),
    }


@torch.no_grad()
def _labels_of_both(vocabulary: Vocabulary | None, before: Tensor, after: Tensor) -> list[dict[str, Any]]:
    """Labels that are among the best before or after, with both scores, in the order before."""
    if vocabulary is None or before.ndim != 1:
        return []
    scores = vocabulary.scores(torch.stack([before, after]).float())
    count = min(_LABELS, len(vocabulary.names))
    best = dict.fromkeys([*scores[0].topk(count).indices.tolist(), *scores[1].topk(count).indices.tolist()])
    ordered = sorted(best, key=lambda index: -float(scores[0, index]))
    return [
        {"name": vocabulary.names[i], "before": _number(float(scores[0, i])), "after": _number(float(scores[1, i]))}
        for i in ordered
    ]
