"""JSON form of frozen dataclasses.

Reading a file that does not fit its dataclass raises `StoreError` with the place of the fault, so that a wrong file and
a bug are told apart.

    dataclass      object; a field may have another key in the file, see `Key`
    Mapping        object
    tuple          list
    float          number; nan and infinities, which JSON lacks, are null
    parse/str      text, for a class with a `parse` method
"""

import types
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import MISSING, Field, dataclass, fields, is_dataclass
from functools import cache
from typing import (
    Annotated,
    Any,
    ClassVar,
    Literal,
    Self,
    TypeVar,
    Union,
    cast,
    get_args,
    get_origin,
    get_type_hints,
)

from steerlens.errors import StoreError, UsageError

_T = TypeVar("_T")


@dataclass(frozen=True)
class Key:
    """Annotation of a field whose key in the file is not its name: `Annotated[Estimate, Key("asked")]`.

    Attributes:
        name: the key, as in files of earlier versions.
    """

    name: str


class Record:
    """Base of frozen dataclasses that are stored as JSON."""

    def to_json(self) -> dict[str, Any]:
        """JSON values by key; numbers that are not finite stay as they are."""
        return {_key(field): write_value(getattr(self, field.name)) for field in _fields(type(self))}

    @classmethod
    def from_json(cls, values: Any, where: str) -> Self:
        """Reads what `to_json` wrote.

        Args:
            values: parsed JSON.
            where: the file and the place in it, for messages.

        Raises:
            StoreError: if the values do not describe such a record.
        """
        if not isinstance(values, Mapping):
            raise StoreError(f"{where} is no object; {_ADVICE}")
        entries = cast(Mapping[str, Any], values)
        hints, arguments = _hints(cls), dict[str, Any]()
        for field in _fields(cls):
            key = _key(field)
            if key in entries:
                arguments[field.name] = read_value(hints[field.name], entries[key], f"{where}: {key}")
            elif not _has_default(field):
                raise StoreError(f"{where} lacks {key!r}; {_ADVICE}")
        try:
            return cls(**arguments)
        except UsageError as error:
            raise StoreError(f"{where}: {error}") from error


class StudySummary(Record):
    """Base of the studies' summaries: a record with the version of its layout.

    Class attributes:
        LAYOUT: version that is written.
        READABLE: versions that can be read; a summary without a version has version 1.
    """

    LAYOUT: ClassVar[int] = 1
    READABLE: ClassVar[tuple[int, ...]] = (1,)

    def to_json(self) -> dict[str, Any]:
        """JSON values by key; the version of the layout comes first, except for version 1, which is not written."""
        values = ({"layout": self.LAYOUT} if self.LAYOUT > 1 else {}) | super().to_json()
        words = self.conclusion_words()
        return values | ({"conclusion": words} if words else {})

    def conclusion_words(self) -> dict[str, Any]:
        """The conclusion as JSON values, written beside the figures and not read back; empty by default."""
        return {}

    @classmethod
    def from_json(cls, values: Any, where: str) -> Self:
        """Reads what `to_json` of this version, or of a readable earlier one, wrote.

        Raises:
            UsageError: if the values do not describe such a summary, lack a needed entry, or were written by another
                version.
        """
        layout = cast(Mapping[str, Any], values).get("layout", 1) if isinstance(values, Mapping) else 1
        if layout not in cls.READABLE:
            raise UsageError(
                f"{where} was written by another version of steerlens (layout {layout}, here {cls.LAYOUT}): run that "
                "study again."
            )
        try:
            summary = super().from_json(values, where)
        except StoreError as error:
            raise UsageError(str(error)) from error
        for entry in summary.missing():
            raise UsageError(f"{where} lacks {entry}; {_ADVICE}")
        return summary

    def missing(self) -> Iterator[str]:
        """Entries of tables that the study's page needs and the summary lacks, in words; none by default."""
        return iter(())


_ADVICE = "it is another kind of file, or another version of steerlens wrote it: run that study again."


def write_value(value: Any) -> Any:
    """Converts a value to its JSON form.

    Raises:
        TypeError: if it is a dataclass but no `Record`, which `read_value` could not read back.
    """
    if isinstance(value, Record):
        return value.to_json()
    if hasattr(value, "parse"):
        return str(value)
    if is_dataclass(value) and not isinstance(value, type):
        raise TypeError(f"{type(value).__name__} is no Record, so it could not be read back.")
    if isinstance(value, Mapping):
        return {str(key): write_value(inner) for key, inner in cast(Mapping[Any, Any], value).items()}
    if isinstance(value, list | tuple):
        return [write_value(inner) for inner in cast(Sequence[Any], value)]
    return value


def read_value(kind: Any, value: Any, where: str) -> Any:
    """Converts a JSON form to a value of a type.

    Raises:
        StoreError: if the JSON holds something else.
    """
    origin, arguments = get_origin(kind), get_args(kind)
    if origin in (Union, types.UnionType):
        if value is None and type(None) in arguments:
            return None
        return read_value(next(inner for inner in arguments if inner is not type(None)), value, where)
    if origin is Literal:
        return _checked(value in arguments, value, value, where)
    if origin is tuple:
        rows = cast(list[Any], _checked(isinstance(value, list), value, value, where))
        if arguments[-1] is Ellipsis:
            return tuple(read_value(arguments[0], inner, f"{where}[{place}]") for place, inner in enumerate(rows))
        _checked(len(rows) == len(arguments), value, value, where)
        return tuple(
            read_value(*both, f"{where}[{place}]") for place, both in enumerate(zip(arguments, rows, strict=True))
        )
    if origin is not None and issubclass(origin, Mapping):
        entries = cast(dict[str, Any], _checked(isinstance(value, dict), value, value, where))
        return {key: read_value(arguments[1], inner, f"{where}: {key}") for key, inner in entries.items()}
    return _read_plain(kind, value, where)


def _read_plain(kind: Any, value: Any, where: str) -> Any:
    if issubclass(kind, Record):
        return kind.from_json(value, where)
    if hasattr(kind, "parse"):
        _checked(isinstance(value, str), value, value, where)
        try:
            return kind.parse(value)
        except UsageError as error:
            raise StoreError(f"{where}: {error} {_ADVICE}") from error
    if kind is float:
        if value is None:
            return float("nan")
        number = isinstance(value, int | float) and not isinstance(value, bool)
        return float(_checked(number, value, value, where))
    return _checked(type(value) is kind, value, value, where)


def _checked(right: bool, value: Any, result: _T, where: str) -> _T:
    if not right:
        raise StoreError(f"{where} is {str(value)[:60]!r}; {_ADVICE}")
    return result


def _key(field: "Field[Any]") -> str:
    if get_origin(field.type) is Annotated:
        return next((extra.name for extra in get_args(field.type)[1:] if isinstance(extra, Key)), field.name)
    return field.name


def _has_default(field: "Field[Any]") -> bool:
    return field.default is not MISSING or field.default_factory is not MISSING


def _fields(kind: type) -> "tuple[Field[Any], ...]":
    return fields(cast(Any, kind))


@cache
def _hints(kind: type) -> dict[str, Any]:
    return get_type_hints(kind)
