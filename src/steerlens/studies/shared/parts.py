"""Parts of a study as typed data: frozen dataclasses of tensors, stored under names.

A field is annotated with the name of its tensor, or with a family of names:

    clean: Annotated[Float[Tensor, "E"], TensorName("clean")]
    decoded: Annotated[Mapping[tuple[str, int], Float[Tensor, "N E"]], TensorNames("made.{}.seed{}", str, int)]

The names on disk are those of the first version, so that its studies can be resumed.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Annotated, Any, ClassVar, Self, get_args, get_origin

from torch import Tensor

from steerlens.errors import StoreError


@dataclass(frozen=True)
class TensorName:
    """Name of a single tensor of a part.

    Attributes:
        name: its name in the file.
        optional: True if a part may lack it.
    """

    name: str
    optional: bool = False


def no_tensors() -> dict[str, Tensor]:
    """Default of a field with a family of names."""
    return {}


class TensorNames:
    """Family of tensor names, each of which stands for a key.

    Args:
        template: the name, with `{}` for each element of a key.
        kinds: type of each element, or the texts that it may take.
    """

    def __init__(self, template: str, *kinds: type[str] | type[int] | tuple[str, ...]) -> None:
        self._texts = template.split("{}")
        self._kinds = kinds

    def write(self, key: str | int | tuple[str | int, ...]) -> str:
        """Name of a key."""
        elements = key if isinstance(key, tuple) else (key,)
        rest = (f"{element}{text}" for element, text in zip(elements, self._texts[1:], strict=True))
        return self._texts[0] + "".join(rest)

    def read(self, name: str) -> Any:
        """Key of a name, or None if the name does not belong to the family."""
        first, *between, last = self._texts
        if not (name.startswith(first) and name.endswith(last) and len(name) > len(first) + len(last)):
            return None
        rest, elements = name[len(first) : len(name) - len(last)], list[str]()
        # From the end: a setting's name may contain dots, the elements after it do not.
        for text in reversed(between):
            rest, separator, element = rest.rpartition(text)
            if not separator:
                return None
            elements.insert(0, element)
        return self._typed([rest, *elements])

    def _typed(self, elements: list[str]) -> Any:
        key: list[str | int] = []
        for element, kind in zip(elements, self._kinds, strict=True):
            if (kind is int and not element.isdecimal()) or (isinstance(kind, tuple) and element not in kind):
                return None
            key.append(int(element) if kind is int else element)
        return tuple(key) if len(key) > 1 else key[0]


class Part:
    """Base of the parts of studies: frozen dataclasses of tensors.

    Class attributes:
        WHAT: content of a part, in words, for messages.
    """

    WHAT: ClassVar[str] = "measurements"

    def to_tensors(self) -> dict[str, Tensor]:
        """Tensors by their names on disk."""
        tensors: dict[str, Tensor] = {}
        for field, names in _named_fields(type(self)):
            value = getattr(self, field)
            if isinstance(names, TensorNames):
                tensors |= {names.write(key): tensor for key, tensor in value.items()}
            elif value is not None:
                tensors[names.name] = value
        return tensors

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor], where: str) -> Self:
        """Reads what `to_tensors` wrote.

        Args:
            tensors: tensors by their names on disk.
            where: name of the file, for messages.

        Raises:
            StoreError: if a tensor is missing or unknown.
        """
        arguments, left = dict[str, Any](), dict(tensors)
        for field, names in _named_fields(cls):
            if isinstance(names, TensorNames):
                keys = {name: key for name in left if (key := names.read(name)) is not None}
                arguments[field] = {key: left.pop(name) for name, key in keys.items()}
            elif names.name in left:
                arguments[field] = left.pop(names.name)
            elif not names.optional:
                raise StoreError(f"{where} holds no {names.name!r}, which {cls.WHAT} have; {_ADVICE}")
        if left:
            raise StoreError(f"{where} holds {min(left)!r}, which {cls.WHAT} do not have; {_ADVICE}")
        return cls(**arguments)


_ADVICE = "another version of steerlens wrote it. Remove it, and run the study again to measure it again."


def _named_fields(kind: type) -> list[tuple[str, TensorName | TensorNames]]:
    """Fields with their tensor names, single names first, so that no family claims them."""
    named: list[tuple[str, TensorName | TensorNames]] = []
    for field in fields(kind):
        if get_origin(field.type) is Annotated:
            _, names, *_ = get_args(field.type)
            named.append((field.name, names))
    return sorted(named, key=lambda pair: isinstance(pair[1], TensorNames))
