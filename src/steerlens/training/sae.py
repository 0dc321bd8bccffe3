"""Training of a sparse autoencoder: batch-top-k, with dead features revived by an auxiliary loss.

    p = relu((x - b_dec) W_enc + b_enc)        f = the B k largest p of a batch of B values, else 0
    x̂ = f W_dec + b_dec                        rows of W_dec have unit norm
    L = |x - x̂|² / D + α |e - ê|² / |e|²       e = x - x̂;  ê: e reconstructed by the largest p of dead features

A feature is dead if no value activated it for a while. Values are shifted by their mean and scaled to a mean square of
D for training; the exported weights undo both. At inference one threshold replaces the choice within a batch: the one
that keeps k features of a value on average.

References: B. Bussmann, P. Leask, N. Nanda, "BatchTopK Sparse Autoencoders", arXiv 2412.06410; L. Gao et al.,
"Scaling and evaluating sparse autoencoders", arXiv 2406.04093 (the auxiliary loss).
"""

from __future__ import annotations

import math
from collections.abc import Generator, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import normalize

from steerlens.errors import UsageError
from steerlens.progress import Progress
from steerlens.saes import JumpReLU, SparseAutoencoder
from steerlens.training.sae_values import Place, Tokens
from steerlens.training.stage import Budget, Optimisation, run_stage

STAGE = "sae"
"""Name of the stage, and of its files."""

_CALIBRATION = 1 << 16
"""Values that the inference threshold is chosen on."""

_CHECKED = 1 << 14
"""Held-out values that metrics are computed on during training."""


@dataclass(frozen=True)
class SaeRecipe:
    """Settings of the training.

    Attributes:
        features: F.
        k: mean number of active features of a value.
        batch: values in a step.
        rate: learning rate of AdamW, with warm-up and a half cosine.
        dead_after: number of values without activation after which a feature counts as dead.
        dead_weight: α, weight of the auxiliary loss; 0 for no revival.
        seed: seed of all random numbers.
    """

    features: int
    k: int = 16
    batch: int = 1024
    rate: float = 1e-3
    dead_after: int = 100_000
    dead_weight: float = 1 / 32
    seed: int = 0

    def __post_init__(self) -> None:
        if self.features < 1 or not 1 <= self.k <= self.features or self.batch < 1:
            raise UsageError(
                f"an autoencoder of {self.features} features keeps 1 to {self.features} of them, and a batch has at "
                f"least one value; got k {self.k}, batch {self.batch}."
            )


