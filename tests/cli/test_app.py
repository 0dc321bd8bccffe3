"""`steerlens app` as a process: the Space's own file in a clean environment, and mistakes before anything is loaded."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from steerlens.cli.main import main

ROOT = Path(__file__).parents[2]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="module")
def space(tmp_path_factory: pytest.TempPathFactory, pair_folder: Path) -> Iterator[tuple[str, Path]]:
    """Address and folder of a Space that runs `docs/space/app.py` with nothing of this process's environment."""
    folder, port = tmp_path_factory.mktemp("space"), free_port()
    clean = {
        "PATH": "/usr/bin:/bin",
        "HOME": str(folder),
        "PYTHONPATH": str(ROOT / "src"),
        "PYTHONDONTWRITEBYTECODE": "1",
        "HF_HUB_OFFLINE": "1",
        "OMP_NUM_THREADS": "1",
        "SPACE_HOST": "me-explorer.hf.space",
        "MODEL": str(pair_folder),
        "PORT": str(port),
    }
    process = subprocess.Popen(
        [sys.executable, str(ROOT / "docs" / "space" / "app.py")],
        cwd=folder,
        env=clean,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        deadline = time.monotonic() + 150
        while time.monotonic() < deadline and process.poll() is None:
            try:
                state = json.loads(ask(f"http://127.0.0.1:{port}", "/api/state")[1])
            except (OSError, ValueError):
                state = {}
            if state.get("ready"):
                break
            assert not state.get("error"), state
            time.sleep(0.3)
        else:
            raise AssertionError(f"the Space did not start: {process.communicate()[0]}")
        yield f"http://127.0.0.1:{port}", folder
    finally:
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=30)


def ask(url: str, path: str, content: Any = None, **headers: str) -> tuple[int, str]:
    body = None if content is None else content if isinstance(content, bytes) else json.dumps(content).encode()
    given = {"X-Steerlens-Tab": "t", "Content-Type": "application/json", **headers}
    request = urllib.request.Request(url + path, data=body, headers=given)
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


@pytest.mark.slow
def test_a_space_starts_in_a_clean_environment_and_writes_nothing(space: tuple[str, Path]) -> None:
    url, folder = space
    state = json.loads(ask(url, "/api/state", Host="me-explorer.hf.space")[1])
    assert not state["writes"] and state["uploadBytes"] == 8_000_000
    id = state["examples"][0]["id"]
    view = {"input": id, "site": "head.0.0"}
    status, text = ask(
        url, "/api/look", {"view": view}, Host="me-explorer.hf.space", Origin="https://me-explorer.hf.space"
    )
    assert status == 200 and "event: picture" in text
    assert "writes nothing" in ask(url, "/api/save", {"views": [view]})[1]
    assert "steerlens lens sample" in ask(url, "/api/recipe", view)[1]
    assert "larger than" in ask(url, "/api/inputs?name=a.png", b"x", **{"Content-Length": "8000001"})[1]
    assert ask(url, "/api/state", Host="evil.example")[0] == 421
    assert "https://huggingface.co" in urllib.request.urlopen(url, timeout=60).headers["content-security-policy"]
    status, text = 200, ""
    strip = {"view": view, "refine": False, "strengths": [f"rho={strength}" for strength in range(16)]}
    for _ in range(40):
        status, text = ask(url, "/api/look", strip, **{"X-Forwarded-For": "10.0.0.9"})
        if status == 400:
            break
    assert status == 400 and "240 pictures a minute" in text
    # Another visitor has a budget of their own.
    assert ask(url, "/api/look", {"view": view}, **{"X-Forwarded-For": "10.0.0.9, 10.0.0.8"})[0] == 200
    assert [path for path in folder.rglob("*") if path.is_file()] == []


def test_a_taken_port_is_said_before_a_model_is_loaded(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert main(["app", "--port", str(port), "--no-browser"]) == 2
    assert "take another --port" in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments",
    [
        ["--space", "--run", "grin"],
        ["--port", "70000"],
        ["--host", "no host"],
        ["--images", "sample", "no-such.png"],
        ["--run", "no-such-run"],
    ],
)
def test_requests_that_make_no_sense(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["app", "--no-browser", *arguments]) == 2
    assert capsys.readouterr().err.startswith("steerlens: ")
    assert os.environ.get("SPACE_HOST") is None


def test_the_bundled_picture_can_be_named_and_a_model_that_does_not_open_is_told_in_the_terminal_too(
    tmp_path: Path,
) -> None:
    command = [sys.executable, "-m", "steerlens", "app", "--port", "0", "--no-browser", "--model", "emojj"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src"), "PYTHONUNBUFFERED": "1"}
    with subprocess.Popen(
        [*command, "--images", "sample"],
        cwd=tmp_path,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        assert process.stdout is not None
        said = ""
        for line in process.stdout:
            said += line
            if "did not open" in line:
                break
        process.send_signal(signal.SIGINT)
    assert "explorer: http://127.0.0.1:" in said and "the explorer did not open:" in said and "emojj" in said, said
