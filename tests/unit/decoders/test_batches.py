"""Batches that grow while that is faster and shrink when memory runs out."""

from collections.abc import Iterator, Sequence

import pytest
import torch

from steerlens.conditioning import Conditioning
from steerlens.decoders.base import Decoded, DecodeOptions, DecoderSpec
from steerlens.decoders.batches import BatchSize, computed_in_batches, decode_in_batches, fitting, out_of_memory
from steerlens.errors import ModelError
from steerlens.progress import Progress

OPTIONS = DecodeOptions(2, 1.0, "ddim", (4, 4))


class Fake:
    """A decoder whose pictures are their conditioning; batches above `fits` run out of memory half-way."""

    spec = DecoderSpec("fake", "fake", "image_embedding", 3, OPTIONS)

    def __init__(self, suggested: int = 4, fits: int = 1000, error: type[Exception] | None = None) -> None:
        self.suggested, self.fits, self.error = suggested, fits, error
        self.batches: list[int] = []

    def batch_size(self, options: DecodeOptions) -> int:
        return options.batch_size or self.suggested

    def decode_batches(
        self, conditioning: Conditioning, seeds: Sequence[int], options: DecodeOptions | None = None
    ) -> Iterator[Progress]:
        assert options is not None
        assert options.batch_size == len(seeds) == len(conditioning)
        self.batches.append(len(seeds))
        yield Progress("decoding", len(seeds) / 3, len(seeds), "pictures")
        if len(seeds) > self.fits:
            if self.error is not None:
                raise self.error("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes.")
            raise torch.OutOfMemoryError("CUDA out of memory.")
        pictures = conditioning.values[:, :, None, None].expand(-1, 3, 4, 4)
        yield Progress("decoding", len(seeds), len(seeds), "pictures", Decoded(0, pictures))


def decoded(decoder: Fake, count: int, options: DecodeOptions = OPTIONS) -> tuple[torch.Tensor, BatchSize]:
    values, batch = torch.arange(3.0 * count).view(count, 3), BatchSize(decoder, options)
    found: dict[int, torch.Tensor] = {}
    for event in decode_in_batches(
        decoder, Conditioning("image_embedding", values), list(range(count)), options, batch
    ):
        assert event.total == count
        batch_done = event.payload
        if isinstance(batch_done, Decoded):
            assert batch_done.first not in found
            assert event.done == batch_done.first + len(batch_done.pictures)
            found[batch_done.first] = batch_done.pictures
    pictures = torch.cat([found[first] for first in sorted(found)])
    assert torch.equal(pictures[:, :, 0, 0], values)
    return pictures, batch


@pytest.mark.parametrize("error", [None, RuntimeError, MemoryError])
def test_a_batch_that_does_not_fit_is_decoded_again_in_halves_and_nothing_twice(error: type[Exception] | None) -> None:
    decoder = Fake(suggested=8, fits=3, error=error)
    _, batch = decoded(decoder, 13)
    assert decoder.batches == [8, 4, 2, 2, 2, 2, 2, 2, 1]
    assert batch.size == 2


def test_a_size_that_was_asked_for_is_kept_and_still_halved_when_it_does_not_fit() -> None:
    decoder = Fake(suggested=2)
    decoded(decoder, 12, DecodeOptions(2, 1.0, "ddim", (4, 4), batch_size=5))
    assert decoder.batches == [5, 5, 2]
    tight = Fake(fits=2)
    decoded(tight, 8, DecodeOptions(2, 1.0, "ddim", (4, 4), batch_size=4))
    assert tight.batches == [4, 2, 2, 2, 2]


def test_one_picture_that_does_not_fit_is_said() -> None:
    with pytest.raises(ModelError, match="not even one picture of 4 x 4 pixels fits into memory"):
        decoded(Fake(fits=0), 3)


def test_another_error_is_not_taken_for_want_of_memory() -> None:
    class Broken(Fake):
        def decode_batches(
            self, conditioning: Conditioning, seeds: Sequence[int], options: DecodeOptions | None = None
        ) -> Iterator[Progress]:
            raise RuntimeError("shapes do not match")
            yield

    with pytest.raises(ModelError, match=r"fake: decoding failed: shapes do not match\.") as refused:
        decoded(Broken(), 3)
    assert isinstance(refused.value.__cause__, RuntimeError)


def sizes(rates: dict[int, float], count: int) -> list[int]:
    """Sizes of successive batches, where a batch of a size makes so many pictures a second."""
    batch, seen = BatchSize(Fake(suggested=4), OPTIONS, grows=True), list[int]()
    for _ in range(count):
        seen.append(batch.size)
        batch.timed(batch.size, batch.size / rates[batch.size])
    return seen


def test_batches_grow_while_that_is_faster() -> None:
    assert sizes({4: 10, 8: 15, 16: 16, 32: 1}, 8) == [4, 4, 8, 8, 16, 16, 8, 8]
    assert sizes({4: 10, 8: 5}, 6) == [4, 4, 8, 8, 4, 4]


def test_batches_stop_growing_at_eight_times_what_the_decoder_suggests() -> None:
    assert sizes({4: 1, 8: 2, 16: 4, 32: 8}, 10) == [4, 4, 8, 8, 16, 16, 32, 32, 32, 32]


def test_batches_keep_their_size_where_pictures_must_come_out_the_same_again() -> None:
    batch = BatchSize(Fake(suggested=4), OPTIONS)
    for _ in range(6):
        batch.timed(4, 4 / batch.size)
    assert batch.size == 4


def test_a_last_batch_that_is_not_full_tells_nothing() -> None:
    batch = BatchSize(Fake(suggested=4), OPTIONS, grows=True)
    for _ in range(5):
        batch.timed(3, 1e-6)
    assert batch.size == 4


@pytest.mark.parametrize(
    "said",
    [
        "CUDA error: out of memory",
        "MPS backend out of memory (MPS allocated: 9 GB)",
        "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`",
        "cuDNN error: CUDNN_STATUS_ALLOC_FAILED",
        "cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED",
        "DefaultCPUAllocator: not enough memory: you tried to allocate 9 bytes.",
    ],
)
def test_memory_that_ran_out_is_known_by_what_is_said(said: str) -> None:
    assert out_of_memory(RuntimeError(said))


def test_rows_that_do_not_fit_together_are_computed_in_halves_and_none_twice() -> None:
    asked: list[tuple[int, int]] = []

    def double(start: int, stop: int) -> list[int]:
        asked.append((start, stop))
        if stop - start > 3:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return [2 * row for row in range(start, stop)]

    batch = BatchSize(Fake(suggested=16), OPTIONS)
    assert computed_in_batches(double, 13, batch, "a row") == [2 * row for row in range(13)]
    assert asked == [(0, 13), (0, 6), (0, 3), (3, 6), (6, 9), (9, 12), (12, 13)]
    assert batch.size == 3
    with pytest.raises(RuntimeError, match="shapes"):
        computed_in_batches(lambda start, stop: (_ for _ in ()).throw(RuntimeError("shapes")), 2, batch, "a row")


def test_one_row_that_does_not_fit_is_said() -> None:
    def never(start: int, stop: int) -> list[int]:
        raise MemoryError

    with pytest.raises(ModelError, match="a row does not fit into memory"):
        computed_in_batches(never, 4, BatchSize(Fake(), OPTIONS), "a row")
    with pytest.raises(ModelError, match="tracing does not fit into memory"), fitting("tracing"):
        raise torch.OutOfMemoryError("CUDA out of memory.")
    with pytest.raises(ValueError, match="other"), fitting("tracing"):
        raise ValueError("other")
