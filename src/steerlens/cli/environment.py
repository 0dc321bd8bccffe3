"""Environment of a command, made independent of settings of the shell or a scheduler."""

import math
import os
import sys
import warnings
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import fields, is_dataclass
from functools import partial
from pathlib import Path
from typing import Any, cast, get_args, get_type_hints

from steerlens.errors import SteerlensError, TermsWarning, UsageError
from steerlens.limits import LIMITS, over_limit
from steerlens.printable import printable

_STREAMS = (("stdin", "r"), ("stdout", "w"), ("stderr", "w"))

_QUIET = (DeprecationWarning, PendingDeprecationWarning, ImportWarning, ResourceWarning)
"""Warnings that Python hides from users by default."""


def open_standard_streams() -> None:
    """Opens closed standard streams on the null device, and makes the others accept any text.

    Daemons and `>&-` start a process without standard streams. A file that is opened later would then take the free
    descriptor, and receive whatever a library prints.
    """
    for number, (name, mode) in enumerate(_STREAMS):
        try:
            os.fstat(number)
            target: int | str = os.devnull  # the descriptor is in use by the first file that was opened
        except OSError:
            null = os.open(os.devnull, os.O_RDWR)
            if null != number:
                os.dup2(null, number)
                os.close(null)
            target = number
        stream: Any = getattr(sys, name)
        if stream is None or stream.closed:
            setattr(sys, name, open(target, mode, encoding="utf-8", closefd=isinstance(target, str)))  # noqa: SIM115
        elif mode == "w" and hasattr(stream, "reconfigure"):
            # File names may contain bytes that are not text, and a terminal may lack characters that we write.
            stream.reconfigure(errors="backslashreplace")


@contextmanager
def command_environment() -> Generator[None]:
    """Ignores the environment's Matplotlib backend and warnings as errors while a command runs; restores them then.

    Figures are drawn without pyplot, but Matplotlib reads `MPLBACKEND` on import and refuses unknown names. Warnings
    that `PYTHONWARNINGS=error` would raise come from libraries, not from the command.
    """
    strict = any(option.startswith("error") for option in sys.warnoptions)
    with _variables({"MPLBACKEND": "agg", **({"PYTHONWARNINGS": None} if strict else {})}), warnings.catch_warnings():
        if strict:
            warnings.resetwarnings()
            for category in _QUIET:
                warnings.simplefilter("ignore", category)
        warnings.simplefilter("always", TermsWarning)
        warnings.showwarning = partial(_show_warning, warnings.showwarning)
        yield


def _show_warning(
    show: Callable[..., None], message: Warning | str, category: type[Warning], *place: Any, **more: Any
) -> None:
    """Shows terms of use as a line for the user, and any other warning as before."""
    if issubclass(category, TermsWarning):
        sys.stderr.write(f"{printable(str(message))}\n")
    else:
        show(message, category, *place, **more)


_LEAST_MEMORY = 1_000_000_000
"""Bytes of address space below which torch's import fails, in ways that it does not report: it may abort. Its CPU
build and a small model take 1.2 GB, other builds far more."""


def memory_limit() -> int | None:
    """Bytes of address space that the process may have (`ulimit -v`); None without a limit."""
    try:
        import resource
    except ImportError:  # on Windows
        return None
    most, _ = resource.getrlimit(resource.RLIMIT_AS)
    return None if most == resource.RLIM_INFINITY else most


def refuse_little_memory() -> None:
    """Refuses a limit on the process's memory under which no model can be loaded.

    Raises:
        SteerlensError: if there is such a limit.
    """
    most = memory_limit()
    if most is not None and most < _LEAST_MEMORY:
        raise SteerlensError(
            f"there is not enough memory: this process may have {most / 1e9:.2f} GB, and torch alone needs "
            f"{_LEAST_MEMORY / 1e9:.0f} GB. Raise the limit (`ulimit -v`), or that of the scheduler."
        )


def refuse_lost_folder() -> None:
    """Refuses a current folder that was removed, in which libraries end the process as they are imported.

    Raises:
        UsageError: if it is gone.
    """
    try:
        Path.cwd()
    except OSError:
        raise UsageError("the current folder is gone; change to another folder and run the command again.") from None


@contextmanager
def _variables(values: Mapping[str, str | None]) -> Generator[None]:
    before = {name: os.environ.get(name) for name in values}
    _set_variables(values)
    try:
        yield
    finally:
        _set_variables(before)


