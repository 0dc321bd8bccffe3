"""How well sparse autoencoders fit the inputs of a sweep."""

import math
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from steerlens.encoders import Encoder, Inputs
from steerlens.errors import UsageError
from steerlens.lenses import into_stream, values_on_tokens
from steerlens.saes import Fidelity, FidelityMeter, SparseAutoencoder, value_at
from steerlens.trace import Trace

POOR = 0.5
"""Explained variance, or cosine after the readout, below which a fit is called poor."""


@dataclass(frozen=True)
class SaeFit:
    """Fit of a sparse autoencoder to inputs.

    Attributes:
        fidelity: explained variance, L0 and silent features on the tokens that it was trained on, the readout tokens
            if that is not known; cosine after the model's readout of the readout tokens.
        error_norm: norm of the error on the readout tokens, relative to that of the value.
        tokens: the tokens of the fidelity in words.
    """

    fidelity: Fidelity
    error_norm: float
    tokens: str

    @property
    def is_poor(self) -> bool:
        """True if half of the variance or more is left unexplained, or the cosine is below 0.5."""
        explained = self.fidelity.explained_variance
        if math.isnan(explained):  # a single value has no variance: its square stands for it
            explained = 1 - self.error_norm**2
        return not (explained >= POOR and self.fidelity.cosine >= POOR)

    def to_json(self) -> dict[str, Any]:
        """The fit as JSON values."""
        numbers = {**asdict(self.fidelity), "error_norm": self.error_norm}
        finite = {
            name: None if isinstance(value, float) and not math.isfinite(value) else value
            for name, value in numbers.items()
        }
        return {**finite, "tokens": self.tokens, "is_poor": self.is_poor}


class FitMeter:
    """Measures the fit of one autoencoder, picture by picture."""

    def __init__(self, sae: SparseAutoencoder) -> None:
        self._sae = sae
        self._trained, self._readout = FidelityMeter(sae), FidelityMeter(sae)
        self._on_tokens = sae.trained_on in ("all", "patch") and not sae.reads_embedding
        self._error = self._total = 0.0

    @torch.no_grad()
    def add(self, encoder: Encoder, trace: Trace, inputs: Inputs) -> None:
        """Adds one picture.

        Raises:
            UsageError: if the autoencoder does not fit the encoder.
        """
        sae, values = self._sae, value_at(self._sae, trace)

        def readout(read: Float[Tensor, "1 R d"]) -> Float[Tensor, "1 E"]:
            return encoder.readout(into_stream(sae, read, trace.out_weights).to(trace.final))

        self._readout.add(values, None if sae.reads_embedding else readout)
        error = values.to(sae.W_enc) - sae.decode(sae.encode(values), values)
        self._error += float(error.double().square().sum())
        self._total += float(values.double().square().sum())
        if self._on_tokens:
            tokens = values_on_tokens(encoder, inputs, sae)
            first = encoder.spec.first_patch if sae.trained_on == "patch" else 0
            self._trained.add(tokens[:, first:])

    def result(self) -> SaeFit:
        """Returns the fit to all pictures.

        Raises:
            UsageError: if there was none.
        """
        if not self._total > 0:
            raise UsageError(f"{self._sae.name}: what it reads at {self._sae.site} is zero on every input.")
        fidelity = self._readout.result()
        error_norm = math.sqrt(self._error / self._total)
        if not self._on_tokens:
            return SaeFit(fidelity, error_norm, "embeddings" if self._sae.reads_embedding else "readout tokens")
        trained = self._trained.result()
        tokens = "image patches" if self._sae.trained_on == "patch" else "all tokens"
        return SaeFit(
            replace(trained, cosine=fidelity.cosine, after_readout=fidelity.after_readout), error_norm, tokens
        )
