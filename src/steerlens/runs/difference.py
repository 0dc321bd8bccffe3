"""First difference between two manifests, in words, for messages about runs that do not match."""

import json
from collections.abc import Mapping
from itertools import zip_longest
from typing import Any

_LONGEST = 80
"""Characters of a value that messages show."""


def first_difference(first: Any, second: Any, name: str = "") -> tuple[str, str, str] | None:
    """Finds the first difference between two JSON values: its path, such as `options.steps`, and both values in words.

    None if they are equal.
    """
    if first == second:
        return None
    if isinstance(first, Mapping) and isinstance(second, Mapping):
        keys = dict.fromkeys((*first, *second))
        pairs = ((f"{name}.{key}" if name else str(key), first.get(key), second.get(key)) for key in keys)
    elif isinstance(first, list) and isinstance(second, list):
        pairs = ((f"{name}[{index}]", *pair) for index, pair in enumerate(zip_longest(first, second)))
    else:
        pairs = iter(())
    for key, in_first, in_second in pairs:
        if difference := first_difference(in_first, in_second, key):
            return difference
    return name, _in_words(first), _in_words(second)


def _in_words(value: Any) -> str:
    if value is None:
        return "not set"
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}…"
