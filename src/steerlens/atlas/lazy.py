"""Sequences whose items are read from disk on access."""

from collections.abc import Callable, Sequence
from typing import TypeVar, overload

_Item = TypeVar("_Item", covariant=True)


class Lazy(Sequence[_Item]):
    """Sequence that reads an item on every access, and stores none.

    Args:
        length: number of items.
        read: reads the item at an index from 0.
    """

    def __init__(self, length: int, read: Callable[[int], _Item]) -> None:
        self._length, self._read = length, read

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._length} items)"

    def __len__(self) -> int:
        return self._length

    @overload
    def __getitem__(self, index: int) -> _Item: ...

    @overload
    def __getitem__(self, index: slice) -> Sequence[_Item]: ...

    def __getitem__(self, index: int | slice) -> _Item | Sequence[_Item]:
        indices = range(self._length)[index]
        return self._read(indices) if isinstance(indices, int) else [self._read(number) for number in indices]
