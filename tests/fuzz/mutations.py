"""Mutations of valid files, drawn from a seeded generator."""

import io
import json
import os
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import torch

SPECIAL = (
    b"\0",
    b"\xff" * 8,
    b"\x7f\xff\xff\xff",
    b"\x80\0\0\0",
    b"IDAT",
    b"IEND",
    b"../",
    b"\x1b[31m",
    b"PAR1",
    b"{",
    b"\n",
)

EXTREMES: tuple[Any, ...] = (
    *(0, -1, 1, 2, 10**6, 10**9, 2**31, 2**63, 10**400, 1e308, -1e-308, float("inf"), float("nan"), 0.5),
    *("", "x" * 100_000, "../../victim/file", "/etc/passwd", "\0", "\x1b]0;title\x07", "\u202egnp.exe", "hf-hub:a/b"),
    *(None, True, [], {}, [[]], [0] * 10_000, {"a": {"a": {"a": 1}}}, "=1+1", "-1", "1e9", "model", "\ud800"),
)

STRANGE_KEYS: tuple[tuple[str, Any], ...] = (
    ("auto_map", {"AutoModel": "evil.Evil", "AutoImageProcessor": "evil.Evil"}),
    ("attn_implementation", "kernels-community/flash-attn"),
    ("_attn_implementation", "flash_attention_2"),
    ("quantization_config", {"quant_method": "bitsandbytes", "load_in_8bit": True}),
    ("trust_remote_code", True),
    ("model_args", {"checkpoint_path": "../../victim/file"}),
    ("return_dict", False),
    ("torch_dtype", "float8_e4m3fn"),
    ("architectures", ["LlamaForCausalLM"]),
    ("model_type", "llama"),
    ("_class_name", "StableDiffusionPipeline"),
)


def mutated_bytes(data: bytes, rng: Random) -> bytes:
    """Bytes with one to four changes: flipped, overwritten, removed, doubled, put in, or cut off."""
    changed = bytearray(data)
    for _ in range(rng.randint(1, 4)):
        place = rng.randrange(len(changed) + 1)
        size = min(rng.choice((1, 2, 8, 64, 1024)), len(changed) - place)
        kind = rng.randrange(6)
        if kind == 0 and place < len(changed):
            changed[place] ^= 1 << rng.randrange(8)
        elif kind == 1:
            changed[place : place + size] = rng.randbytes(size)
        elif kind == 2:
            del changed[place : place + size]
        elif kind == 3:
            changed[place:place] = changed[place : place + size] * rng.choice((1, 2, 50))
        elif kind == 4:
            changed[place:place] = rng.choice(SPECIAL)
        elif rng.random() < 0.5:
            del changed[place:]
    return bytes(changed)


def mutated_value(content: Any, rng: Random) -> Any:
    """Parsed JSON with one to three entries replaced, removed, doubled or added."""
    for _ in range(rng.randint(1, 3)):
        content = _mutated_once(content, rng)
    return content


def _mutated_once(content: Any, rng: Random) -> Any:
    places = list(_places(content))
    if not places or rng.random() < 0.02:
        return rng.choice(EXTREMES)
    holder, key = rng.choice(places)
    kind = rng.randrange(10)
    if kind == 0:
        del holder[key]
    elif kind == 1 and isinstance(holder, dict):
        name, value = rng.choice(STRANGE_KEYS)
        holder[name] = value
    elif kind == 2:
        holder[key] = [holder[key]] * rng.choice((2, 1000))
    elif kind == 3:
        other, name = rng.choice(places)
        holder[key] = (
            other.get(name) if isinstance(other, dict) else other[min(name, len(other) - 1)] if other else None
        )
    elif kind == 4 and isinstance(holder[key], int | float) and not isinstance(holder[key], bool):
        holder[key] = holder[key] * rng.choice((-1, 2, 10, 1000, 0.5))
    else:
        holder[key] = rng.choice(EXTREMES)
    return json.loads(json.dumps(content)) if _is_tree(content) else content


def _is_tree(content: Any) -> bool:
    try:
        return len(json.dumps(content)) < 10**7
    except (ValueError, RecursionError):
        return False


def _places(content: Any) -> "list[tuple[Any, Any]]":
    found: list[tuple[Any, Any]] = []
    waiting = [content]
    while waiting and len(found) < 5000:
        value = waiting.pop()
        keys = list(value) if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()
        found += [(value, key) for key in keys]
        waiting += [value[key] for key in keys]
    return found


def mutated_json(data: bytes, rng: Random) -> bytes:
    """A JSON file, mutated in its content or, more seldom, in its bytes."""
    if rng.random() < 0.2:
        return mutated_bytes(data, rng)
    return _dumped(mutated_value(json.loads(data), rng))


