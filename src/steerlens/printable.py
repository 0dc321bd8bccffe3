"""Texts to print: control characters of names and labels from files escaped, numbers with their nouns."""

import re
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

_SHOWN = frozenset("\n\t")
"""Control characters that lay out our own messages."""

_JOINERS = frozenset("\u200c\u200d")
"""Characters without width that scripts and emoji need: they join letters, and reorder nothing."""


def escaped(character: str) -> str:
    """A character as an escape of Python's: `\\x1b`, `\\u202e`."""
    return character.encode("unicode_escape").decode()


def counted(count: int, noun: str) -> str:
    """A number with its noun, such as `1 input` or `24 inputs`."""
    return f"{count} {noun}{'' if count == 1 else 's'}"


def printable(text: str, *, lines: bool = False, escape: Callable[[str], str] = escaped) -> str:
    """A text with what a reader cannot see, and a terminal might obey, written as escapes (`\\x1b`, `\\u202e`).

    Escaped are control characters, marks that change the direction of writing, and
    halves of surrogate pairs.

    Args:
        text: any text.
        lines: whether newlines and tabs stay as they are.
        escape: how a character is escaped.
    """
    if text.isascii() and text.isprintable():
        return text
    return "".join(character if _is_harmless(character, lines) else escape(character) for character in text)


def _is_harmless(character: str, lines: bool) -> bool:
    if character in _JOINERS or (lines and character in _SHOWN):
        return True
    return unicodedata.category(character) not in ("Cc", "Cf", "Cs")


_PATHS = re.compile(
    r"""
    (?:^|(?<=[\s"'(=,:;\[]))          # where a word begins, or behind the name of a source, as in `local-dir:/models`
    (?: (?:~|\.\.)?/(?=[^/\s])      # from the root, from home, or out of the folder; not //, as in addresses
      | [A-Za-z]:[\\/](?=[^/\s])    # of Windows
    )
    [^\s"'()<>|,;\]]*
    """,
    re.VERBOSE,
)


def without_folders(text: str) -> str:
    """A text to be shared, in which paths of this machine are cut to the name of the file or folder that they lead to.

    Folders may hold the names of people and projects. Hub ids, addresses and paths below the current folder stay.
    """
    if re.match(
        r"(?:[\w.+-]{2,}:)?(?:(?:~|\.\.)?/(?=[^/\s])|[A-Za-z]:[\\/](?=[^/\s]))", text
    ):  # a path may hold spaces
        source = re.match(r"[\w.+-]{2,}:", text)
        return (source[0] if source else "") + _last_part(text)
    return _PATHS.sub(lambda match: _last_part(match[0]), text)


def json_without_folders(value: Any) -> Any:
    """JSON values whose texts are `without_folders`."""
    if isinstance(value, str):
        return without_folders(value)
    if isinstance(value, Mapping):
        entries = cast(Mapping[str, Any], value)
        return {without_folders(key): json_without_folders(inner) for key, inner in entries.items()}
    if isinstance(value, list | tuple):
        return [json_without_folders(inner) for inner in cast(Sequence[Any], value)]
    return value


def _last_part(path: str) -> str:
    return path.replace("\\", "/").rstrip("/").rpartition("/")[2]
