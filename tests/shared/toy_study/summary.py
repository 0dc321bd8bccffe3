"""Summary of the brightness study, computed from its parts."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from steerlens.scores import cosine_similarity
from steerlens.studies.shared.records import StudySummary
from steerlens.studies.shared.stats import Estimate, mean_estimate
from toy_study.measure import BrightnessPart


@dataclass(frozen=True)
class BrightnessSummary(StudySummary):
    """Mean similarity of the embeddings before and after."""

    n_pictures: int
    similarity: Estimate
    command: str = ""
    model: str = ""


def summarise(parts: Sequence[BrightnessPart], concepts: Sequence[str], command: str, model: str) -> BrightnessSummary:
    """Computes the mean similarity, with its interval over concepts."""
    table = torch.stack([cosine_similarity(part.before, part.after) for part in parts])[:, None]
    return BrightnessSummary(len(parts), mean_estimate(table, concepts, draws=20, heads=False), command, model)
