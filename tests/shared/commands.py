"""Commands under test: as real processes where that matters, and in this process, which saves four seconds each."""

import contextlib
import io
import os
import subprocess
import sys

from steerlens.cli.main import main


def steerlens_process(*arguments: object, **environment: str) -> "subprocess.CompletedProcess[str]":
    """Runs `steerlens` as a process of its own, as a user does."""
    command = [sys.executable, "-m", "steerlens.cli.main", *map(str, arguments)]
    variables = {**os.environ, **environment}
    return subprocess.run(command, capture_output=True, text=True, timeout=400, check=False, env=variables)


def steerlens(*arguments: object) -> "subprocess.CompletedProcess[str]":
    """Runs `steerlens` in this process; an exception that it does not turn into a message goes through."""
    command, out, err = list(map(str, arguments)), io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = main(command)
    return subprocess.CompletedProcess(command, code, out.getvalue(), err.getvalue())
