"""Help texts: docstrings of options as flowing text, without `None` for options that are unset by default; examples."""

import ast
import inspect
import itertools
import textwrap
import typing
from collections.abc import Sequence
from dataclasses import MISSING, fields, is_dataclass
from typing import Annotated, Any, Literal, get_args, get_origin

import tyro


def write_help(command: Any) -> None:
    """Annotates the options of a command with their help texts.

    The help of an option is its docstring. An option whose default is None shows neither `{None}|` nor
    `(default: None)`: its docstring says what happens. A flag shows no default either. Fields, defaults and behaviour
    stay. Repeated calls change nothing.

    Args:
        command: a dataclass, or a union of several; dataclasses nested in it are annotated too.
    """
    if get_origin(command) is Annotated:
        write_help(get_args(command)[0])
    elif not is_dataclass(command):
        for part in get_args(command):
            write_help(part)
    elif not vars(command).get("_has_help"):
        hints, texts = typing.get_type_hints(command, include_extras=True), _docstrings(command)
        for option in fields(command):
            kinds = _kinds(hints[option.name])
            unset = option.default is None and type(None) in kinds
            shown: dict[str, Any] = {"help_behavior_hint": "", "metavar": _metavar(kinds)} if unset else {}
            if unset and tyro.conf.Positional in get_args(hints[option.name]):
                shown["metavar"] = f"[{_metavar(kinds)}]"
            if option.default == "":
                shown = {"help_behavior_hint": ""}
            nothing_given = option.default == () or (option.default is MISSING and option.default_factory is MISSING)
            if (kinds == () and option.type in (bool, "bool")) or (nothing_given and Ellipsis in _parts(kinds)):
                shown = {"help_behavior_hint": ""}
            if option.name in texts:
                shown["help"] = texts[option.name]
            if shown:
                command.__annotations__[option.name] = Annotated[hints[option.name], tyro.conf.arg(**shown)]
            write_help(hints[option.name])
        command._has_help = True  # pyright: ignore[reportAttributeAccessIssue]


def examples(command: Any, words: Sequence[str]) -> str:
    """Returns the examples in the docstring of a command, which its help would lack; empty if it has none.

    Args:
        command: a dataclass, or a union of several.
        words: words after the command's name; the first names one of the union.
    """
    if get_origin(command) is Annotated:
        return examples(get_args(command)[0], words)
    if is_dataclass(command):
        _, heading, section = inspect.cleandoc(command.__doc__ or "").partition("\nExamples:\n")
        return heading.strip() + "\n" + section.rstrip() if heading else ""
    for part in get_args(command):
        if words and any(getattr(about, "name", None) == words[0] for about in get_args(part)[1:]):
            return examples(part, words[1:])
    return ""


def _docstrings(command: Any) -> dict[str, str]:
    """Docstrings of the fields of a dataclass and of its bases, each as one line."""
    texts: dict[str, str] = {}
    for base in reversed(inspect.getmro(command)):
        if is_dataclass(base):
            body = typing.cast(ast.ClassDef, ast.parse(textwrap.dedent(inspect.getsource(base))).body[0]).body
            for option, below in itertools.pairwise(body):
                if isinstance(option, ast.AnnAssign) and isinstance(option.target, ast.Name):
                    match below:
                        case ast.Expr(ast.Constant(str(text))):
                            texts[option.target.id] = " ".join(text.split())
                        case _:
                            pass
    return texts


def _kinds(hint: Any) -> tuple[Any, ...]:
    return _kinds(get_args(hint)[0]) if get_origin(hint) is Annotated else get_args(hint)


def _parts(kinds: tuple[Any, ...]) -> tuple[Any, ...]:
    return (*kinds, *(part for kind in kinds for part in get_args(kind)))


def _metavar(kinds: tuple[Any, ...]) -> str:
    """Metavariable of an optional type: PATH of `Path | None`, {a,b} of `Literal["a", "b"] | None`."""
    return "|".join(_word(kind) for kind in kinds if kind is not type(None))


def _word(kind: Any) -> str:
    if get_origin(kind) is Literal:
        return "{" + ",".join(map(str, get_args(kind))) + "}"
    if get_origin(kind) is tuple:
        return " ".join(_word(part) for part in get_args(kind) if part is not Ellipsis)
    return kind.__name__.upper()
