"""Single-threaded worker processes for a stage: on a CPU, small models gain more from processes than from threads.

Every worker computes its share of the batch; gradients are averaged before each step. Threads wait for each other many
times per step, workers only once, so a busy machine slows workers down far less.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import distributed, multiprocessing

from steerlens.progress import Progress

Stage = Callable[..., Iterator[Progress]]


def _join(rendezvous: Path, rank: int, workers: int) -> None:
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", init_method=rendezvous.as_uri(), rank=rank, world_size=workers)


def _follow(stage: Stage, arguments: tuple[Any, ...], rendezvous: Path, rank: int, workers: int) -> None:
    _join(rendezvous, rank, workers)
    for _ in stage(*arguments):
        pass
    distributed.destroy_process_group()


def run_parallel(stage: Stage, arguments: tuple[Any, ...], workers: int, folder: Path) -> Iterator[Progress]:
    """Runs a stage in several processes, including this process, or in this process only.

    Args:
        stage: module-level function that yields progress.
        arguments: its arguments, which are pickled for the other processes; tensors use shared memory.
        workers: number of processes.
        folder: folder that all processes can write to.
    """
    if workers <= 1:
        yield from stage(*arguments)
        return
    folder.mkdir(parents=True, exist_ok=True)
    rendezvous = folder.absolute() / f".rendezvous-{uuid.uuid4().hex}"
    context = multiprocessing.get_context("spawn")
    others = [
        context.Process(target=_follow, args=(stage, arguments, rendezvous, rank, workers), daemon=True)
        for rank in range(1, workers)
    ]
    threads = torch.get_num_threads()
    for other in others:
        other.start()
    try:
        _join(rendezvous, 0, workers)
        yield from stage(*arguments)
        for other in others:
            other.join(timeout=60)
    finally:
        for other in others:
            other.terminate()
        if distributed.is_initialized():
            distributed.destroy_process_group()
        rendezvous.unlink(missing_ok=True)
        torch.set_num_threads(threads)
