"""Types of options: values from Python programs become those that the fields of a dataclass declare, or are refused.

The command line's parser converts its own; a Python program may give `2.0`, `np.int64(2)` or `"2"` for a whole number.
"""

from collections.abc import Sequence
from dataclasses import fields
from functools import cache
from numbers import Real
from operator import index
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from steerlens.errors import UsageError


def convert_options(options: Any) -> None:
    """Replaces the values of a frozen dataclass by those of its declared types, in `__post_init__`.

    Whole numbers of other libraries become `int`, lists become tuples. Texts that a `Literal` lists are not compared.

    Raises:
        UsageError: if a value is of another type; the message names the option.
    """
    for name, kind in _kinds(type(options)).items():
        value = getattr(options, name)
        converted = _converted(kind, value)
        if converted is _REFUSED:
            raise UsageError(f"{name} takes {_words(kind)}, not {value!r:.80}.")
        if converted is not value:
            object.__setattr__(options, name, converted)


_REFUSED = object()


@cache
def _kinds(of: type) -> dict[str, Any]:
    hints = get_type_hints(of)
    return {field.name: hints[field.name] for field in fields(of)}


def _converted(kind: Any, value: Any) -> Any:
    """Returns a value of a type, or `_REFUSED`."""
    origin = get_origin(kind)
    if origin in (Union, UnionType):
        results = (_converted(member, value) for member in get_args(kind))
        return next((result for result in results if result is not _REFUSED), _REFUSED)
    if origin is tuple:
        return _tuple(get_args(kind), value)
    if kind is int and not isinstance(value, int):
        try:
            return index(value)
        except TypeError:
            return _REFUSED
    if kind is float:
        if isinstance(value, bool) or not isinstance(value, Real):
            return _REFUSED
        return value if isinstance(value, int | float) else float(value)
    if kind is int and isinstance(value, bool):
        return _REFUSED
    plain = str if origin is Literal else kind
    return value if isinstance(value, plain) else _REFUSED


def _tuple(members: tuple[Any, ...], value: Any) -> Any:
    if isinstance(value, str | bytes) or not isinstance(value, Sequence):
        return _REFUSED
    if members[-1] is Ellipsis:
        members = members[:1] * len(value)
    if len(members) != len(value):
        return _REFUSED
    results = tuple(_converted(member, item) for member, item in zip(members, value, strict=True))
    if any(result is _REFUSED for result in results):
        return _REFUSED
    unchanged = all(result is item for result, item in zip(results, value, strict=True))
    return value if unchanged and isinstance(value, tuple) else results


def _words(kind: Any) -> str:
    """Describes a type in a message."""
    origin, members = get_origin(kind), get_args(kind)
    if origin in (Union, UnionType):
        return " or ".join(map(_words, members))
    if origin is tuple:
        return _several(_words(members[0])) if members[-1] is Ellipsis else f"({', '.join(map(_words, members))})"
    if origin is Literal:
        return "a text"
    return {int: "a whole number", float: "a number", bool: "True or False", str: "a text", NoneType: "None"}[kind]


def _several(words: str) -> str:
    """Describes several values in a message: `several whole numbers`, of `a whole number`."""
    plain = words.startswith("a ") and " or " not in words
    return f"several {words.removeprefix('a ')}s" if plain else f"several, each {words}"
