"""The `steerlens` program: runs the requested command, and reports every failure in one line.

Each command is a module of this package with a dataclass `Command` (or a union of several, for subcommands) whose
fields are its options and whose `run` returns the exit code. Only the module of the requested command is imported.
"""

import difflib
import errno
import importlib
import importlib.util
import os
import signal
import sys
import threading
import traceback
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

from steerlens._version import __version__
from steerlens.cli.environment import (
    command_environment,
    memory_limit,
    open_standard_streams,
    refuse_empty,
    refuse_endless,
    refuse_little_memory,
    refuse_lost_folder,
    refuse_repeated,
    refuse_undecodable,
)
from steerlens.errors import ModelError, SteerlensError, StoreError, UsageError
from steerlens.printable import printable

COMMANDS: Mapping[str, str] = {
    "demo": "analyse a bundled picture with the bundled model, in about a minute",
    "lens": "analyse your own pictures: every layer and head, decoded and ranked",
    "app": "open the explorer: steer, decode and ablate heads by hand, in the browser",
    "neighbours": "index your own pictures, to show the nearest instead of a generated picture",
    "models": "list the available models, their sizes and licences, and which are on this machine",
    "doctor": "load a model and check everything that the lenses rely on",
    "profile": "describe each head over many pictures: top pictures, texts, effect of ablation",
    "bridge": "map an encoder without a decoder to another encoder that has one",
    "study": "test whether the pictures are faithful, by interventions on real forward passes",
    "runs": "summarise, check or merge run directories; export tables and pictures; publish sites",
    "cache": "show or clear the traces that runs share",
    "train": "train a small pair, a decoder for your encoder, or a sparse autoencoder",
}
"""Command -> summary, in the order in which a new user meets them."""

_HELP = """\
steerlens: show what each part of a Vision Transformer writes into its image embedding.

Usage: steerlens COMMAND [OPTIONS]

Commands:
{commands}

Options:
  -h, --help   show this page; `steerlens COMMAND --help` describes a command and its options
  --version    show the version
  --debug      show the traceback of an error (also: STEERLENS_DEBUG=1)

Examples:
  steerlens demo                          a first report, without a download
  steerlens lens sample --sites heads     what each attention head writes for the bundled picture
  steerlens lens sample --dry-run         the estimated time, memory and disk space

Exit codes: 0 success, 1 failure, 2 invalid request, 130 interrupted, 143 terminated.
Documentation: docs/ in the repository, and the docstrings of the steerlens package.
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a command.

    Args:
        argv: arguments after the program's name; by default those of the process.

    Returns:
        0 success, 1 failure, 2 invalid request, 130 interrupted, 143 terminated.
    """
    open_standard_streams()
    arguments = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in arguments or os.environ.get("STEERLENS_DEBUG", "") not in ("", "0")
    arguments = [argument for argument in arguments if argument != "--debug"]
    running: list[Any] = []
    try:
        with _terminated(running), command_environment():
            code = _dispatch(arguments, running)
        sys.stdout.flush()
        return code
    except SystemExit as end:  # from the option parser, which has printed the help (0) or a message (2)
        return end.code if isinstance(end.code, int) else 0 if end.code is None else 2
    except BrokenPipeError:
        # The reader of the pipe is gone; Python must not complain about the unwritten buffer at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except KeyboardInterrupt as stop:
        if debug:
            traceback.print_exc()
        _complain(_interrupted(running))
        # Ray turns what a handler raised inside it into a plain KeyboardInterrupt.
        code = 143 if isinstance(stop, _Terminated) or _Terminated in running else 130
        if "ray" in sys.modules and argv is None:  # Ray's core, interrupted while it starts, aborts as Python ends
            _leave_at_once(code)
        return code
    except Exception as error:
        if debug:
            traceback.print_exc()
        try:
            message, code = _explain(error)
        except MemoryError:
            message, code = _TOO_LITTLE_MEMORY, 1
        if message == _TOO_LITTLE_MEMORY and argv is None:
            os.write(2, _LAST_WORDS)  # without an allocation, which could fail
            _leave_at_once(code)
        _complain(message)
        return code


class _Terminated(KeyboardInterrupt):
    """SIGTERM, which batch systems send before SIGKILL: handled like Ctrl-C, so that it ends with a message too."""


@contextmanager
def _terminated(running: list[Any]) -> Generator[None]:
    def stop(*_: object) -> None:
        running.append(_Terminated)
        raise _Terminated

    if threading.current_thread() is not threading.main_thread():  # only the main thread receives signals
        yield
        return
    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _dispatch(arguments: list[str], running: list[Any]) -> int:
    available = [name for name in COMMANDS if importlib.util.find_spec(f"steerlens.cli.{name}")]
    if arguments[:1] == ["help"]:
        arguments = [*arguments[1:2], "--help"]
    if not arguments or arguments[0] in ("-h", "--help"):
        width = max(map(len, available))
        sys.stdout.write(_HELP.format(commands="\n".join(f"  {name:<{width}}  {COMMANDS[name]}" for name in available)))
        return 0
    if arguments[0] in ("--version", "-V"):
        sys.stdout.write(f"steerlens {__version__}\n")
        return 0
    name, options = arguments[0], arguments[1:]
    if name not in available:
        close = difflib.get_close_matches(name, available, n=1, cutoff=0.5)
        hint = f" Did you mean `steerlens {close[0]}`?" if close else ""
        raise UsageError(f"there is no command {name!r}.{hint} Commands: {', '.join(available)}.")
    refuse_empty(options)
    refuse_repeated(importlib.import_module(f"steerlens.cli.{name}").Command, options)
    command = parse_command(name, options)
    refuse_undecodable(command)
    refuse_endless(command)
    running.append(command)
    refuse_little_memory()
    refuse_lost_folder()
    return int(command.run())


