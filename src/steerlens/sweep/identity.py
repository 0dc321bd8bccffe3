"""Identity of a run: models, plan, options and inputs, everything that decides its numbers, computed only here."""

from typing import Any

from torch import Tensor

from steerlens.lenses import Direction
from steerlens.runs import plan_to_json, spec_to_json
from steerlens.sweep.job import Job
from steerlens.zoo import Pair
from steerlens.zoo.identity import models_identity, tensor_identity, vocabulary_identity


def identity(pair: Pair, job: Job) -> dict[str, Any]:
    """Everything that two calls must share to add to one run, as JSON values."""
    return {
        "models": job.models or models_identity(pair),
        "encoder": spec_to_json(job.encoder.spec),
        "decoder": spec_to_json(job.decoder.spec),
        "plan": plan_to_json(job.plan),
        "options": job.options.decisive(),
        "target": {"description": job.target.description, "source": job.target.source},
        "inputs": {id: {"name": picture.name, "sha256": picture.sha256} for id, picture in job.pictures.items()},
        "directions": {name: _direction_identity(direction) for name, direction in job.directions.items()},
        "labels": _labels_identity(job),
        # Left out of runs of image embeddings, so that those from before this option existed are still recognised.
        **({} if job.decoder.spec.tokens is None else {"tokens": "all" if job.tokens is None else str(job.tokens)}),
        # Left out of runs without a total effect of directions, for the same reason.
        # Left out of runs with the nearest texts, for the same reason.
        **({} if job.names == "nearest" else {"names": job.names}),
        **({} if job.vector_at is None else {"vector_at": str(job.vector_at)}),
        **({"left_out": list(job.left_out)} if job.left_out else {}),
        **({} if job.selection.rule == "all" else {"decode": str(job.selection)}),
    }


def _labels_identity(job: Job) -> dict[str, Any]:
    return {"kept": job.n_labels, "vocabulary": vocabulary_identity(job.vocabulary)}


def _direction_identity(direction: Direction) -> str:
    return tensor_identity(direction) if isinstance(direction, Tensor) else direction.identity
