"""The command line as a process: help, mistakes, failures, interruption, pipes; never a traceback."""

import errno
import io
import os
import subprocess
import sys
from types import SimpleNamespace
from typing import Any

import pytest

from steerlens._version import __version__
from steerlens.cli import console, main
from steerlens.cli.lens.engines import SweepBar
from steerlens.errors import ModelError
from steerlens.progress import Progress


def steerlens(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-W", "error", "-m", "steerlens.cli.main", *arguments]
    return subprocess.run(command, capture_output=True, text=True, env=os.environ | environment, timeout=120)


def test_help_lists_every_command_and_imports_nothing_heavy() -> None:
    script = (
        "import sys; from steerlens.cli.main import main; code = main(['--help']);"
        "heavy = {'torch', 'transformers', 'diffusers', 'numpy', 'tyro', 'rich'} & set(sys.modules);"
        "sys.stderr.write(repr(heavy)); sys.exit(code)"
    )
    done = subprocess.run([sys.executable, "-W", "error", "-c", script], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "set()")
    for name in main.COMMANDS:
        assert f"\n  {name} " in done.stdout
    assert max(map(len, done.stdout.splitlines())) <= 100


def test_version() -> None:
    done = steerlens("--version")
    assert (done.returncode, done.stdout, done.stderr) == (0, f"steerlens {__version__}\n", "")


def test_an_unknown_command_is_answered_with_the_one_that_is_close() -> None:
    done = steerlens("modles")
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr.startswith("steerlens: there is no command 'modles'. Did you mean `steerlens models`?")
    assert done.stderr.count("\n") == 1


def test_an_unknown_option_exits_with_2() -> None:
    done = steerlens("models", "--nonsense")
    assert done.returncode == 2 and "--nonsense" in done.stderr and "Traceback" not in done.stderr


@pytest.mark.parametrize(
    "arguments",
    [("--seeds", "\x1b[31m4"), ("--dtype", "\x9b31mfloat\u202e"), ("--lens", "\x1b[2J")],
)
def test_control_characters_of_arguments_are_escaped_in_messages_of_the_parser(
    arguments: tuple[str, ...], capfd: pytest.CaptureFixture[str]
) -> None:
    assert main.main(["lens", "cup.png", *arguments]) == 2
    out, err = capfd.readouterr()
    assert not {"\x1b", "\x9b", "\x07", "\u202e"} & {*out, *err}
    assert "\\x1b" in err or "\\x9b" in err


def test_help_of_a_command_both_ways() -> None:
    assert main.main(["help", "models"]) == main.main(["models", "--help"]) == 0


def test_a_reader_that_goes_away_is_no_error() -> None:
    command = f"{sys.executable} -W error -m steerlens.cli.main models --json | true; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=120)
    assert done.stderr == "" and done.returncode in (0, 141)


@pytest.fixture
def failing(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Makes the next command raise what the test wants."""

    def raising(error: BaseException, **extra: Any) -> None:
        def dispatch(_: list[str], running: list[Any]) -> int:
            running.append(SimpleNamespace(**extra))
            raise error

        monkeypatch.setattr(main, "_dispatch", dispatch)

    return raising


@pytest.mark.parametrize(
    ("error", "code", "words"),
    [
        (ModelError("the weights are gone."), 1, "steerlens: the weights are gone.\n"),
        (OSError(errno.ENOSPC, "No space left on device", "runs/x"), 1, "the disk is full (runs/x)"),
        (MemoryError(), 1, "not enough memory"),
        (KeyError("oops"), 1, "unexpected KeyError: 'oops'. Run it again with --debug"),
        (KeyboardInterrupt(), 130, "interrupted; nothing was kept."),
    ],
)
def test_every_failure_is_one_line(
    failing: Any, capsys: pytest.CaptureFixture[str], error: BaseException, code: int, words: str
) -> None:
    failing(error)
    assert main.main(["models"]) == code
    told = capsys.readouterr().err
    assert words in told and told.count("\n") == 1


def test_an_interrupted_command_says_what_it_kept(failing: Any, capsys: pytest.CaptureFixture[str]) -> None:
    failing(KeyboardInterrupt(), interrupted=lambda: "12 pictures are in runs/x.")
    assert main.main(["lens"]) == 130
    assert capsys.readouterr().err == "steerlens: interrupted. 12 pictures are in runs/x.\n"


@pytest.mark.parametrize(("raised", "code"), [("program._Terminated", 143), ("KeyboardInterrupt", 130)])
def test_a_core_of_ray_that_aborts_at_the_end_of_python_changes_no_exit_code(raised: str, code: int) -> None:
    script = f"""
import atexit, os, sys, types
import steerlens.cli.main as program
sys.modules["ray"] = types.ModuleType("ray")
atexit.register(os.abort)
def stopped(*_):
    raise {raised}
program._dispatch = stopped
sys.argv = ["steerlens", "lens"]
sys.exit(program.main())
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr.count("steerlens: ")) == (code, 1), done.stderr


def test_debug_shows_where(failing: Any, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    failing(ModelError("broken."))
    assert main.main(["models", "--debug"]) == 1
    assert "Traceback" in capsys.readouterr().err
    monkeypatch.setenv("STEERLENS_DEBUG", "1")
    assert main.main(["models"]) == 1
    assert "Traceback" in capsys.readouterr().err


def test_progress_in_a_log_is_plain_lines(capsys: pytest.CaptureFixture[str]) -> None:
    with console.ProgressBar(interval=0.0) as progress:
        progress.stage("decoding", 4, unit="pictures")
        progress.advance(1.5)
        progress.say("a note")
        progress.advance(2.5)
    out, told = capsys.readouterr()
    lines = told.splitlines()
    assert out == "" and "\x1b" not in told
    assert lines[0].startswith("decoding: 1 of 4 pictures, ") and lines[0].endswith(" left")
    assert lines[1] == "a note" and lines[-1].startswith("decoding: 4 of 4 pictures done in ")


def test_progress_tells_what_is_being_done_now_and_of_how_many(capsys: pytest.CaptureFixture[str]) -> None:
    with console.ProgressBar(interval=0.0) as progress:
        progress.stage("decoding", 9, unit="pictures")
        progress.advance(0, now="tracing 1 of 3")
        progress.advance(1, total=4)
        progress.advance(3)
    first, second, *_, last = capsys.readouterr().err.splitlines()
    assert first.startswith("decoding: 0 of 9 pictures, ") and first.endswith("; now tracing 1 of 3")
    assert second.startswith("decoding: 1 of 4 pictures, ") and "now" not in second
    assert last.startswith("decoding: 4 of 4 pictures done in ")


def test_a_bar_on_a_terminal_names_the_stage_and_the_rate() -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    shown = Terminal()
    with console.ProgressBar(stream=shown) as progress:
        sweep = SweepBar(progress)
        for stage, done, total in (
            ("decoding", 0, 12),
            ("starting workers", 1, 2),
            ("tracing", 0, 3),
            ("decoding", 2.5, 12),
            ("re-encoding", 3.5, 12),
            ("decoding", 4, 8),
            ("tracing", 1, 3),
        ):
            sweep.show(Progress(stage, done, total))
            assert progress._bars is not None
            progress._bars.refresh()
    text = shown.getvalue()
    for told in (
        "starting workers 1 of 2",
        "tracing 0 of 3",
        "re-encoding",
        "decoding",
        "2/12 pictures",
        "4/8 pictures",
    ):
        assert told in text
    assert sweep.begun


def test_progress_for_machines_is_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    with console.ProgressBar(quiet=True, interval=0.0) as progress:
        progress.stage("decoding", 4)
        progress.advance(4)
        progress.say("a note")
    assert capsys.readouterr() == ("", "")


def test_json_is_valid_whatever_is_in_it(capsys: pytest.CaptureFixture[str]) -> None:
    import json
    from pathlib import Path

    import numpy as np

    console.emit_json(
        {"a": float("nan"), "b": np.array([1.0, np.inf]), "c": (Path("x"), None, True), "d": np.float32(2)}
    )
    assert json.loads(capsys.readouterr().out) == {"a": None, "b": [1.0, None], "c": ["x", None, True], "d": 2.0}
    with pytest.raises(TypeError, match="object has no JSON form"):
        console.emit_json(object())
