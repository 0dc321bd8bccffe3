"""Where Ray's workers run: a cluster by its address, or Ray on this machine; and how many of them fit there."""

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
"""Seconds in which a cluster's head has to answer."""

_ROUNDING = 1e-9


@dataclass(frozen=True)
class Workers:
    """Who carries a sweep out.

    Attributes:
        address: of a running cluster, `auto` for the one of this machine; None starts Ray here, for this sweep alone.
        count: workers; None for one a GPU, or one a CPU core where there is none.
        cpus: CPU cores of each, which are its threads too.
        gpus: GPUs of each, which may be a share of one; None for one where the cluster has any.
    """

    address: str | None = None
    count: int | None = None
    cpus: int = 1
    gpus: float | None = None

    def __post_init__(self) -> None:
        if self.count is not None and self.count < 1:
            raise UsageError(f"at least one worker is needed, not {self.count}.")
        if self.cpus < 1 or (self.gpus is not None and self.gpus < 0):
            raise UsageError("a worker has at least one CPU core, and no negative share of a GPU.")
        if self.gpus is not None and self.gpus > 1 and self.gpus % 1:
            raise UsageError(f"a worker has a share of one GPU or a whole number of them, not {self.gpus:g}.")


@dataclass(frozen=True)
class Room:
    """What a cluster holds.

    Attributes:
        workers: how many are to be started: as many as were asked for, or as fit.
        gpus: of each.
    """

    workers: int
    gpus: float


def room_for(ray: Any, workers: Workers) -> Room:
    """How many workers to start, each of which needs one machine that has all that it asks for.

    More workers than fit would wait for ever, and with them the parts that they were given.

    Args:
        ray: the library, connected.
        workers: what is asked for.

    Raises:
        UsageError: if not even one fits, or fewer than were asked for.
    """
    machines: list[Mapping[str, float]] = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    largest = {kind: max((machine.get(kind, 0.0) for machine in machines), default=0.0) for kind in ("CPU", "GPU")}
    gpus = (1.0 if largest["GPU"] else 0.0) if workers.gpus is None else workers.gpus
    for kind, wanted, name in (("GPU", gpus, "GPUs"), ("CPU", workers.cpus, "CPU cores")):
        if wanted > largest[kind]:
            raise UsageError(
                f"each worker is to have {wanted:g} {name}, and the cluster has {largest[kind]:g} on its largest "
                "machine."
            )
    fit = sum(_fitting(machine, workers.cpus, gpus) for machine in machines)
    if not fit or (workers.count or 0) > fit:
        each = f"{workers.cpus} CPU cores" + (f" and {gpus:g} GPUs" if gpus else "")
        raise UsageError(
            f"{workers.count or 1} workers of {each} were asked for, and the cluster has room for {fit}; give fewer "
            "--workers, or smaller ones (--worker-cpus, --worker-gpus)."
        )
    return Room(workers.count or fit, gpus)


def _fitting(machine: Mapping[str, float], cpus: int, gpus: float) -> int:
    fit = int(machine.get("CPU", 0.0) // cpus)
    if not gpus:
        return fit
    held = int(machine.get("GPU", 0.0))
    # A share is of one GPU: two GPUs hold four workers of 0.4, not five.
    return min(fit, held * int(1 / gpus + _ROUNDING) if gpus < 1 else int(held // gpus))


def check_cluster(workers: Workers) -> None:
    """Makes sure, before anything is written, that Ray is installed, and that the cluster is there and has room.

    Raises:
        UsageError: if not.
    """
    if importlib.util.find_spec("ray") is None:
        raise UsageError(_NO_RAY)
    if workers.address is None:
        return
    if ":" in workers.address:
        host, _, port = workers.address.rpartition("//")[2].rpartition(":")
        try:
            # Ray itself would try for minutes before it gave up.
            socket.create_connection((host, int(port)), timeout=_ANSWER_SECONDS).close()
        except (OSError, ValueError) as error:
            raise UsageError(f"there is no Ray cluster at {workers.address}: {error}.") from None
    with running_cluster(workers) as ray:
        room_for(ray, workers)


@contextmanager
def running_cluster(workers: Workers) -> Generator[Any]:
    """Ray itself, connected; started for this sweep alone if no cluster was named, and stopped after it.

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
        # `local`, since without an address Ray would look for a cluster in the environment (RAY_ADDRESS).
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
