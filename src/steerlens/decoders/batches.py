"""Decoding in batches that grow while larger batches are faster, and halve when memory runs out.

A picture depends only on its own conditioning and seed, so the size of a batch may change at any time. A batch that did
not fit is decoded again in smaller batches; finished pictures are kept.
"""

import gc
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import TypeVar

import torch

from steerlens.borders import out_of_memory as out_of_memory
from steerlens.conditioning import Conditioning
from steerlens.decoders.base import Decoded, DecodeOptions, Decoder, decode_events
from steerlens.errors import ModelError
from steerlens.progress import Progress

_Result = TypeVar("_Result")

_WORTH = 1.1
"""Speed-up that a doubled batch must reach to be kept."""

_LARGEST = 8
"""Largest batch, as a multiple of the size that the decoder suggests."""

_FALLBACK = 8
"""Batch size for a decoder that suggests none."""


class BatchSize:
    """Number of pictures to decode at once, adapted to speed and memory.

    Starts at the size that the options or the decoder give. If it may grow, it doubles as long as the doubled batch
    decodes at least a tenth more pictures per second; the first batch of every size is not timed, since it allocates
    memory and may compile. When memory runs out, it halves permanently.

    Args:
        decoder: the decoder.
        options: its options; a batch size in them does not grow.
        grows: whether it may grow. In half precision the last bits of a picture depend on the size of its batch, so
            reproducible runs turn this off.
        clock: returns seconds; replaced in tests.

    Attributes:
        size: size of the next batch.
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
        """Records the duration of a batch."""
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
        """Records that a batch of this many pictures did not fit into memory."""
        self.size, self._settled = max(1, pictures // 2), True


def decode_in_batches(
    decoder: Decoder, conditioning: Conditioning, seeds: Sequence[int], options: DecodeOptions, batch: BatchSize
) -> Iterator[Progress]:
    """Decodes batch by batch, in smaller batches if memory runs out; yields the events of `Decoder.decode_batches`.

    Args:
        decoder: the decoder.
        conditioning: its conditioning, N rows.
        seeds: one per row.
        options: options of decoding; `batch` replaces their batch size.
        batch: the size of batches, updated after each batch.

    Raises:
        ModelError: if a single picture does not fit into memory, or as the decoder does.
        UsageError: if autocast is on.
    """
    start = 0
    while start < len(seeds):
        stop = min(start + batch.size, len(seeds))
        began = batch.clock()
        chosen = replace(options, batch_size=stop - start)
        try:
            for event in decode_events(decoder, conditioning.rows(start, stop), seeds[start:stop], chosen):
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
    """Computes results of rows all at once, or in halves if memory runs out.

    Args:
        compute: returns the results of rows `start` to `stop`, the latter excluded.
        count: number of rows.
        batch: the size of batches, halved when memory runs out.
        what: description for the message if a single row does not fit.

    Raises:
        ModelError: if a single row does not fit into memory.
    """
    results: list[_Result] = []
    size = count
    while len(results) < count:
        start, stop = len(results), min(len(results) + size, count)
        try:
            rows = compute(start, stop)
        except (RuntimeError, MemoryError) as error:
            if not out_of_memory(error):
                raise
            if stop - start == 1:
                raise ModelError(_does_not_fit(what)) from error
            size = (stop - start) // 2
            batch.did_not_fit(stop - start)
        else:
            results += rows
            continue
        _free()
    return results


@contextmanager
def fitting(what: str) -> Generator[None]:
    """Turns running out of memory into a clear message, for work that cannot be split into smaller batches.

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
    # Call this outside the handler: the exception keeps the tensors that did not fit alive.
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
