"""A study's command as it was given, for the page of results: options that decide something, without private paths."""

import shlex
from dataclasses import MISSING, fields, is_dataclass
from pathlib import Path
from typing import Any

_ALWAYS = ("count", "choose", "heads", "heads_per_picture", "seeds")
"""The size of a study is said even where it is the default, which may change."""

_NEVER = ("out", "json", "device", "dtype", "local")
"""What decides where and how a study runs, but not what comes out, and where the model's files lie."""

_NAMED = ("judge", "model", "encoder")
"""Models go by the last part of their path or hub id."""


def command_line(name: str, command: Any) -> str:
    """`steerlens study NAME` with every option that differs from its default.

    Args:
        name: of the study.
        command: the command's dataclass; folders of pictures become capital words, DATA for `--data`.
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
