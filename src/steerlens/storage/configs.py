"""Reading of configs and cards within limits: numbers that would need more memory than there is are refused.

A library builds whatever a config describes, so sizes are compared with `steerlens.limits` before it sees the folder.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import yaml

from steerlens.errors import ModelError, UsageError
from steerlens.limits import over_limit, read_file

CONFIG_FILES = (
    *("config.json", "preprocessor_config.json", "processor_config.json", "scheduler_config.json"),
    *("open_clip_config.json", "model_index.json", "generation_config.json"),
)
"""Configs that libraries build from, whose numbers are sizes."""

_SIDES = frozenset(
    {"image_size", "img_size", "input_size", "encoder_input_size", "sample_size", "size", "crop_size", "pad_size"}
    | {"height", "width", "shortest_edge", "longest_edge", "max_height", "max_width"}
)
"""Keys of a side in pixels, or of a table or list of sides."""

_NO_SIZES = frozenset({"rope_theta", "theta", "seed", "max_pixels", "min_pixels", "model_max_length"})
"""Keys of whole numbers that are unrelated to memory, like those that end in `_id` or `_index`."""

_AREAS = frozenset({"shortest_edge", "longest_edge"})
"""Keys that hold bounds on pixels, not sides, in the processors of Qwen-VL; their adapter bounds the side itself."""

_DEPTH = 32
"""Levels of a card; those of steerlens have four."""

_ADAPTER = "adapter_config.json"


def read_json(path: Path, component: str) -> dict[str, Any]:
    """Reads a JSON object from a config's file, with all numbers within their limits.

    Raises:
        ModelError: if the file does not exist, is too large, contains something else, or a number over its limit.
    """
    content = _parsed(path, component)
    if not isinstance(content, dict):
        raise ModelError(f"{component}: {path} does not hold a JSON object.")
    if path.name in CONFIG_FILES and (words := too_large(cast(dict[str, Any], content))):
        raise ModelError(f"{component}: {path} says {words}.")
    return cast(dict[str, Any], content)


def parse_json(data: bytes) -> Any:
    """Parses JSON in UTF-8.

    Raises:
        ValueError: if it is not JSON, is nested too deep, or contains half a character (a lone surrogate), which cannot
            be written to any file or page.
    """
    text = data.decode("utf-8-sig")
    try:
        content = json.loads(text)
        if "\\ud" in text.lower():
            json.dumps(content, ensure_ascii=False).encode()
    except RecursionError:
        raise ValueError("it is nested too deep") from None
    except UnicodeEncodeError:
        raise ValueError("it holds text that is no Unicode") from None
    except ValueError as error:
        if "integer string conversion" in str(error):  # with advice for programmers
            raise ValueError("it holds a number of thousands of digits") from None
        raise
    return content


def _parsed(path: Path, component: str) -> Any:
    if not path.exists():
        raise ModelError(f"{component}: there is no {path}.")
    try:
        return parse_json(read_file(path, "config_bytes"))
    except UsageError as error:
        raise ModelError(f"{component}: {error}") from None
    except ValueError as error:
        raise ModelError(f"{component}: {path} cannot be read: {error}.") from None


def too_large(content: Mapping[str, Any]) -> str:
    """Describes the first number of a config over its limit, such as `depth: 2,000,000, ...`; empty if none."""
    waiting: list[tuple[str, Any, bool]] = [(key, value, False) for key, value in content.items()]
    areas = _AREAS if str(content.get("image_processor_type", "")).startswith("Qwen") else frozenset[str]()
    while waiting:
        key, value, inside = waiting.pop()
        if key in areas:
            continue
        side = inside or key in _SIDES
        if isinstance(value, dict):
            waiting += [(name, inner, side) for name, inner in cast(dict[str, Any], value).items()]
        elif isinstance(value, list):
            waiting += [(key, inner, side) for inner in cast(list[Any], value)]
        elif isinstance(value, int | float) and (limit := _limit_of(key, value, side)):
            words = over_limit(limit, int(value)) if abs(value) != float("inf") else "a number without end"
            if words:
                return f"{key}: {words}"
    return ""


def _limit_of(key: str, value: float, side: bool) -> str | None:
    """The limit for a number of a config; None for NaN, fractions that are no sizes, and what is not counted."""
    if value != value or key in _NO_SIZES or key.endswith(("_id", "_ids", "_index")):
        return None
    if side:
        return "config_side"
    if key in ("num_labels", "num_classes"):
        return "classes"
    if key == "num_train_timesteps":
        return "noise_levels"
    return "config_number" if isinstance(value, int) else None


def check_library_folder(folder: Path, component: str) -> None:
    """Makes sure that a library can be given a folder: it reads configs, tokenizer files and indexes by itself.

    Raises:
        ModelError: if one is not a regular file, too large or broken, an index names files elsewhere, or the folder is
            an adapter that sends the library to another model.
    """
    if (folder / _ADAPTER).exists():
        raise ModelError(f"{component}: {folder} holds an adapter of another model ({_ADAPTER}); it is not followed.")
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        if ".safetensors.index" in path.name and path.suffix == ".json":
            index_files(path, component)
        elif path.name in CONFIG_FILES:
            read_json(path, component)
        elif path.suffix in (".json", ".txt", ".model", ".jinja"):
            _check_size(path, component)


def _check_size(path: Path, component: str) -> None:
    if not path.is_file():
        if path.exists() and not path.is_dir():
            raise ModelError(f"{component}: {path} is not a regular file.")
        return
    if words := over_limit("list_bytes", path.stat().st_size):
        raise ModelError(f"{component}: {path} takes {words}.")


def index_files(index: Path, component: str) -> tuple[Path, ...]:
    """The weight files that an index names, all of them in its own folder.

    Raises:
        ModelError: if the index cannot be read, or names a file elsewhere: by a path, or through a link.
    """
    named = read_json(index, component).get("weight_map", {})
    if not isinstance(named, dict) or not all(isinstance(name, str) for name in named.values()):
        raise ModelError(f"{component}: {index} holds no table of tensors and files.")
    names = sorted(set(cast(dict[str, str], named).values()))
    for name in names:
        if not is_inside(index.parent, name):
            raise ModelError(f"{component}: {index} names {name!r}, which lies outside its folder and is not read.")
    return tuple(index.parent / name for name in names)


def is_inside(folder: Path, name: str) -> bool:
    """True if a name from a file names a file in a folder: no path, and no link that leads out of it.

    Links of the hub's cache, from a snapshot to the blobs beside the snapshots, lead nowhere else.
    """
    if not name or name in (".", "..") or "/" in name or "\\" in name or "\0" in name:
        return False
    home = folder.resolve()
    place = (home / name).resolve()
    if place.parent == home:
        return True
    return any(above.name == "snapshots" and place.parent == above.parent / "blobs" for above in home.parents)


def read_yaml(path: Path) -> Any:
    """Reads a YAML file; None if it is empty.

    Raises:
        FileNotFoundError: if there is none.
        ModelError: if it is too large, no YAML, nested too deep, or uses aliases, by which a few lines become billions.
    """
    if not path.exists():
        raise FileNotFoundError(path)
    try:
        text = read_file(path, "card_bytes").decode("utf-8")
        _check_events(text, path)
        return yaml.safe_load(text)
    except UsageError as error:
        raise ModelError(str(error)) from None
    except (ValueError, RecursionError, yaml.YAMLError) as error:
        raise ModelError(f"{path} cannot be read: {' '.join(str(error).split())}.") from None


def _check_events(text: str, path: Path) -> None:
    depth = 0
    for event in yaml.parse(text, Loader=yaml.SafeLoader):
        if isinstance(event, yaml.AliasEvent):
            raise ModelError(f"{path} uses aliases (*name), which cards have no use for and which are not read.")
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > _DEPTH:
            raise ModelError(f"{path} is nested more than {_DEPTH} levels deep.")
