"""Pipes in place of files that commands read: refused with a message that names them, and not waited for."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from steerlens.decoders.flux_redux.weights import read_embedder, read_norm
from steerlens.decoders.ip_adapter.weights import is_plus, read_adapter
from steerlens.decoders.neighbours.index import read_index
from steerlens.encoders.folders import _load
from steerlens.errors import SteerlensError
from steerlens.images import Picture
from steerlens.runs.store import load_run
from steerlens.scenes.pictures import load_pictures
from steerlens.storage.sums import check_sum
from steerlens.storage.weights import read_tensors
from steerlens.studies.shared.folder import read_json
from steerlens.sweep.cache_contents import is_described
from steerlens.sweep.look import look
from steerlens.sweep.trace_cache import _read_entry
from steerlens.training.checkpoint import load_checkpoint, read_weights, stored_facts, stored_shape
from steerlens.zoo.pair import Pair


def put_pipe(path: Path) -> Path:
    path.unlink(missing_ok=True)
    os.mkfifo(path)
    return path


def beside(path: Path, name: str) -> Path:
    (path.parent / name).write_text("{}")
    return path.parent


def with_config(folder: Path) -> Path:
    (folder / "config.json").write_text("{}")
    return folder


READERS: dict[str, Callable[[Path], object]] = {
    "adapter.safetensors": read_adapter,
    "plus.safetensors": is_plus,
    "open_clip_model.safetensors": _load,
    "study.json": read_json,
    "image_embedder.safetensors": read_embedder,
    "model.safetensors": lambda path: read_norm(with_config(path.parent)),
    "values.safetensors": load_checkpoint,
    "header.safetensors": stored_facts,
    "shape.safetensors": lambda path: stored_shape(path, "values"),
    "weights.safetensors": read_weights,
    "pictures.safetensors": lambda path: load_pictures(beside(path, "pictures.json")),
    "pictures.json": lambda path: load_pictures(beside(path, "pictures.safetensors")),
    "SHA256SUMS": lambda path: check_sum(path.parent, "a", b"", "write it again"),
}


@pytest.mark.parametrize("name", READERS)
def test_a_pipe_is_refused_by_name(name: str, tmp_path: Path) -> None:
    with pytest.raises(SteerlensError, match=rf"{name}.*is not a regular file"):
        READERS[name](put_pipe(tmp_path / name))


def test_a_shard_that_is_a_pipe_is_refused(tmp_path: Path) -> None:
    put_pipe(tmp_path / "shard.safetensors")
    (tmp_path / "model.safetensors.index.json").write_text('{"weight_map": {"a": "shard.safetensors"}}')
    with pytest.raises(SteerlensError, match=r"shard\.safetensors is not a regular file"):
        read_tensors(tmp_path, "image_encoder")


def test_embeddings_of_an_index_that_are_a_pipe_are_refused(tmp_path: Path) -> None:
    (tmp_path / "neighbours.json").write_text("{}")
    save_file({"embeddings": torch.ones(1, 2)}, tmp_path / "neighbours.safetensors")
    put_pipe(tmp_path / "neighbours.safetensors")
    with pytest.raises(SteerlensError, match="not a regular file"):
        read_index(tmp_path)


def test_a_cached_trace_that_is_a_pipe_is_computed_again(tmp_path: Path) -> None:
    assert _read_entry(put_pipe(tmp_path / "entry.safetensors")) is None
    assert not is_described(put_pipe(tmp_path / "model.json").parent)


def test_hashes_of_a_run_that_are_a_pipe_are_refused(pair: Pair, tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 255, (16, 16, 3), dtype=np.uint8)
    picture = Picture.from_image(Image.fromarray(pixels), "noise")
    look(pair, [picture], sites="head.0.0", lenses="diffusion", steps=1, folder=tmp_path / "run")
    shutil.copytree(tmp_path / "run", tmp_path / "copy")
    put_pipe(tmp_path / "copy" / "SHA256SUMS")
    with pytest.raises(SteerlensError, match="SHA256SUMS cannot be read: it is not a regular file"):
        load_run(tmp_path / "copy")
