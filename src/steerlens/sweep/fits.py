"""How well sparse autoencoders fit the inputs of a sweep."""

import math
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from steerlens.encoders import Encoder, Inputs
from steerlens.errors import UsageError
from steerlens.lenses import into_stream, trained_tokens, values_on_tokens
from steerlens.saes import Fidelity, FidelityMeter, SparseAutoencoder, value_at
from steerlens.trace import Trace


@dataclass(frozen=True)
class SaeFit:
    """Fit of a sparse autoencoder to inputs.

    Attributes:
        fidelity: explained variance, L0 and silent features on the tokens that it was trained on, the readout tokens
            if that is not known; cosine after the model's readout, and norm of the error, on the readout tokens.
        tokens: the tokens of the fidelity in words.
    """

    fidelity: Fidelity
    tokens: str

    @property
    def is_poor(self) -> bool:
        """True if half of the variance or more is left unexplained, or the cosine is below 0.5."""
        fidelity = self.fidelity
        if math.isnan(fidelity.explained_variance):  # a single value has no variance: its square stands for it
            fidelity = replace(fidelity, explained_variance=1 - fidelity.error_norm**2)
        return fidelity.is_poor

    @property
    def words(self) -> str:
        """The fit in one line."""
        fidelity = self.fidelity
        explained = f"explained variance {fidelity.explained_variance:.2f}"
        if math.isnan(fidelity.explained_variance):
            explained = "explained variance unknown, as there is one value"
        where = "after the readout" if fidelity.after_readout else "of what it reads"
        return (
            f"{explained}, L0 {fidelity.l0:.1f}, {100 * fidelity.dead_share:.0f} % of its features silent "
            f"({self.tokens}); error {100 * fidelity.error_norm:.0f} % of the value's norm, "
            f"cosine {fidelity.cosine:.2f} {where}"
        )

    def to_json(self) -> dict[str, Any]:
        """The fit as JSON values."""
        finite = {
            name: None if isinstance(value, float) and not math.isfinite(value) else value
            for name, value in asdict(self.fidelity).items()
        }
        return {**finite, "tokens": self.tokens, "is_poor": self.is_poor}


class FitMeter:
    """Measures the fit of one autoencoder, batch by batch."""

    def __init__(self, sae: SparseAutoencoder) -> None:
        self._sae = sae
        self._trained, self._readout = FidelityMeter(sae), FidelityMeter(sae)
        self._on_tokens = sae.trained_on in ("all", "patch") and not sae.reads_embedding

    @property
    def tokens(self) -> str:
        """The tokens that the fidelity is measured on, in words."""
        if not self._on_tokens:
            return "embeddings" if self._sae.reads_embedding else "readout tokens"
        return "image patches" if self._sae.trained_on == "patch" else "all tokens"

    @torch.no_grad()
    def add(self, encoder: Encoder, trace: Trace, inputs: Inputs) -> None:
        """Adds a batch of pictures.

        Raises:
            UsageError: if the autoencoder does not fit the encoder.
        """
        sae, values = self._sae, value_at(self._sae, trace)

        def readout(read: Float[Tensor, "B R d"]) -> Float[Tensor, "B E"]:
            return encoder.readout(into_stream(sae, read, trace.out_weights).to(trace.final))

        self._readout.add(values, None if sae.reads_embedding else readout)
        if self._on_tokens:
            self._trained.add(values_on_tokens(encoder, inputs, sae)[:, trained_tokens(sae, encoder.spec)])

    def result(self) -> SaeFit:
        """Returns the fit to all pictures.

        Raises:
            UsageError: if there was none.
        """
        fidelity = self._readout.result()
        if math.isnan(fidelity.error_norm):
            raise UsageError(f"{self._sae.name}: what it reads at {self._sae.site} is zero on every input.")
        if not self._on_tokens:
            return SaeFit(fidelity, self.tokens)
        read = {name: getattr(fidelity, name) for name in ("cosine", "after_readout", "error_norm")}
        return SaeFit(replace(self._trained.result(), **read), self.tokens)
