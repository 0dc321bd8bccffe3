"""Shared by all tests: no network, optional libraries, the same hypothesis examples everywhere, the bundled pair."""

import os

os.environ["HF_HUB_OFFLINE"] = "1"  # Before transformers and diffusers are imported: they read it once.

# Commands started by tests have models as tiny as theirs: their threads, too, would only wait for each other.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import ipaddress
import socket
import sys
from collections.abc import Callable, Iterator
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NoReturn

import pytest
import torch
from hypothesis import settings

from steerlens.testing.optional import add_optional_libraries

# The tensors of most tests are so small that threads only wait for each other; on a busy machine, for long.
torch.set_num_threads(1)

# Derandomised, so that a failure seen in CI is the failure seen at home; no deadline, since CI machines are shared.
settings.register_profile("steerlens", deadline=None, derandomize=True, database=None, max_examples=40)
settings.load_profile("steerlens")


# Before transformers is imported: it asks once whether torchvision is there.
add_optional_libraries()


def _missing(message: str) -> NoReturn:
    """Skips a test for want of something; fails it under CI: a gate that skips what it should test is no gate."""
    (pytest.fail if os.environ.get("CI", "").lower() not in ("", "0", "false") else pytest.skip)(message)


def _optional(name: str) -> Any:
    if find_spec(name) is None:
        _missing(f"{name} is not installed: `make test` puts it into {sys.prefix}/optional")
    return import_module(name)


@pytest.fixture(scope="session")
def missing() -> Callable[[str], NoReturn]:
    """Skips a test for want of what a message names; fails it under CI."""
    return _missing


@pytest.fixture(scope="session")
def timm() -> Any:
    """The library, or a skipped test where it is not installed."""
    return _optional("timm")


@pytest.fixture(scope="session")
def open_clip() -> Any:
    """The library, or a skipped test where it is not installed."""
    return _optional("open_clip")


def pytest_configure(config: pytest.Config) -> None:
    """Warnings are errors, but for one in diffusers' multistep schedulers, which only a newer diffusers can mend."""
    config.addinivalue_line(
        "filterwarnings", "ignore:__array__ implementation doesn't accept a copy:DeprecationWarning"
    )


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Commands under test keep their traces apart from the user's."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("STEERLENS_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session", autouse=True)
def _no_network() -> Iterator[None]:
    """A test that reaches for another machine fails: this machine's own addresses and Unix sockets stay open."""
    connect = socket.socket.connect

    def local_only(self: socket.socket, address: Any) -> None:
        if self.family in (socket.AF_INET, socket.AF_INET6) and not _is_local(address[0]):
            raise AssertionError(f"a test tried to reach {address[0]}")
        return connect(self, address)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket.socket, "connect", local_only)
        yield


def _is_local(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


@pytest.fixture(scope="session")
def pair_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny random pair on disk, for tests that do not change its files."""
    from steerlens.testing.tiny import save_tiny_pair

    return save_tiny_pair(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="session")
def pair(pair_folder: Path) -> Iterator[Any]:
    """The tiny random pair, loaded once for all tests: none may change its weights, which is checked at the end."""
    from steerlens.loading import load

    loaded = load(pair_folder, dtype="float32", device="cpu")
    modules = {"encoder": loaded.encoder.model, "unet": loaded.decoder.unet, "movq": loaded.decoder.movq}
    before = {name: _weights(module) for name, module in modules.items()}
    yield loaded
    changed = [name for name, module in modules.items() if not torch.equal(_weights(module), before[name])]
    if changed:
        raise AssertionError(f"a test changed the weights of the pair that all tests share: {', '.join(changed)}")


def _weights(module: torch.nn.Module) -> torch.Tensor:
    return torch.cat([tensor.detach().flatten().double() for tensor in module.state_dict().values()])


@pytest.fixture(scope="session")
def emoji() -> Any:
    """The bundled pair in float32; `STEERLENS_TEST_PAIR` names a folder of the same layout to test in its place.

    A package without its pair is broken: then every test that wants it fails.
    """
    from steerlens.loading import load

    folder = os.environ.get("STEERLENS_TEST_PAIR")
    return load(folder or "emoji", dtype="float32")
