"""Texts made harmless to show: names and labels may hold anything, terminals and pages obey control characters."""

import unicodedata
from collections.abc import Callable

_SHOWN = frozenset("\n\t")
"""Control characters that lay out our own messages."""

_JOINERS = frozenset("\u200c\u200d")
"""Characters without width that scripts and emoji need: they join letters, and reorder nothing."""


def escaped(character: str) -> str:
    """A character as an escape of Python's: `\\x1b`, `\\u202e`."""
    return character.encode("unicode_escape").decode()


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
