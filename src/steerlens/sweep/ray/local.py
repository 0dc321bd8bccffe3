"""Ray on this machine for a single sweep: bound to loopback, protected by a token, and stopped with the sweep.

Ray's services run any code that they receive. Here they listen only on 127.0.0.1, and accept only clients with the
random token of this sweep, which never leaves the environment of its processes.
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
    # Despite its name, 0 makes Ray use 127.0.0.1 as the address of its node on every system.
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
}

_TOKEN = "RAY_AUTH_TOKEN"

_END_SECONDS = 10.0
"""Seconds in which the watcher must end all remaining processes."""


@contextmanager
def private_ray() -> Generator[None]:
    """Sets up the environment and the watcher of a local Ray; restores the environment afterwards."""
    before = {name: os.environ.get(name) for name in (*_ENVIRONMENT, _TOKEN)}
    os.environ.update(_ENVIRONMENT)
    os.environ[_TOKEN] = secrets.token_hex(32)
    constants: Any = importlib.import_module("ray._private.ray_constants")
    clusters = getattr(constants, "ENABLE_RAY_CLUSTER", None)
    try:
        constants.ENABLE_RAY_CLUSTER = False  # Ray reads it on import, perhaps before now
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
    """Restores a handler of SIGTERM, because Ray's own handler aborts the process."""
    if threading.current_thread() is threading.main_thread() and handler is not None:
        signal.signal(signal.SIGTERM, handler)


@contextmanager
def _watched() -> Generator[None]:
    command = [sys.executable, "-I", "-S", str(Path(watcher.__file__)), str(os.getpid())]
    # In a new session, so that it survives a signal to the whole process group.
    process = subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True)
    try:
        yield
    finally:
        if process.stdin is not None:
            process.stdin.close()
        with suppress(subprocess.TimeoutExpired):
            process.wait(_END_SECONDS)


def _read_environment() -> None:
    # Ray caches its configuration on import, and the last token.
    with suppress(ImportError, AttributeError):
        core: Any = importlib.import_module("ray._raylet")
        core.Config.initialize("")
        core.AuthenticationTokenLoader.instance().reset_cache()
