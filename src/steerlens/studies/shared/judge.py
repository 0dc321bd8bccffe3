"""Names of the models of a study; the outside judge of decoded pictures is identified by its weights."""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from steerlens.encoders import Encoder
from steerlens.studies.shared.records import Record
from steerlens.zoo import Pair
from steerlens.zoo.identity import beside_files


@dataclass(frozen=True)
class JudgeName(Record):
    """Name and weights of an outside judge.

    Attributes:
        name: last part of its path or hub id.
        sha256: hash of its weights: names, shapes, precision and bytes.
    """

    name: str
    sha256: str


def judge_name(judge: Encoder | None) -> JudgeName | None:
    """Name and weights of the judge; None without a judge."""
    return None if judge is None else JudgeName(Path(judge.spec.name).name, weights_hash(judge))


def pair_name(pair: Pair) -> str:
    """Name of a pair for readers, without the folders of its path."""
    return Path(pair.name).name


def models_of(pair: Pair, judge: Encoder | None) -> dict[str, Any]:
    """JSON values that identify a study's models: the pair by names and all that decides, the judge by weights."""
    return {
        "pair": pair.name,
        "encoder": pair.encoder.spec.name,
        "decoder": pair.decoder.spec.name,
        "sha256": dict(pair.provenance.sha256),
        "beside_files": beside_files(pair),
        "judge": None if judge is None else weights_hash(judge),
    }


def weights_hash(encoder: Encoder) -> str:
    """SHA-256 of an encoder's weights in memory; of its name if the adapter exposes no torch module."""
    model, digest = getattr(encoder, "model", None), hashlib.sha256()
    if not isinstance(model, torch.nn.Module):
        return hashlib.sha256(encoder.spec.name.encode()).hexdigest()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return digest.hexdigest()
