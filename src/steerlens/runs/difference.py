"""The first difference of two manifests, in words, for messages about runs that do not go together."""

import json
from collections.abc import Mapping
from itertools import zip_longest
from typing import Any

_LONGEST = 80
"""Characters of a value that are shown."""


def first_difference(one: Any, other: Any, name: str = "") -> tuple[str, str, str] | None:
    """The first difference of two JSON values: its place, such as `options.steps`, and both values in words.

    None if they are equal.
    """
    if one == other:
        return None
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        keys = dict.fromkeys((*one, *other))
        pairs = ((f"{name}.{key}" if name else str(key), one.get(key), other.get(key)) for key in keys)
    elif isinstance(one, list) and isinstance(other, list):
        pairs = ((f"{name}[{index}]", *pair) for index, pair in enumerate(zip_longest(one, other)))
    else:
        pairs = iter(())
    for key, mine, theirs in pairs:
        if found := first_difference(mine, theirs, key):
            return found
    return name, _told(one), _told(other)


def _told(value: Any) -> str:
    if value is None:
        return "not set"
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}…"