class TrainedSae(nn.Module):
    """Parameters in training, for values with mean 0 and mean square D.

    Args:
        width: D.
        recipe: settings of the training.
    """

    idle: Tensor

    def __init__(self, width: int, recipe: SaeRecipe) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(recipe.seed)
        rows = normalize(torch.randn(recipe.features, width, generator=generator), dim=1)
        self.recipe = recipe
        self.W_dec = nn.Parameter(rows)
        # Contiguous: a checkpoint stores moments contiguously, and the fused optimizer pairs them in memory order.
        self.W_enc = nn.Parameter(rows.T.contiguous().clone())
        self.b_enc = nn.Parameter(torch.zeros(recipe.features))
        self.b_dec = nn.Parameter(torch.zeros(width))
        self.register_buffer("idle", torch.zeros(recipe.features, dtype=torch.int64))

    @property
    def unit_rows(self) -> Float[Tensor, "F D"]:
        """Decoder rows of unit norm: their length belongs to the activations."""
        return normalize(self.W_dec, dim=1)

    @property
    def dead(self) -> Tensor:
        """Whether each feature is dead (F,)."""
        return self.idle > self.recipe.dead_after

    def pre_activations(self, x: Float[Tensor, "B D"]) -> Float[Tensor, "B F"]:
        """Computes p."""
        return torch.relu((x - self.b_dec) @ self.W_enc + self.b_enc)

    def batch_top_k(self, pre: Float[Tensor, "B F"]) -> Float[Tensor, "B F"]:
        """Keeps the B k largest pre-activations of a batch."""
        kept = pre.flatten().topk(min(pre.numel(), self.recipe.k * len(pre)), sorted=False).indices
        mask = torch.zeros_like(pre).flatten().scatter_(0, kept, 1.0).view_as(pre)
        return pre * mask

    def losses(self, x: Float[Tensor, "B D"]) -> dict[str, Tensor]:
        """Computes the losses of a batch, and counts how long features have been idle."""
        pre, rows = self.pre_activations(x), self.unit_rows
        features = self.batch_top_k(pre)
        error = x - features @ rows - self.b_dec
        loss = error.square().mean()
        with torch.no_grad():
            self.idle += len(x)
            self.idle[(features > 0).any(dim=0)] = 0
        losses = {"unexplained": loss.detach(), "loss": loss}
        if self.recipe.dead_weight and bool(self.dead.any()):
            auxiliary = self._revival(pre, error.detach(), rows)
            losses |= {"revival": auxiliary.detach(), "loss": loss + self.recipe.dead_weight * auxiliary}
        return losses

    def _revival(
        self, pre: Float[Tensor, "B F"], error: Float[Tensor, "B D"], rows: Float[Tensor, "F D"]
    ) -> Float[Tensor, ""]:
        """Share of the error that the strongest dead features of each value leave unexplained."""
        dead = self.dead.nonzero()[:, 0]
        count = min(len(dead), max(1, error.shape[1] // 2))
        values, places = pre[:, dead].topk(count, dim=1)
        kept = torch.zeros_like(pre[:, dead]).scatter(1, places, values)
        left = error - kept @ rows[dead]
        return left.square().sum() / error.square().sum().clamp_min(1e-12)


@dataclass(frozen=True)
class Scaling:
    """Shift and factor that values had in training: x' = (x - mean) factor."""

    mean: Float[Tensor, D]
    factor: float

    @classmethod
    def of(cls, values: Float[Tensor, "N D"]) -> Scaling:
        """Scaling that gives values a mean of 0 and a mean square of D.

        Raises:
            UsageError: if all values are equal.
        """
        mean = values.mean(dim=0)
        size = float((values - mean).square().sum(dim=1).mean())
        if not size > 0:
            raise UsageError("all values at this site are equal: there is nothing to learn.")
        return cls(mean, math.sqrt(values.shape[1] / size))

    def __call__(self, values: Float[Tensor, "N D"]) -> Float[Tensor, "N D"]:
        """Scales values."""
        return (values - self.mean.to(values)) * self.factor


def train_sae(
    values: Float[Tensor, "N D"],
    held_out: Float[Tensor, "M D"],
    recipe: SaeRecipe,
    folder: Path,
    budget: Budget,
    *,
    device: torch.device | str = "cpu",
    resume: bool = False,
    report_seconds: float = 15.0,
    checkpoint_seconds: float = 45.0,
) -> Generator[Progress, None, TrainedSae]:
    """Trains an autoencoder of given values; the payload of every event is a `StageRecord`.

    Args:
        values: the values to train on.
        held_out: other values, for metrics.
        recipe: settings of the training.
        folder: folder of checkpoints.
        budget: duration.
        device: device of the training.
        resume: True to continue from the checkpoint if there is one.
        report_seconds: time between records.
        checkpoint_seconds: time between checkpoints.

    Raises:
        UsageError: if there are fewer values than a batch has, or all are equal.
        SteerlensError: if the loss is not finite.
    """
    if len(values) < recipe.batch:
        raise UsageError(f"{len(values)} values are fewer than a batch has ({recipe.batch}); give more pictures.")
    scale = Scaling.of(values)
    model = TrainedSae(values.shape[1], recipe).to(device)
    checked = scale(held_out[:_CHECKED]).to(device)

    def step(_: int, __: float, generator: torch.Generator) -> dict[str, Tensor]:
        rows = torch.randint(len(values), (recipe.batch,), generator=generator)
        return model.losses(scale(values[rows]).to(device))

    def measure() -> Mapping[str, float]:
        spread = (checked - checked.mean(dim=0)).square().sum()
        parts = checked.split(recipe.batch)
        pre = [model.batch_top_k(model.pre_activations(part)) for part in parts]
        left = [part - kept @ model.unit_rows - model.b_dec for part, kept in zip(parts, pre, strict=True)]
        explained = 1 - sum(float(part.square().sum()) for part in left) / float(spread)
        return {"explained variance": explained, "dead": float(model.dead.float().mean())}

    settings = Optimisation(matrix_rate=0.0, rate=recipe.rate, weight_decay=0.0, average=0.0)
    yield from run_stage(
        STAGE,
        model,
        step,
        folder,
        budget,
        settings,
        seed=recipe.seed,
        resume=resume,
        measure=measure if len(checked) else None,
        measure_seconds=60.0,
        report_seconds=report_seconds,
        checkpoint_seconds=checkpoint_seconds,
    )
    return model


@torch.no_grad()
def finished_sae(
    model: TrainedSae, values: Float[Tensor, "N D"], place: Place, name: str, trained_on: Tokens | None
) -> SparseAutoencoder:
    """Makes the autoencoder of unscaled values, with the threshold that keeps k features of a value on average.

    Args:
        model: the trained parameters.
        values: the values that it was trained on.
        place: where they were read.
        name: its name.
        trained_on: tokens that it was trained on; None for the image embedding.
    """
    scale, device = Scaling.of(values), model.W_dec.device
    generator = torch.Generator().manual_seed(model.recipe.seed)
    sample = values[torch.randperm(len(values), generator=generator)[:_CALIBRATION]]
    largest = torch.zeros(0)
    for part in sample.split(model.recipe.batch):
        # Only the largest can exceed the threshold, so memory stays that of a few batches.
        pre = model.pre_activations(scale(part).to(device)).flatten().cpu()
        largest = torch.cat([largest, pre]).topk(min(len(largest) + len(pre), model.recipe.k * len(sample))).values
    kept = min(len(largest), model.recipe.k * len(sample))
    threshold = float(largest[kept - 1].clamp_min(0))
    # p = ((x - mean) c - b) W + b_enc, in units c times smaller: activations are lengths of unscaled values.
    factor = scale.factor
    return SparseAutoencoder(
        name,
        place,
        model.W_enc.detach().cpu().clone(),
        model.unit_rows.detach().cpu().clone(),
        model.b_enc.detach().cpu() / factor,
        scale.mean + model.b_dec.detach().cpu() / factor,
        JumpReLU(torch.full((model.recipe.features,), threshold / factor)),
        apply_b_dec_to_input=True,
        trained_on=trained_on or "unknown",
    )
