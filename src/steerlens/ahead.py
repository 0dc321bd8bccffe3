"""Work done ahead by threads: reading and preparing the next pictures while a model is busy with the last."""

import os
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")

_MOST_THREADS = 8


def mapped_ahead(
    function: Callable[[_Item], _Result], items: Iterable[_Item], *, ahead: int = 32
) -> Generator[_Result]:
    """Yields `function(item)` of every item, in order; the next few are computed meanwhile.

    Pillow and NumPy let other threads run while they decode and scale, so this also uses several cores.

    Args:
        function: called in other threads; what it raises is raised here, in its item's turn.
        items: the items; they are taken from the iterable in the calling thread.
        ahead: most results that wait at a time, which bounds memory.
    """
    threads = min(_MOST_THREADS, os.cpu_count() or 1)
    left, waiting = iter(items), deque[Future[_Result]]()
    pool = ThreadPoolExecutor(threads, thread_name_prefix="steerlens-ahead")
    try:
        waiting.extend(pool.submit(function, item) for item in islice(left, max(ahead, 1)))
        while waiting:
            result = waiting.popleft().result()
            waiting.extend(pool.submit(function, item) for item in islice(left, 1))
            yield result
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
