"""The Ray engine: workers that load the models once and compute small parts; only the caller stores results.

Workers are actors, each with its own pair. A worker gets parts once it has confirmed that its models are loaded and
equal the caller's; it has two parts at a time, so that it never waits for the next. If a worker or node dies, its
parts go to other workers. Every cell reaches the store from here, once.

References: P. Moritz et al., "Ray: a Distributed Framework for Emerging AI Applications", arXiv 1712.05889.
"""

import math
from collections.abc import Callable, Iterator

from steerlens.decoders import BatchSize
from steerlens.errors import ModelError
from steerlens.progress import Progress
from steerlens.sweep.job import Job
from steerlens.sweep.ray.cluster import Workers, room_for, running_cluster
from steerlens.sweep.ray.parts import PartQueue, SweepPart
from steerlens.sweep.ray.pool import TRIES, WorkerPool, last_line
from steerlens.zoo import Pair


def run_on_ray(
    job: Job,
    workers: Workers,
    load: Callable[[], Pair],
    finished: frozenset[str] = frozenset(),
    read: frozenset[str] = frozenset(),
) -> Iterator[Progress]:
    """Runs a job on Ray; yields the same events as `steerlens.sweep.engine.run`.

    Args:
        job: the job.
        workers: number, place and size of the workers.
        load: loads the pair on a worker's machine; it travels there pickled.
        finished: keys of cells that an earlier call finished; they are left out.
        read: ids of pictures whose reading is stored.

    Raises:
        UsageError: if Ray is not installed, there is no cluster at the address, or it has no room for the workers.
        ModelError: if workers cannot start, have other models, or keep dying on one part.
        SteerlensError: for the same reasons as in the local engine.
    """
    queue = PartQueue(job, finished, read)
    if not queue.is_left:
        return
    yield Progress("decoding", 0, queue.total, "pictures")
    yield Progress("starting workers", 0, workers.count or 1, "workers")
    with running_cluster(workers) as ray:
        room = room_for(ray, workers)
        batches = math.ceil(queue.total / BatchSize(job.decoder, job.options).size)
        pool = WorkerPool(ray, workers, room, load, job, min(room.workers, max(1, batches)))
        try:
            yield from _follow(pool, queue)
        finally:
            pool.dismiss()


def _follow(pool: WorkerPool, queue: PartQueue) -> Iterator[Progress]:
    tries: dict[SweepPart, int] = {}
    while queue.is_left:
        while pool.has_room and (part := queue.take(pool.batch, pool.size)) is not None:
            tries[part] = tries.get(part, 0) + 1
            if tries[part] > TRIES:
                names = ", ".join(picture.name for picture in part.pictures.values())
                raise ModelError(
                    f"workers died {TRIES} times on one part of picture {names} ({last_line(pool.cause)}); finished "
                    "pictures are kept. The usual cause is lack of memory: give a smaller --batch-size, or fewer "
                    "workers on each machine."
                ) from pool.cause
            pool.give(part)
        answer = pool.next()
        if answer is None:
            if pool.starting:
                yield Progress("starting workers", pool.size - pool.starting, pool.size, "workers")
            continue
        part, result = answer
        if result is None:
            queue.put_back(part)
            continue
        tries.pop(part)
        queue.finish(part, result)
        for payload in result.finished:
            yield Progress("decoding", queue.decoded, queue.total, "pictures", payload)
        yield Progress("decoding", queue.decoded, queue.total, "pictures")
