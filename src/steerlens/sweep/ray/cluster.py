"""Clusters for Ray's workers: by address or on this machine, and the number of workers that fit."""

import importlib.util
import os
import signal
import socket
from collections.abc import Generator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

from steerlens.errors import UsageError
from steerlens.sweep.ray.local import keep_sigterm, private_ray

_NO_RAY = "the Ray engine needs an optional package: pip install 'steerlens[ray]'."

_ANSWER_SECONDS = 10.0
"""Seconds within which a cluster's head must answer."""

_ROUNDING = 1e-9


@dataclass(frozen=True)
class Workers:
    """Number, place and size of the workers of a sweep.

    Attributes:
        address: address of a running cluster; `auto` for this machine's; None starts Ray here for this sweep only.
        count: number of workers; None for a worker per GPU, or per CPU core on a cluster without GPUs.
        cpus: CPU cores, and threads, of each worker.
        gpus: GPUs of each worker, possibly a fraction of a GPU; None for 1 if the cluster has GPUs, else 0.
    """

    address: str | None = None
    count: int | None = None
    cpus: int = 1
    gpus: float | None = None

    def __post_init__(self) -> None:
        if self.count is not None and self.count < 1:
            raise UsageError(f"at least one worker is needed, not {self.count}.")
        if self.cpus < 1 or (self.gpus is not None and self.gpus < 0):
            raise UsageError("a worker needs at least one CPU core, and its share of a GPU cannot be negative.")
        if self.gpus is not None and self.gpus > 1 and self.gpus % 1:
            raise UsageError(f"a worker takes a fraction of one GPU or a whole number of GPUs, not {self.gpus:g}.")


@dataclass(frozen=True)
class Room:
    """Workers that a cluster has room for.

    Attributes:
        workers: number of workers to start: as many as were requested, or as fit.
        gpus: GPUs of each worker.
    """

    workers: int
    gpus: float


def room_for(ray: Any, workers: Workers) -> Room:
    """Computes how many workers to start; each needs its cores and GPUs on a single machine.

    More workers than fit would wait forever, and so would the parts given to them.

    Args:
        ray: the library, connected.
        workers: the requested workers.

    Raises:
        UsageError: if no worker fits, or fewer than requested.
    """
    machines: list[Mapping[str, float]] = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    largest = {kind: max((machine.get(kind, 0.0) for machine in machines), default=0.0) for kind in ("CPU", "GPU")}
    gpus = (1.0 if largest["GPU"] else 0.0) if workers.gpus is None else workers.gpus
    for kind, wanted, name in (("GPU", gpus, "GPUs"), ("CPU", workers.cpus, "CPU cores")):
        if wanted > largest[kind]:
            raise UsageError(
                f"each worker needs {wanted:g} {name}, but the largest machine of the cluster has {largest[kind]:g}."
            )
    fit = sum(_fitting(machine, workers.cpus, gpus) for machine in machines)
    if not fit or (workers.count or 0) > fit:
        each = f"{workers.cpus} CPU cores" + (f" and {gpus:g} GPUs" if gpus else "")
        raise UsageError(
            f"{workers.count or 1} workers of {each} were requested, but the cluster has room for {fit}; give fewer "
            "--workers, or smaller ones (--worker-cpus, --worker-gpus)."
        )
    return Room(workers.count or fit, gpus)


def _fitting(machine: Mapping[str, float], cpus: int, gpus: float) -> int:
    fit = int(machine.get("CPU", 0.0) // cpus)
    if not gpus:
        return fit
    available = int(machine.get("GPU", 0.0))
    # A fraction comes from a single GPU: two GPUs have room for four workers of 0.4, not five.
    return min(fit, available * int(1 / gpus + _ROUNDING) if gpus < 1 else int(available // gpus))


def check_cluster(workers: Workers) -> None:
    """Checks, before anything is written, that Ray is installed and that the cluster exists and has room.

    Raises:
        UsageError: if any of these fails.
    """
    if importlib.util.find_spec("ray") is None:
        raise UsageError(_NO_RAY)
    if workers.address is None:
        return
    if ":" in workers.address:
        host, _, port = workers.address.rpartition("//")[2].rpartition(":")
        try:
            # Ray itself would try for minutes before giving up.
            socket.create_connection((host, int(port)), timeout=_ANSWER_SECONDS).close()
        except (OSError, ValueError) as error:
            raise UsageError(f"there is no Ray cluster at {workers.address}: {error}.") from None
    with running_cluster(workers) as ray:
        room_for(ray, workers)


@contextmanager
def running_cluster(workers: Workers) -> Generator[Any]:
    """Connects to Ray, starting it for this sweep only if no cluster is named; yields the library.

    Raises:
        UsageError: if Ray is not installed, or there is no cluster at the address.
    """
    try:
        import ray
    except ImportError:
        raise UsageError(_NO_RAY) from None
    if ray.is_initialized():
        yield ray
        return
    with nullcontext() if workers.address is not None else private_ray():
        handler = signal.getsignal(signal.SIGTERM)
        try:
            try:
                _connect(ray, workers)
            except SystemExit:  # by Ray's own handlers of SIGTERM, while it starts
                if callable(handler):
                    handler(signal.SIGTERM, None)
                raise
            keep_sigterm(handler)
            yield ray
        finally:
            ray.shutdown()
            keep_sigterm(handler)


def _connect(ray: Any, workers: Workers) -> None:
    options: dict[str, Any] = {"logging_level": "ERROR", "log_to_driver": False, "configure_logging": True}
    if workers.address is None:
        cores = max(os.cpu_count() or 1, workers.cpus * (workers.count or 1))
        # `local`, because without an address Ray looks for a cluster in the environment (RAY_ADDRESS).
        options |= {"address": "local", "num_cpus": cores, "include_dashboard": False}
    else:
        options["address"] = workers.address
    try:
        ray.init(**options)
    except (ConnectionError, ValueError, RuntimeError) as error:
        reason = str(error).splitlines()[0].rstrip(".")
        where = (
            "Ray cannot be started here" if workers.address is None else f"there is no Ray cluster at {workers.address}"
        )
        raise UsageError(f"{where}: {reason}.") from error
