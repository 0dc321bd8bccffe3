"""The cache of traces: equal results with and without it, one forward pass, and broken entries that do no harm."""

import json
import os
from collections.abc import Iterator
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from steerlens.atlas.atlas import Atlas
from steerlens.atlas.results import Reading
from steerlens.encoders.native import NativeEncoder
from steerlens.errors import UsageError
from steerlens.images import Picture
from steerlens.loading import Pair, load
from steerlens.storage import cache_folder
from steerlens.sweep import trace_cache as cache
from steerlens.sweep.cache_contents import cached_models, clear_cache, describe
from steerlens.sweep.engine import run
from steerlens.sweep.look import look
from steerlens.sweep.options import LookOptions
from steerlens.sweep.prepare import make_job
from steerlens.sweep.trace_cache import TraceCache, trace_cache
from steerlens.testing.tiny import save_tiny_pair
from steerlens.zoo.provenance import Provenance


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("STEERLENS_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def picture(seed: int = 0) -> Picture:
    pixels = np.random.default_rng(seed).integers(0, 255, (40, 40, 3), dtype=np.uint8)
    return Picture.from_image(Image.fromarray(pixels), f"noise-{seed}")


def quick(pair: Pair, **changes: object) -> Atlas:
    return look(pair, **{"pictures": picture(), "steps": 1, "sites": "all", "cache": True, **changes})  # type: ignore[arg-type]


def entries(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*.safetensors"))


def held(pair: Pair) -> TraceCache:
    found = trace_cache(pair)
    assert found is not None
    return found


def traced(pair: Pair, seed: int = 0) -> TraceCache:
    """A cache that a picture's trace was asked of."""
    found = held(pair)
    found.trace(pair.encoder.preprocess([picture(seed).image]))
    return found


@pytest.fixture
def traces_taken(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """A list that grows by one with every trace that is really taken."""
    taken: list[int] = []
    real = NativeEncoder.trace

    def counting(self: NativeEncoder, inputs: object, *, attention: bool = False) -> object:
        taken.append(1)
        return real(self, inputs, attention=attention)  # type: ignore[arg-type]

    monkeypatch.setattr(NativeEncoder, "trace", counting)
    yield taken


def test_results_are_equal_bit_for_bit_without_with_and_from_the_cache(pair: Pair, folder: Path) -> None:
    without = quick(pair, cache=False)
    assert not folder.exists()
    filling, held = quick(pair), quick(pair)
    assert len(entries(folder)) == 1
    for other in (filling, held):
        for one, again in zip(without.results, other.results, strict=True):
            assert one.cell == again.cell
            assert one.png == again.png
            assert torch.equal(one.conditioning, again.conditioning)
            assert (one.rho, one.similarity, one.fidelity) == (again.rho, again.similarity, again.fidelity)
        one, again = without.reading(), other.reading()
        assert one.labels == again.labels
        assert torch.equal(one.embedding, again.embedding)
        assert torch.equal(one.write_norms, again.write_norms)
        assert one.attention is not None and again.attention is not None
        assert torch.equal(one.attention, again.attention)
        assert one.decomposition_error == again.decomposition_error


def test_a_trace_comes_back_laid_out_in_memory_as_it_was(pair: Pair) -> None:
    inputs = pair.encoder.preprocess([picture().image, picture(1).image])
    first, again = held(pair).trace(inputs), held(pair).trace(inputs)
    for name in cache._PARTS:
        one, other = getattr(first, name), getattr(again, name)
        assert torch.equal(one, other)
        assert one.stride() == other.stride()
    assert all(torch.equal(one, other) for one, other in zip(first.out_weights, again.out_weights, strict=True))
    assert again.check() == first.check()


def test_the_second_run_makes_no_forward_pass_for_the_trace(
    pair: Pair, traces_taken: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    quick(pair)
    assert len(traces_taken) == 1
    passes: list[int] = []
    real = type(pair.encoder).native_forward  # type: ignore[attr-defined]

    def counting(self: object, inputs: object) -> object:
        passes.append(1)
        return real(self, inputs)

    monkeypatch.setattr(type(pair.encoder), "native_forward", counting)
    job = make_job(pair, [picture()], LookOptions(steps=1, cache=True, lenses=("diffusion",)))
    next(event for event in run(job) if isinstance(event.payload, Reading))  # traced, and nothing decoded yet
    assert not passes
    assert len(traces_taken) == 1


def test_other_pictures_weights_and_precisions_are_other_entries(
    pair: Pair, traces_taken: list[int], tmp_path: Path
) -> None:
    traced(pair)
    traced(pair, 1)
    traced(load(save_tiny_pair(tmp_path / "other", seed=1), dtype="float32", device="cpu"))
    traced(load(save_tiny_pair(tmp_path / "same"), dtype="bfloat16", device="cpu"))
    assert len(traces_taken) == 4
    traced(load(tmp_path / "same", dtype="float32", device="cpu"))  # the same files in another place
    assert len(traces_taken) == 4


def test_half_precision_comes_back_as_it_was(tmp_path: Path) -> None:
    half = load(save_tiny_pair(tmp_path / "pair"), dtype="bfloat16", device="cpu")
    inputs = half.encoder.preprocess([picture().image])
    first, again = held(half).trace(inputs), held(half).trace(inputs)
    assert again.final.dtype == torch.bfloat16
    assert torch.equal(first.final, again.final)


@pytest.mark.parametrize("damage", ["truncated", "flipped", "empty", "foreign"])
def test_a_broken_entry_counts_as_absent_and_is_replaced(
    damage: str, pair: Pair, folder: Path, traces_taken: list[int]
) -> None:
    traced(pair)
    (path,) = entries(folder)
    whole = path.read_bytes()
    if damage == "foreign":
        save_file({"embed": torch.ones(2)}, path)
    else:
        flipped = bytes([*whole[:-5], whole[-5] ^ 1, *whole[-4:]])
        path.write_bytes({"truncated": whole[:100], "flipped": flipped, "empty": b""}[damage])
    traced(pair)
    assert len(traces_taken) == 2
    traced(pair)
    assert len(traces_taken) == 2
    assert path.stat().st_size == len(whole)


def test_what_was_not_used_for_longest_goes_first(
    pair: Pair, folder: Path, traces_taken: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    traced(pair)
    (first,) = entries(folder)
    size = first.stat().st_size
    monkeypatch.setenv("STEERLENS_CACHE_GB", str(3.5 * size / 1e9))
    for seed in (1, 2):
        traced(pair, seed)
    for age, path in enumerate(sorted(entries(folder), key=lambda path: path == first)):
        os.utime(path, (1e9 + age, 1e9 + age))
    os.utime(first, (1e9 - 1, 1e9 - 1))
    traced(pair)  # used again, so it is the youngest now
    before = set(entries(folder))
    traced(pair, 3)
    assert first in entries(folder)
    assert len(before - set(entries(folder))) == 1
    assert sum(path.stat().st_size for path in entries(folder)) <= 3.5 * size


def test_what_other_processes_write_counts_towards_the_limit(
    pair: Pair, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = traced(pair)
    size = entries(folder)[0].stat().st_size
    monkeypatch.setattr(cache, "_WRITES_A_COUNT", 2)
    monkeypatch.setenv("STEERLENS_CACHE_GB", str(10.5 * size / 1e9))
    ours = held(pair)
    ours.trace(pair.encoder.preprocess([picture(1).image]))
    for seed in range(2, 12):  # another process fills it, whose limit is a larger one
        first.trace(pair.encoder.preprocess([picture(seed).image]))
    assert len(entries(folder)) == 12
    for seed in range(12, 14):
        ours.trace(pair.encoder.preprocess([picture(seed).image]))
    assert sum(path.stat().st_size for path in entries(folder)) <= 10.5 * size


def test_a_trace_larger_than_the_limit_is_not_kept(pair: Pair, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STEERLENS_CACHE_GB", "1e-6")
    assert "above the cache" in traced(pair).notes[0]
    assert not entries(folder)


def test_a_folder_that_cannot_be_written_breaks_nothing_and_is_said_once(
    pair: Pair, folder: Path, traces_taken: list[int]
) -> None:
    folder.parent.joinpath("cache").write_text("a file where the folder should be")
    filled = held(pair)
    for seed in range(3):
        filled.trace(pair.encoder.preprocess([picture(seed).image]))
    assert len(traces_taken) == 3
    assert len(filled.notes) == 1
    assert "cannot be written" in filled.notes[0]


def test_a_full_disk_breaks_nothing(pair: Pair, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("steerlens.storage.files.os.fsync", full)
    (note,) = traced(pair).notes
    assert "No space left" in note
    assert not [path for path in folder.rglob("*") if path.is_file()]


def test_an_encoder_of_unknown_weights_is_not_cached(pair: Pair) -> None:
    assert trace_cache(replace(pair, provenance=Provenance())) is None
    configs = Provenance(sha256={"image_encoder/config.json": "00"})
    assert trace_cache(replace(pair, provenance=configs)) is None


def test_the_cache_can_be_turned_off_and_refuses_a_limit_that_makes_no_sense(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STEERLENS_CACHE_GB", "0")
    assert trace_cache(pair) is None
    monkeypatch.setenv("STEERLENS_CACHE_GB", "lots")
    with pytest.raises(UsageError, match="gigabytes"):
        trace_cache(pair)


def test_regions_need_what_is_not_kept(pair: Pair) -> None:
    from steerlens.lenses.components import named_components

    regions = named_components((), ("L1H0:0,0,8,8",), 3, 2)
    assert make_job(pair, [picture()], LookOptions(cache=True), directions=regions).traces is None
    groups = named_components(("late=head.1-2.*",), (), 3, 2)
    assert make_job(pair, [picture()], LookOptions(cache=True), directions=groups).traces is not None


def test_the_folder_follows_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert cache_folder() == tmp_path / "cache"
    monkeypatch.delenv("STEERLENS_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_folder() == tmp_path / "xdg" / "steerlens"
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    assert cache_folder() == Path.home() / ".cache" / "steerlens"


def test_clearing_removes_the_traces_of_one_model_or_all_and_nothing_else(
    pair: Pair, folder: Path, tmp_path: Path
) -> None:
    other = load(save_tiny_pair(tmp_path / "other", seed=1), dtype="float32", device="cpu")
    traced(pair)
    traced(other)
    (folder / "traces" / "notes.txt").write_text("mine")
    assert {model.name for model in cached_models(folder)} == {pair.encoder.spec.name, other.encoder.spec.name}
    with pytest.raises(UsageError, match="no traces of 'unheard'"):
        clear_cache(folder, "unheard")
    clear_cache(folder, other.encoder.spec.name)
    (left,) = cached_models(folder)
    assert (left.name, left.entries) == (pair.encoder.spec.name, 1)
    description = json.loads((left.folder / "model.json").read_text())
    assert "image_encoder/model.safetensors" in description["sha256"]
    clear_cache(folder)
    assert [path.name for path in folder.rglob("*")] == ["traces", "notes.txt"]


FOREIGN = [
    "notes.txt",
    "experiment/activations.safetensors",
    "experiment/model.json",
    "experiment/.git.keep",
    f"0123456789abcdef/{'0' * 64}.safetensors",
    "0123456789abcdef/model.json",
]


def add_foreign(folder: Path, ours: Path) -> list[Path]:
    """Files that steerlens did not write, beside its traces and among them."""
    among = ["mine.safetensors", ".env.local", f".{'0' * 64}.safetensors.bak", f"{'0' * 63}g.safetensors"]
    files = [*(folder / "traces" / name for name in FOREIGN), *(ours / name for name in among)]
    for path in files:
        path.parent.mkdir(exist_ok=True)
        path.write_text('{"name": "mine"}')
    return files


def test_files_that_are_not_ours_are_neither_removed_nor_counted_as_traces(
    pair: Pair, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    traced(pair)
    (entry,) = entries(folder)
    files = add_foreign(folder, entry.parent)
    for path in files:
        os.utime(path, (1e9, 1e9))  # the oldest of all
    assert [model.entries for model in cached_models(folder)] == [1]
    monkeypatch.setenv("STEERLENS_CACHE_GB", str(1.5 * entry.stat().st_size / 1e9))
    traced(pair, 1)  # passes the limit
    assert all(path.is_file() for path in files)
    assert len(cached_models(folder)) == 1
    cleared = clear_cache(folder)
    assert cleared.foreign == len(files)
    assert sorted(path for path in folder.rglob("*") if path.is_file()) == sorted(files)


def test_what_dead_processes_left_is_removed(pair: Pair, folder: Path) -> None:
    traced(pair)
    (entry,) = entries(folder)
    for end in ("a8d_k2x1.steerlens", "a8d_k2x1"):  # of this version and an earlier one
        (entry.parent / f".{entry.name}.{end}").write_text("half")
    clear_cache(folder)
    assert not list((folder / "traces").iterdir())


def test_a_folder_of_traces_that_is_a_link_is_left_alone(pair: Pair, folder: Path) -> None:
    traced(pair)
    (entry,) = entries(folder)
    entry.parent.rename(folder / entry.parent.name)
    entry.parent.symlink_to(folder / entry.parent.name)
    assert not cached_models(folder)
    assert not clear_cache(folder).models
    assert (folder / entry.parent.name / entry.name).is_file()
    assert "link" in traced(pair, 1).notes[0]


def test_traces_of_the_version_before_are_known_by_their_layout(folder: Path) -> None:
    conditions = {"format": 1, "sha256": {"image_encoder/model.safetensors": "00"}, "device": ["cpu", "x86_64"]}
    name, description = describe("mine", conditions)
    assert name == "eab795bfe5c2dac0"  # as that version named it
    place = folder / "traces" / name
    place.mkdir(parents=True)
    (place / "model.json").write_bytes(description)
    (place / f"{'a' * 64}.safetensors").write_bytes(b"1234")
    (model,) = cached_models(folder)
    assert (model.name, model.entries, model.size) == ("mine", 1, 4)


def _fill(pair_folder: Path, seeds: range) -> None:
    torch.set_num_threads(1)
    pair = load(pair_folder, dtype="float32", device="cpu")
    for _ in range(3):
        for seed in seeds:
            traced(pair, seed)


def test_several_processes_share_it(pair: Pair, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = save_tiny_pair(folder.parent / "pair")
    traced(pair)
    (entry,) = entries(folder)
    monkeypatch.setenv("STEERLENS_CACHE_GB", str(4.5 * entry.stat().st_size / 1e9))  # so that all of them clear it too
    fork = get_context("fork")
    workers = [fork.Process(target=_fill, args=(place, range(start, start + 6))) for start in (0, 3, 5)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert [worker.exitcode for worker in workers] == [0, 0, 0]
    for seed in range(11):
        inputs = pair.encoder.preprocess([picture(seed).image])
        assert torch.equal(held(pair).trace(inputs).embedding, pair.encoder.embed(inputs))
