"""Decoding in batches as large as pays and as memory allows.

They grow while that is faster, and halve when memory runs out.

A decoder promises that a picture depends on its own conditioning and seed alone, so that the size of a batch may change
at any time; a batch that did not fit is decoded again in smaller ones, and what came before it is kept.
"""

import gc
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import TypeVar

import torch

from steerlens.borders import native_errors
from steerlens.borders import out_of_memory as out_of_memory
from steerlens.conditioning import Conditioning
from steerlens.decoders.base import Decoded, DecodeOptions, Decoder
from steerlens.errors import ModelError
from steerlens.progress import Progress

_Result = TypeVar("_Result")

_WORTH = 1.1
"""How much faster twice the batch must be to be kept."""

_LARGEST = 8
"""Times the size a decoder suggests beyond which batches do not grow."""

_FALLBACK = 8
"""Pictures at once for a decoder that says nothing about it."""


class BatchSize:
    """How many pictures to decode at once.

    It begins with what the options or the decoder say. If it may grow, it is doubled as long as twice the batch makes
    at least a tenth more pictures a second; the first batch of every size is not timed, since it allocates memory and
    may compile. When memory runs out, it is halved for good.

    Args:
        decoder: whose batches.
        options: how it decodes; a batch size in them does not grow.
        grows: whether it may grow. In half precision the last bits of a picture depend on the size of its batch, so
            what must come out the same again does not let it.
        clock: seconds, for tests.

    Attributes:
        size: of the next batch.
    """

    def __init__(
        self,
        decoder: Decoder,
        options: DecodeOptions,
        *,
        grows: bool = False,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        chooser: Callable[[DecodeOptions], int] | None = getattr(decoder, "batch_size", None)
        suggested = _FALLBACK if chooser is None else chooser(options)
        self.size = options.batch_size or suggested
        self.clock = clock
        self._settled = not grows or options.batch_size is not None
        self._ceiling = _LARGEST * self.size
        self._warm, self._best = False, 0.0

    def timed(self, pictures: int, seconds: float) -> None:
        """Tells how long a batch took."""
        if self._settled or pictures < self.size:
            return
        if not self._warm:
            self._warm = True
            return
        rate = pictures / max(seconds, 1e-9)
        if rate < _WORTH * self._best:
            self.size, self._settled = self.size // 2, True
        elif 2 * self.size > self._ceiling:
            self._settled = True
        else:
            self.size, self._best, self._warm = 2 * self.size, rate, False

    def did_not_fit(self, pictures: int) -> None:
        """Tells that a batch of so many pictures did not fit into memory."""
        self.size, self._settled = max(1, pictures // 2), True


def decode_in_batches(
    decoder: Decoder, conditioning: Conditioning, seeds: Sequence[int], options: DecodeOptions, batch: BatchSize
) -> Iterator[Progress]:
    """Decodes batch after batch, in smaller batches where memory runs out; yields what `Decoder.decode_batches` does.

    Args:
        decoder: turns conditionings into pictures.
        conditioning: what it consumes, N rows.
        seeds: one a row.
        options: how to decode; `batch` takes the place of their batch size.
        batch: the size of batches, which learns from them.

    Raises:
        ModelError: if a single picture does not fit into memory, or as the decoder does.
    """
    start = 0
    while start < len(seeds):
        stop = min(start + batch.size, len(seeds))
        began = batch.clock()
        chosen = replace(options, batch_size=stop - start)
        try:
            with native_errors(f"{decoder.spec.name}: decoding failed"):
                for event in decoder.decode_batches(conditioning.rows(start, stop), seeds[start:stop], chosen):
                    payload = event.payload
                    if isinstance(payload, Decoded):
                        payload = replace(payload, first=start + payload.first)
                    yield replace(event, done=start + event.done, total=len(seeds), payload=payload)
        except (RuntimeError, MemoryError) as error:
            if not out_of_memory(error):
                raise
            if stop - start == 1:
                raise ModelError(
                    f"{decoder.spec.name}: not even one picture of {options.size[0]} x {options.size[1]} pixels fits "
                    "into memory; take another --device, a half precision (--dtype), or smaller pictures."
                ) from error
            batch.did_not_fit(stop - start)
        else:
            batch.timed(stop - start, batch.clock() - began)
            start = stop
            continue
        _free()


def computed_in_batches(
    compute: Callable[[int, int], Sequence[_Result]], count: int, batch: BatchSize, what: str
) -> list[_Result]:
    """Results of rows that are computed all at once, or in halves where memory runs out.

    Args:
        compute: gives the results of the rows from a first one to before a last one.
        count: rows.
        batch: the size of batches, which is halved with them.
        what: what does not fit if not even one row does, for the message.

    Raises:
        ModelError: if a single row does not fit into memory.
    """
    results: list[_Result] = []
    size = count
    while len(results) < count:
        start, stop = len(results), min(len(results) + size, count)
        try:
            found = compute(start, stop)
        except (RuntimeError, MemoryError) as error:
            if not out_of_memory(error):
                raise
            if stop - start == 1:
                raise ModelError(_does_not_fit(what)) from error
            size = (stop - start) // 2
            batch.did_not_fit(stop - start)
        else:
            results += found
            continue
        _free()
    return results


@contextmanager
def fitting(what: str) -> Generator[None]:
    """Says clearly that something does not fit into memory which cannot be done in smaller batches.

    Raises:
        ModelError: if memory runs out inside.
    """
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not out_of_memory(error):
            raise
        raise ModelError(_does_not_fit(what)) from error


def _does_not_fit(what: str) -> str:
    return f"{what} does not fit into memory; take another --device, or a half precision (--dtype)."


def _free() -> None:
    # To be called outside the handler: the exception holds on to the very tensors that did not fit.
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
