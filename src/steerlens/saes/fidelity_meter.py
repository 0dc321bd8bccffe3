"""Fidelity of a sparse autoencoder on given values: how much it explains, with how many features.

explained variance = 1 - Σ |x - x̂|² / Σ |x - mean(x)|²
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from steerlens.errors import UsageError
from steerlens.saes.sae import SparseAutoencoder

POOR = 0.5
"""Explained variance, or cosine, below which a fit is called poor."""


@dataclass(frozen=True)
class Fidelity:
    """Fidelity of a sparse autoencoder on a set of values.

    Attributes:
        n_values: number of tokens measured.
        explained_variance: share of the variance explained, at most 1; negative if worse than the mean; NaN if all
            values are equal.
        l0: mean number of active features.
        dead_share: share of features that no value activates, in [0,1].
        cosine: mean cosine similarity between the model's readout of the values and of their reconstruction, or between
            both themselves if no readout was given.
        after_readout: whether a readout was given.
        error_norm: norm of the error, relative to that of the values; NaN if all values are zero.
    """

    n_values: int
    explained_variance: float
    l0: float
    dead_share: float
    cosine: float
    after_readout: bool
    error_norm: float

    @property
    def is_poor(self) -> bool:
        """True if less than half of the variance is explained, or the readout turns by more than 60 degrees."""
        return not (self.explained_variance >= POOR and self.cosine >= POOR)


class FidelityMeter:
    """Measures fidelity over batches, with memory for one batch."""

    def __init__(self, sae: SparseAutoencoder) -> None:
        self.sae = sae
        self._n = 0
        self._active = 0.0
        self._cosine = 0.0
        self._after_readout = True
        device = sae.W_enc.device
        self._ever = torch.zeros(sae.n_features, dtype=torch.bool, device=device)
        self._sum = torch.zeros(sae.width, dtype=torch.float64)
        self._squares = self._error = 0.0

    @torch.no_grad()
    def add(
        self, x: Float[Tensor, "*T D"], readout: Callable[[Float[Tensor, "*T D"]], Float[Tensor, "N E"]] | None = None
    ) -> None:
        """Adds a batch of values.

        Args:
            x: values at the autoencoder's site.
            readout: maps values at the site, in the shape given, to the model's embeddings.

        Raises:
            UsageError: if the values have another width.
        """
        rows = x.reshape(-1, x.shape[-1])
        rebuilt = torch.empty_like(rows)
        for place, activations in self.sae.encoded_in_parts(rows):
            rebuilt[place] = self.sae.decode(activations, rows[place]).to(rebuilt)
            self._ever |= (activations != 0).any(dim=0)
            self._active += float((activations != 0).sum())
        self._n += len(rows)
        exact = rows.double()
        self._sum += exact.sum(dim=0).cpu()
        self._squares += float(exact.square().sum())
        self._error += float((exact - rebuilt.double()).square().sum())
        if readout is None:
            self._after_readout = False
            before, after = rows, rebuilt
        else:
            before, after = readout(x), readout(rebuilt.reshape(x.shape))
        cosines = torch.nn.functional.cosine_similarity(before.double(), after.double(), dim=-1)
        # Weighted by tokens, so that batches of any size count alike.
        self._cosine += float(cosines.mean()) * len(rows)

    def result(self) -> Fidelity:
        """Returns the fidelity over all batches.

        Raises:
            UsageError: if no value was added.
        """
        if not self._n:
            raise UsageError(f"the fidelity of {self.sae.name} needs at least one value.")
        variance = self._squares - float(self._sum.square().sum()) / self._n
        return Fidelity(
            self._n,
            1 - self._error / variance if variance > 0 else float("nan"),
            self._active / self._n,
            1 - float(self._ever.sum()) / self.sae.n_features,
            self._cosine / self._n,
            self._after_readout,
            math.sqrt(self._error / self._squares) if self._squares > 0 else float("nan"),
        )


def fidelity(
    sae: SparseAutoencoder,
    x: Float[Tensor, "*T D"],
    readout: Callable[[Float[Tensor, "*T D"]], Float[Tensor, "N E"]] | None = None,
) -> Fidelity:
    """Measures the fidelity of a sparse autoencoder on values at its site.

    Args:
        sae: the autoencoder.
        x: the values.
        readout: maps values at the site, in the shape given, to the model's embeddings.

    Raises:
        UsageError: if there are no values, or they have another width.
    """
    meter = FidelityMeter(sae)
    meter.add(x, readout)
    return meter.result()