def _dumped(content: Any) -> bytes:
    try:
        return json.dumps(content).encode()
    except ValueError:  # numbers of more digits than are written
        return b"1" * 5000


def mutated_safetensors(data: bytes, rng: Random) -> bytes:
    """A safetensors file with another header, other bytes or another end."""
    if rng.random() < 0.4:
        return mutated_bytes(data, rng)
    length = int.from_bytes(data[:8], "little")
    header = _dumped(mutated_value(json.loads(data[8 : 8 + length]), rng))
    size = len(header) if rng.random() < 0.8 else rng.choice((0, 2**63 - 1, len(header) + 100))
    return size.to_bytes(8, "little") + header + data[8 + length :]


class Foreign:
    """An object that no reader of plain tensors may build."""


def mutated_tensors(path: Path, rng: Random) -> None:
    """Rewrites a PyTorch file, with a header line if it has one, with one or two other entries."""
    data = path.read_bytes()
    header, content = (
        (data[: data.index(b"\n") + 1], data[data.index(b"\n") + 1 :]) if data[:1] == b"{" else (b"", data)
    )
    tensors = torch.load(io.BytesIO(content), weights_only=True)
    table = tensors.get("state_dict", tensors)
    for name in rng.sample(sorted(table), rng.randint(1, 2)):
        value = table[name]
        changes: tuple[Any, ...] = (
            *(
                torch.full_like(value, float("nan")),
                torch.full_like(value, 1e38),
                torch.zeros_like(value),
                value.mT if value.ndim > 1 else value.flatten()[:-1],
            ),
            *(
                value.half(),
                value.double(),
                value.to(torch.int64),
                value.to(torch.complex64),
                value.flatten()[:0],
                value[None],
            ),
            *(torch.zeros(1).expand(10**9), torch.zeros(1, 1).expand(10**6, 10**6), torch.empty(3, device="meta")),
            *(value.to_sparse(), None, 3, "text", [value], {"a": value}, Foreign(), torch.tensor(float("inf"))),
        )
        table[name] = rng.choice(changes)
        if rng.random() < 0.2:
            table[rng.choice(("", "W_dec.weight", "../x", 3, "threshold", "encoder.mlp_blocks.0"))] = table.pop(name)
    out = io.BytesIO()
    torch.save(tensors, out)
    path.write_bytes(header + out.getvalue())


def mutated_parquet(data: bytes, rng: Random) -> bytes:
    """A parquet file with other bytes or other values in one column."""
    if rng.random() < 0.5:
        return mutated_bytes(data, rng)
    table = pq.read_table(io.BytesIO(data))
    index = rng.randrange(table.num_columns)
    field, values = table.schema.field(index), table.column(index).to_pylist()
    if rng.random() < 0.1:
        changed = table.remove_column(index)
    else:
        try:
            column = pa.array([_mutated_cell(value, rng) for value in values], field.type)
        except (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError, ValueError):
            column = pa.array([str(value) for value in values])
        changed = table.set_column(index, field.with_type(column.type), column)
    out = io.BytesIO()
    pq.write_table(changed, out)
    return out.getvalue()


def _mutated_cell(value: Any, rng: Random) -> Any:
    if isinstance(value, dict):
        return {key: _mutated_cell(inner, rng) for key, inner in value.items()}
    if isinstance(value, bytes):
        return mutated_bytes(value, rng)
    texts = [extreme for extreme in EXTREMES if isinstance(extreme, type(value))]
    return rng.choice(texts) if texts else None


def replaced(path: Path, rng: Random) -> None:
    """Puts something else in a file's place: a folder, a pipe, a device, a link out of the folder, an endless file."""
    path.unlink()
    kind = rng.randrange(6)
    if kind == 0:
        path.mkdir()
    elif kind == 1:
        os.mkfifo(path)
    elif kind == 2:
        path.symlink_to("/dev/zero")
    elif kind == 3:
        path.symlink_to(rng.choice(("../../victim/file", "/proc/self/environ", path.name, "/dev/full")))
    elif kind == 4:
        path.touch()
    else:
        path.touch()
        os.truncate(path, 10**11)


_BY_SUFFIX: dict[str, Callable[[bytes, Random], bytes]] = {
    ".json": mutated_json,
    ".safetensors": mutated_safetensors,
    ".parquet": mutated_parquet,
}


def mutate_file(path: Path, rng: Random, *, replace: float = 0.05) -> None:
    """Mutates a file in place, as suits its kind, or replaces it."""
    if rng.random() < replace:
        replaced(path, rng)
        return
    path.write_bytes(_BY_SUFFIX.get(path.suffix, mutated_bytes)(path.read_bytes(), rng))
