"""Commands in environments that shells, daemons and schedulers leave behind, as real processes."""

import errno
import importlib
import os
import resource
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
from PIL import Image

import steerlens.cli.main as program
from steerlens.cli.environment import command_environment
from steerlens.cli.main import main
from steerlens.errors import ModelError, UsageError
from steerlens.images import picture_files

LENS = (sys.executable, "-m", "steerlens.cli.main", "lens")
QUICK = ("--sites", "L3H1", "--steps", "1", "--controls", "0")


@pytest.fixture(scope="module")
def picture(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = Path(os.fsdecode(bytes(tmp_path_factory.mktemp("pictures")) + b"/c\xffat.png"))
    Image.effect_noise((40, 40), 80).convert("RGB").save(path)
    return path


def environment(**changes: str) -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1", **changes}


def test_a_hostile_environment_and_a_closed_output_change_nothing(picture: Path, tmp_path: Path) -> None:
    hostile = environment(
        MPLBACKEND="nonsense",
        PYTHONWARNINGS="error",
        HOME="/proc/nowhere",  # not even root writes there
        XDG_CACHE_HOME="",
        STEERLENS_CACHE="",
        PYTHONIOENCODING="ascii",
    )
    command = [*LENS, str(picture), *QUICK, "--out", str(tmp_path / "run")]
    closing = ["sh", "-c", 'exec "$@" <&- >&-', "sh", *command]
    done = subprocess.run(closing, env=hostile, stderr=subprocess.PIPE, timeout=300, check=False)
    assert done.returncode == 0, done.stderr.decode()
    assert b"Traceback" not in done.stderr and b"Warning" not in done.stderr, done.stderr.decode()
    assert (tmp_path / "run" / "report.html").is_file()


def test_a_closed_error_stream_is_survived_and_the_code_still_tells(tmp_path: Path) -> None:
    closing = ["sh", "-c", 'exec "$@" 2>&- >&-', "sh", *LENS, str(tmp_path / "missing.png")]
    assert subprocess.run(closing, env=environment(), timeout=120, check=False).returncode == 2


def test_a_current_folder_that_is_gone_is_one_message(tmp_path: Path) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    remove_and_run = 'rmdir "$1"; shift; exec "$@"'
    run = ("sh", "-c", remove_and_run, "sh", str(gone), sys.executable, "-m", "steerlens.cli.main")
    ended = subprocess.run(
        [*run, "runs", "show", str(tmp_path)], cwd=gone, capture_output=True, text=True, env=environment()
    )
    assert ended.returncode == 2
    assert (
        ended.stderr == "steerlens: the current folder is gone; change to another folder and run the command again.\n"
    )


def test_too_little_memory_is_one_message(picture: Path, tmp_path: Path) -> None:
    limit = 600_000_000  # enough to start Python; torch's import would fail in ways that differ from run to run
    done = subprocess.run(
        [*LENS, str(picture), *QUICK, "--out", str(tmp_path / "run")],
        env=environment(),
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (limit, limit)),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr == (
        "steerlens: there is not enough memory: this process may have 0.60 GB, and torch alone needs 1 GB. Raise the "
        "limit (`ulimit -v`), or that of the scheduler.\n"
    )
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("number", [errno.EEXIST, errno.EROFS, errno.ENOTDIR, errno.EACCES])
def test_a_path_that_cannot_be_used_is_one_message(
    number: int, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> int:
        raise OSError(number, os.strerror(number), "some/place")

    monkeypatch.setattr(program, "_dispatch", fail)
    assert main(["train"]) == 1
    assert capsys.readouterr().err == (
        f"steerlens: some/place cannot be used: {os.strerror(number)}. Check the path and its permissions.\n"
    )


@pytest.mark.parametrize("error", [SystemError("error return without exception set"), ModelError("cannot be loaded")])
def test_failures_at_the_limit_of_memory_are_told_as_such(
    error: Exception, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> int:
        raise error from OSError("unable to load weights")  # which hides the reason

    monkeypatch.setattr(program, "_dispatch", fail)
    monkeypatch.setattr(program, "_is_at_its_limit", lambda: True)
    assert main(["lens"]) == 1
    assert capfd.readouterr().err.startswith("steerlens: there is not enough memory.")
    monkeypatch.setattr(program, "_is_at_its_limit", lambda: False)
    assert main(["lens"]) == 1
    assert "memory" not in capfd.readouterr().err


def test_a_library_whose_own_import_fails_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "broken_vision").mkdir()
    (tmp_path / "broken_vision" / "__init__.py").write_text("from broken_vision import operators")
    (tmp_path / "broken_vision" / "operators.py").write_text("raise RuntimeError('operator nms does not exist')")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(program, "_dispatch", lambda *_: importlib.import_module("broken_vision"))
    assert main(["lens"]) == 1
    assert capsys.readouterr().err.startswith(
        "steerlens: broken_vision cannot be imported (operator nms does not exist). Its version may not fit"
    )


def test_a_lack_of_memory_while_a_message_is_made_is_told_as_well(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> tuple[str, int]:
        raise MemoryError

    monkeypatch.setattr(program, "_dispatch", lambda *_: int("a"))
    monkeypatch.setattr(program, "_explain", fail)
    assert main(["lens"]) == 1
    assert capfd.readouterr().err.startswith("steerlens: there is not enough memory.")


def test_the_program_leaves_at_once_without_memory() -> None:
    """Libraries crash at Python's own end, after the message, if they have no memory."""
    script = (
        "import atexit, os, sys; import steerlens.cli.main as program; atexit.register(os.abort);"
        "program._is_at_its_limit = lambda: True; sys.argv = ['steerlens', 'lens', 'x'];"
        "program._dispatch = lambda *_: int('a'); sys.exit(program.main())"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith("steerlens: there is not enough memory.") and done.stderr.count("\n") == 1


@pytest.mark.parametrize("option", ["--out", "--model", "--target", "--local"])
def test_options_that_are_not_text_are_refused_before_anything_is_loaded(
    option: str, picture: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["lens", str(picture), option, os.fsdecode(b"o\xff")]) == 2
    assert f"{option}: o\\udcff is not UTF-8" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_names_that_are_not_text_are_found_in_folders_of_pictures(picture: Path) -> None:
    with pytest.raises(UsageError, match=r"c\\udcffat\.png is not UTF-8; rename it"):
        picture_files(picture.parent)


def test_the_environment_of_the_caller_comes_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MPLBACKEND", "nonsense")
    monkeypatch.setenv("PYTHONWARNINGS", "error")
    monkeypatch.setattr(sys, "warnoptions", ["error"])
    filters = list(warnings.filters)
    with command_environment():
        assert os.environ["MPLBACKEND"] == "agg" and "PYTHONWARNINGS" not in os.environ
        warnings.warn("a library is deprecated", DeprecationWarning, stacklevel=1)
    assert os.environ["MPLBACKEND"] == "nonsense" and os.environ["PYTHONWARNINGS"] == "error"
    assert list(warnings.filters) == filters


@pytest.mark.parametrize(
    "arguments",
    [
        ["lens", "sample", "--strength", "rho=1", "--strength", "rho=2"],
        ["lens", "sample", "--seed=1", "--dry-run", "--seed", "1"],
        ["lens", "sample", "--batch_size", "1", "--batch-size", "2"],
        ["study", "importance", "--out", "a", "--out", "b"],
        ["runs", "show", "a", "--json", "--json"],
        ["cache", "clear", "--model", "emoji", "--model", "other"],
    ],
)
def test_an_option_given_twice_is_refused(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == 2
    assert "is given twice" in capsys.readouterr().err


def test_options_that_add_up_may_be_given_several_times(capsys: pytest.CaptureFixture[str]) -> None:
    more = ["--group", "a=L1H0,L1H1", "--group", "b=L2H0,L2H1", "--effect", "direct", "--effect", "total"]
    assert main(["lens", "sample", "--dry-run", *more]) == 0
    assert "pictures to decode" in capsys.readouterr().out


def test_clearing_the_cache_of_an_unknown_model_is_refused(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STEERLENS_CACHE", str(tmp_path))
    assert main(["cache", "clear", "--model", "UNKNOWN"]) == 2
    assert "has no traces of 'UNKNOWN'" in capsys.readouterr().err