def _set_variables(values: Mapping[str, str | None]) -> None:
    for name, value in values.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value


_ANY_NUMBER = ("seed",)
"""Options whose number is only a label, so that no cost grows with it."""


def refuse_endless(command: Any) -> None:
    """Refuses whole numbers that are too large for any run, seeds below 0, and numbers that are NaN or infinite.

    Raises:
        UsageError: if a number is above the limit of its option, or above the limit of all other options, or not
            finite.
    """
    for field in fields(command):
        value: Any = getattr(command, field.name)
        if is_dataclass(value):
            refuse_endless(value)
            continue
        name = field.name.removeprefix("n_")
        option = f"--{name.replace('_', '-')}"
        for number in _numbers(value):
            if isinstance(number, float) and not math.isfinite(number):
                raise UsageError(f"{option}: {number} is not a finite number.")
            if name == "seed" and isinstance(number, int) and not 0 <= number < 2**63:
                raise UsageError(f"{option}: seeds are whole numbers from 0 to {2**63 - 1}, not {number}.")
            limit = name if name in LIMITS else "option"
            if isinstance(number, int) and name not in _ANY_NUMBER and (words := over_limit(limit, number)):
                raise UsageError(f"{option}: {words}.")


def _numbers(value: Any) -> Iterator[Any]:
    """Values of an option, those of nested tuples included."""
    if isinstance(value, tuple):
        for item in cast(tuple[Any, ...], value):
            yield from _numbers(item)
    else:
        yield value


_MAY_BE_EMPTY = "--sites"
"""Option whose empty text means something: no site but those named by --vector, --group and --region."""


def refuse_empty(arguments: Sequence[str]) -> None:
    """Refuses empty arguments, as an unset shell variable leaves them: as a path, one would be the current folder.

    Raises:
        UsageError: if an argument is empty, or only spaces.
    """
    for before, argument in zip(("", *arguments), arguments, strict=False):
        option, equals, value = argument.partition("=")
        if equals and option.startswith("--") and not value.strip() and option != _MAY_BE_EMPTY:
            raise UsageError(f"{option} was given an empty text; give a value, or leave the option out.")
        if not argument.strip() and before != _MAY_BE_EMPTY:
            where = f" after {before}" if before.startswith("--") else ""
            raise UsageError(f"an argument{where} is empty; give a value, or leave it out.")


def refuse_repeated(command: Any, arguments: Sequence[str]) -> None:
    """Refuses an option that is given twice, of which the parser would silently take the last.

    Args:
        command: dataclass of the command, or a union of those of its subcommands.
        arguments: arguments of the command line.

    Raises:
        UsageError: if an option that can be given only once is repeated.
    """
    names = [argument.partition("=")[0].replace("_", "-") for argument in arguments if argument.startswith("--")]
    repeated = [name for name in dict.fromkeys(names) if names.count(name) > 1]
    if not repeated:
        return
    may_repeat = {f"--{name.replace('_', '-')}" for name in _appended(command)}
    for name in repeated:
        if len(name) > 2 and name not in may_repeat:
            raise UsageError(f"{name} is given twice; give it once. Several values of an option follow each other.")


def _appended(command: Any) -> Iterator[str]:
    """Names of the options of a command that may be given several times."""
    import tyro

    if not isinstance(command, type) or not is_dataclass(command):
        for part in get_args(command):
            yield from _appended(part)
        return
    for name, hint in get_type_hints(command, include_extras=True).items():
        if tyro.conf.UseAppendAction in getattr(hint, "__metadata__", ()):
            yield name
        else:
            yield from _appended(hint)


def refuse_undecodable(command: Any) -> None:
    """Refuses option values that are not UTF-8, since manifests, tables and pages cannot store them.

    Pictures are exempt, because they get a name that is text.

    Raises:
        UsageError: if the name of a folder, file or model, or a text, is not UTF-8.
    """
    for field in fields(command):
        value: Any = getattr(command, field.name)
        if is_dataclass(value):
            refuse_undecodable(value)
        elif isinstance(value, str | Path):
            try:
                str(value).encode()
            except UnicodeEncodeError:
                shown = str(value).encode("utf-8", "backslashreplace").decode()
                option = field.name.replace("_", "-")
                raise UsageError(f"--{option}: {shown} is not UTF-8; give a name in UTF-8.") from None
