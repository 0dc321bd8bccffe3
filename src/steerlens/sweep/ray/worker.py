"""Workers of a sweep on Ray: each loads the models once and computes parts of the job."""

import socket
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import torch

from steerlens.atlas import Plan, Reading
from steerlens.errors import ModelError
from steerlens.runs import first_difference
from steerlens.sweep.engine import FinishedCells, batch_size, run, survey
from steerlens.sweep.job import Job, without_inputs
from steerlens.sweep.ray.parts import PartResult, SweepPart
from steerlens.sweep.selection import Selection
from steerlens.sweep.survey import saes_on
from steerlens.sweep.trace_cache import trace_cache
from steerlens.zoo import Pair
from steerlens.zoo.identity import models_identity


class PartWorker:
    """Worker that computes parts of a job with its own pair of models.

    Args:
        load: loads the pair on the worker's own machine.
        settings: fields of the job other than models, pictures and traces.
        threads: CPU threads of the worker.
        cached: True to reuse traces of earlier runs on that machine.

    Raises:
        ModelError: if the pair has other weights, or another precision, than the job's.
    """

    def __init__(
        self, load: Callable[[], Pair], settings: Mapping[str, Any], threads: int, *, cached: bool = False
    ) -> None:
        torch.set_num_threads(threads)
        pair = load()
        _check_models(settings.get("models", {}), pair)
        traces = trace_cache(pair) if cached else None
        decoder = without_inputs(pair.decoder, settings.get("left_out", ()))
        directions = saes_on(settings.get("directions", {}), pair.encoder.device)
        settings = {**settings, "directions": directions}
        self.job = Job(encoder=pair.encoder, decoder=decoder, pictures={}, traces=traces, **settings)
        self.batch = batch_size(self.job)

    def do(self, part: SweepPart) -> PartResult:
        """Computes one part: its readings, its finished cells, and its selected cells."""
        job = replace(self.job, pictures=part.pictures)
        if part.surveys:
            (id,) = part.pictures
            reading, selected = survey(job, id, read=id not in part.unread)
            return PartResult(() if reading is None else (reading,), self.batch.size, selected)
        cells, others = part.cells, frozenset[str]()
        if job.selection.rule == "all" or not cells:
            # The plan contains whole pictures, with cells of other parts as finished, so that labels cover all sites.
            cells = tuple(cell for id in part.pictures for cell in job.plan.of(id))
            others = frozenset(cell.key for cell in cells) - {cell.key for cell in part.cells}
        plan = Plan(cells, job.plan.strength, job.plan.seeds, job.plan.n_layers)
        job = replace(job, plan=plan, selection=Selection())
        payloads = (event.payload for event in run(job, others, frozenset(part.pictures) - part.unread, self.batch))
        finished = tuple(payload for payload in payloads if isinstance(payload, Reading | FinishedCells))
        return PartResult(finished, self.batch.size)


def _check_models(expected: Mapping[str, Any], pair: Pair) -> None:
    difference = first_difference(expected, models_identity(pair)) if expected else None
    if difference is not None:
        name, here, there = difference
        raise ModelError(
            f"the worker on {socket.gethostname()} has other models than this machine: {name} is {there} there, and "
            f"{here} here. Every machine needs the same files, and the same precision: name it (--dtype)."
        )
