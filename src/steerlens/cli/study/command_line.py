"""Command line of a study for the page of results: only options that decide results, without private paths."""

import shlex
from dataclasses import MISSING, fields, is_dataclass
from pathlib import Path
from typing import Any

_ALWAYS = ("count", "choose", "heads", "heads_per_picture", "seeds")
"""Size of a study, which is always stated, because its default may change."""

_NEVER = ("out", "json", "device", "dtype", "local", "dry_run")
"""Options about where and how a study runs, which do not decide its results, and the path of the model's files."""

_NAMED = ("judge", "model", "encoder")
"""Options that name models, shortened to the last part of the path or hub id."""


def command_line(name: str, command: Any) -> str:
    """`steerlens study NAME` with every option that differs from its default.

    Args:
        name: name of the study.
        command: dataclass of the command; folders of pictures become capital words, such as DATA for `--data`.
    """
    return " ".join(["steerlens study", name, *_options(command), f"--out studies/{name}"])


def _options(command: Any) -> list[str]:
    words: list[str] = []
    for field in fields(command):
        value = getattr(command, field.name)
        if is_dataclass(value):
            words += _options(value)
        elif field.name in _NEVER or value is None or field.default is MISSING:
            continue
        elif isinstance(value, bool):
            words += [] if value == field.default else [f"--{'' if value else 'no-'}{field.name.replace('_', '-')}"]
        elif value != field.default or field.name in _ALWAYS:
            words += [f"--{field.name.replace('_', '-')}", *_words(field.name, value)]
    return words


def _words(name: str, value: Any) -> list[str]:
    if isinstance(value, Path):
        return [name.upper()]
    if isinstance(value, tuple):
        return [word for part in value for word in _words(name, part)]  # type: ignore[misc]
    if isinstance(value, float):
        return [f"{value:g}"]
    return [shlex.quote(Path(value).name if name in _NAMED else str(value))]