def parse_command(name: str, arguments: Sequence[str]) -> Any:
    """Returns the dataclass of a command with its options.

    Raises:
        SystemExit: after help, or a message about a mistake, in which control characters of the arguments are escaped.
    """
    import tyro

    from steerlens.cli.console import say
    from steerlens.cli.help_texts import examples, write_help

    command = importlib.import_module(f"steerlens.cli.{name}").Command
    write_help(command)
    parse = partial(
        tyro.cli,
        command,
        prog=f"steerlens {name}",
        config=(tyro.conf.FlagCreatePairsOff, tyro.conf.OmitSubcommandPrefixes, tyro.conf.OmitArgPrefixes),
    )
    try:
        return parse(args=list(arguments), console_outputs=False)
    except SystemExit:
        # The parser repeats arguments in its messages, so it gets them with control characters escaped.
        with suppress(SystemExit):
            parse(args=[printable(argument) for argument in arguments])
        if ("-h" in arguments or "--help" in arguments) and (shown := examples(command, arguments)):
            say(shown)
        raise


def _explain(error: Exception) -> tuple[str, int]:
    """Message of one line for an exception, and the exit code."""
    foreign = not isinstance(error, SteerlensError) or (isinstance(error, ModelError) and error.__cause__ is not None)
    if foreign and _is_at_its_limit():  # libraries raise anything then, and some hide the reason
        return _TOO_LITTLE_MEMORY, 1
    if isinstance(error, SteerlensError) and not any(words in str(error) for words in _NO_MEMORY):
        return str(error), error.exit_code
    kind, text = type(error).__name__, " ".join(str(error).split())
    if isinstance(error, OSError) and (error.errno == errno.ENOSPC or "No space left" in text):
        where = f" ({error.filename})" if error.filename else ""
        return f"the disk is full{where}. Make room, then run the same command again.", StoreError.exit_code
    if _lacks_memory(error):
        return _TOO_LITTLE_MEMORY, 1
    if isinstance(error, OSError) and error.filename and error.errno in _PLACES:
        return f"{error.filename} cannot be used: {error.strerror}. Check the path and its permissions.", 1
    if library := _failed_import(error):
        return (
            f"{library} cannot be imported ({text or kind}). Its version may not fit those of the other libraries: "
            "install it again together with torch, or remove it if nothing needs it.",
            1,
        )
    return (
        f"unexpected {kind}: {text or 'no message'}. Run it again with --debug for a traceback, and please report it.",
        1,
    )


def _failed_import(error: Exception) -> str:
    """Name of the foreign library whose own import raised an exception; empty if none was being imported."""
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__) if frame.f_code.co_name == "<module>"]
    library = str(frames[-1].f_globals.get("__name__", "")).partition(".")[0] if frames else ""
    return "" if library in ("steerlens", "__main__") else library


_PLACES = frozenset(
    {errno.EACCES, errno.EEXIST, errno.EISDIR, errno.ELOOP, errno.ENAMETOOLONG, errno.ENOTDIR, errno.EPERM, errno.EROFS}
)
"""Errors of the file system that are due to a path, not to steerlens."""

_NO_MEMORY = (
    *(
        "can't allocate memory",
        "Cannot allocate memory",
        "cannot allocate memory",
        "bad_alloc",
        "can't start new thread",
    ),
    *("failed to map segment", "Unable to allocate", "out of memory", "realloc of size", "malloc of size"),
    *("could not create a primitive", "MemoryError"),
)
"""Messages of the operating system, NumPy, torch, Arrow, safetensors and oneDNN when they run out of memory."""


_TOO_LITTLE_MEMORY = "there is not enough memory. Try a smaller --batch-size, or --dtype bfloat16."
_LAST_WORDS = f"steerlens: {_TOO_LITTLE_MEMORY}\n".encode()

_NEAR = 0.9
"""Share of the memory that a process may have (`ulimit -v`) from which failures are taken for a lack of it."""


def _is_at_its_limit() -> bool:
    """True if the process has had nearly as much memory as it may have; False without a limit."""
    try:
        most = memory_limit()
        status = Path("/proc/self/status").read_text()
        # The peak, because what failed has been taken down by now.
        peak = int(status.partition("VmPeak:")[2].split()[0]) * 1024
    except (OSError, ValueError, IndexError):
        return False
    return most is not None and peak > _NEAR * most


def _leave_at_once(code: int) -> NoReturn:
    """Ends the program without Python's own end, in which libraries may crash after the message."""
    with suppress(OSError, ValueError):
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(code)


def _lacks_memory(error: BaseException | None) -> bool:
    """True if an exception, or one of its causes, reports that memory has run out."""
    while error is not None:
        if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
            return True
        if getattr(error, "errno", None) == errno.ENOMEM or any(words in str(error) for words in _NO_MEMORY):
            return True
        error = error.__cause__ or error.__context__
    return False


def _interrupted(running: list[Any]) -> str:
    """Message about an interrupted command, with the command's own words about the results that it keeps."""
    say = getattr(running[0], "interrupted", None) if running else None
    return f"interrupted. {say()}" if callable(say) else "interrupted; nothing was kept."


_LONGEST = 1500
"""Characters of a message; values from files, which some quote, may have millions."""


def _complain(message: str) -> None:
    if len(message) > _LONGEST:
        message = f"{message[: _LONGEST - 300]} ... {message[-250:]}"
    sys.stderr.write(f"steerlens: {printable(message, lines=True)}\n")


if __name__ == "__main__":
    sys.exit(main())
