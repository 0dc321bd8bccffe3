"""Fit of a sparse autoencoder to the first pictures of its dashboards, measured before anything else."""

from collections.abc import Generator, Sequence
from dataclasses import fields

import torch
from torch import Tensor

from steerlens.profiles.features.effects import FeatureReader
from steerlens.profiles.pictures import ProfilePicture, batches
from steerlens.progress import Progress
from steerlens.saes import Fidelity
from steerlens.studies.shared import StudyFolder
from steerlens.sweep import FitMeter, SaeFit

FIT_BATCHES = 4
"""Batches of pictures that the fit is measured on."""

_PART = "fit"


def measured_fit(
    reader: FeatureReader, pictures: Sequence[ProfilePicture], batch: int, study: StudyFolder
) -> Generator[Progress, None, SaeFit]:
    """Measures the fit, or reads that of an earlier call; the payload of the last event is the `SaeFit`.

    Args:
        reader: the autoencoder on its encoder.
        pictures: pictures of the dashboards.
        batch: pictures in a forward pass.
        study: folder of the dashboards.

    Raises:
        UsageError: if all that the autoencoder reads is zero.
    """
    first = pictures[: FIT_BATCHES * batch]
    meter = FitMeter(reader.sae)
    if not study.has(_PART):
        for number, chunk in enumerate(batches(first, batch)):
            yield Progress("fit", number * batch, len(first), "pictures")
            inputs = reader.encoder.preprocess([picture.open() for picture in chunk])
            meter.add(reader.encoder, reader.encoder.trace(inputs), inputs)
        study.add(_PART, _stored(meter.result().fidelity))
    fit = SaeFit(_restored(study.part(_PART)), meter.tokens)
    yield Progress("fit", len(first), len(first), "pictures", fit)
    return fit


def _stored(fidelity: Fidelity) -> dict[str, Tensor]:
    return {
        field.name: torch.tensor(float(getattr(fidelity, field.name)), dtype=torch.float64)
        for field in fields(Fidelity)
    }


def _restored(figures: dict[str, Tensor]) -> Fidelity:
    values = {name: float(figure) for name, figure in figures.items()}
    return Fidelity(
        n_values=int(values["n_values"]),
        explained_variance=values["explained_variance"],
        l0=values["l0"],
        dead_share=values["dead_share"],
        cosine=values["cosine"],
        after_readout=bool(values["after_readout"]),
        error_norm=values["error_norm"],
    )
