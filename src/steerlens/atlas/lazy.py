"""Sequences whose items are read from disk when they are used."""

from collections.abc import Callable, Sequence
from typing import TypeVar, overload

_Item = TypeVar("_Item", covariant=True)


class Lazy(Sequence[_Item]):
    """A sequence whose items are read when they are asked for, each time again.

    Args:
        length: how many there are.
        read: gives the item at an index from 0.
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
        places = range(self._length)
        return [self._read(place) for place in places[index]] if isinstance(index, slice) else self._read(places[index])
