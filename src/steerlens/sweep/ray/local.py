"""Ray on this machine, for one sweep: bound to loopback, with a token, and gone when the sweep is.

Ray's services run whatever they are sent. They are told to listen on 127.0.0.1 alone, and to answer only who knows the
token of this sweep, which is drawn anew and stays in the environment of its processes.
"""

import importlib
import os
import secrets
import signal
import subprocess
import sys
import threading
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from steerlens.sweep.ray import watcher

_ENVIRONMENT = {
    "RAY_AUTH_MODE": "token",
    # Despite its name: without it Ray takes 127.0.0.1 as the address of its node, on every system.
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
}

_TOKEN = "RAY_AUTH_TOKEN"

_END_SECONDS = 10.0
"""Seconds in which the watcher has to end what is left."""


@contextmanager
def private_ray() -> Generator[None]:
    """What Ray needs around it while it runs here: its environment and the watcher."""
    before = {name: os.environ.get(name) for name in (*_ENVIRONMENT, _TOKEN)}
    os.environ.update(_ENVIRONMENT)
    os.environ[_TOKEN] = secrets.token_hex(32)
    constants: Any = importlib.import_module("ray._private.ray_constants")
    clusters = getattr(constants, "ENABLE_RAY_CLUSTER", None)
    try:
        constants.ENABLE_RAY_CLUSTER = False  # read from the environment when Ray was imported, perhaps before
        _read_environment()
        with _watched():
            yield
    finally:
        constants.ENABLE_RAY_CLUSTER = clusters
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
        _read_environment()


def keep_sigterm(handler: Any) -> None:
    """Puts a handler of SIGTERM back: Ray sets its own, which ends in an abort of its core."""
    if threading.current_thread() is threading.main_thread() and handler is not None:
        signal.signal(signal.SIGTERM, handler)


@contextmanager
def _watched() -> Generator[None]:
    command = [sys.executable, "-I", "-S", str(Path(watcher.__file__)), str(os.getpid())]
    # In a session of its own, so that what kills a whole group of processes leaves it to do its work.
    process = subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True)
    try:
        yield
    finally:
        if process.stdin is not None:
            process.stdin.close()
        with suppress(subprocess.TimeoutExpired):
            process.wait(_END_SECONDS)


def _read_environment() -> None:
    # Ray keeps what it read when it was imported, and the token that it used last.
    with suppress(ImportError, AttributeError):
        core: Any = importlib.import_module("ray._raylet")
        core.Config.initialize("")
        core.AuthenticationTokenLoader.instance().reset_cache()
