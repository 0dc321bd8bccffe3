"""Whether a decoder fits its encoder, measured on scenes that come with the pair.

The embeddings of many encoders share a large mean m, so that the cosine of any two is high. Fit is therefore measured
with the mean over the scenes subtracted: the mean of cos(e' - m, e - m), where e' is the embedding of the picture
decoded from e. Agreement is the mean of cos(e - m, e* - m*), where e* are the embeddings by the weights that the
decoder was trained with; it is 1 if the weights are equal.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save_file
from torch import Tensor

from steerlens.conditioning import Conditioning
from steerlens.decoders import Decoder, decode
from steerlens.encoders import Encoder
from steerlens.errors import ModelError, UsageError
from steerlens.limits import read_file
from steerlens.scores import cosine_similarity

PROBE = "probe.safetensors"
"""File of the scenes, in a pair's folder."""

_SLACK = 0.1
"""Loss of cosine that rounding and other samplers explain; other weights lose more."""


@dataclass(frozen=True, eq=False)
class Probe:
    """Scenes, with their embeddings by the weights that the decoder was trained with, and its fit to these.

    Attributes:
        scenes: uint8 (N,3,H,W), pictures that the decoder was not trained on.
        embeds: float (N,E), their embeddings.
        figure: the decoder's fit.
    """

    scenes: Tensor
    embeds: Tensor
    figure: float

    @property
    def least(self) -> float:
        """Smallest cosine with which the decoder fits."""
        return self.figure - _SLACK

    def save(self, folder: Path) -> None:
        """Writes the probe into a pair's folder."""
        tensors = {"scenes": self.scenes, "embeds": self.embeds.half(), "figure": torch.tensor([self.figure])}
        save_file(tensors, folder / PROBE)
        (folder / PROBE).chmod(0o644)  # safetensors makes files readable by their owner only


def load_probe(folder: Path) -> Probe | None:
    """Reads the probe in a pair's folder; None if there is none.

    Raises:
        ModelError: if it is broken.
    """
    file = folder / PROBE
    if not file.is_file():
        return None
    try:
        tensors: Any = load_tensors(read_file(file, "tensors_bytes"))
        return Probe(tensors["scenes"], tensors["embeds"].float(), float(tensors["figure"][0]))
    except (UsageError, SafetensorError, LookupError, ValueError) as error:
        raise ModelError(f"the probe {file} cannot be read: {str(error).rstrip('.')}.") from error


@dataclass(frozen=True)
class Fit:
    """Fit of a decoder to an encoder.

    Attributes:
        fit: mean re-encoded cosine, mean subtracted.
        agreement: mean cosine of embeddings with those of the decoder's training, means subtracted.
    """

    fit: float
    agreement: float


def make_probe(encoder: Encoder, decoder: Decoder, scenes: Tensor) -> Probe:
    """Makes the probe of a pair from uint8 scenes (N,3,H,W), with the weights that its decoder was trained with."""
    embeds = _embed(encoder, scenes.float() / 255)
    return Probe(scenes, embeds.cpu(), _fit(encoder, decoder, embeds))


def measure_fit(encoder: Encoder, decoder: Decoder, probe: Probe) -> Fit:
    """Measures how well a decoder fits an encoder, whose weights may not be those of its training."""
    embeds = _embed(encoder, probe.scenes.float() / 255)
    trained = probe.embeds.to(embeds.device)
    agreement = cosine_similarity(_centred(embeds), _centred(trained)).mean()
    return Fit(_fit(encoder, decoder, embeds), float(agreement))


def _embed(encoder: Encoder, pictures: Tensor) -> Tensor:
    return encoder.embed(encoder.preprocess_tensor(pictures)).float()


def _fit(encoder: Encoder, decoder: Decoder, embeds: Tensor) -> float:
    pictures = decode(decoder, Conditioning("image_embedding", embeds), list(range(len(embeds))))
    again, mean = _embed(encoder, pictures), embeds.mean(dim=0)
    return float(cosine_similarity(again - mean, embeds - mean).mean())


def _centred(embeds: Tensor) -> Tensor:
    return embeds - embeds.mean(dim=0)
