"""The built wheel works in a fresh environment without a constraints file: the demo runs, and the README's code."""

import os
import re
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def run(*command: str | Path, cwd: Path) -> str:
    """Output of a process, without the variables that would let it see this checkout."""
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "PIP_CONSTRAINT"))
    }
    done = subprocess.run(
        [str(word) for word in command], cwd=cwd, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"{command[0]} {command[1]}: {done.stdout[-2000:]} {done.stderr[-4000:]}"
    return done.stdout


def preinstall_torch(python: Path) -> None:
    """Links torch of this environment into another, as if its CPU build were installed there already."""
    there = Path(run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", cwd=python.parent).strip())
    here = Path(sysconfig.get_path("purelib"))
    for pattern in ("torch", "torchgen", "functorch", "torch-*.dist-info"):
        for path in here.glob(pattern):
            (there / path.name).symlink_to(path)


@pytest.mark.slow
def test_the_wheel_runs_the_demo_and_the_readme(tmp_path: Path) -> None:
    pip = ("-m", "pip", "--disable-pip-version-check")
    run(sys.executable, *pip, "wheel", "-q", "--no-deps", "--wheel-dir", tmp_path, ROOT, cwd=tmp_path)
    (wheel,) = tmp_path.glob("steerlens-*.whl")
    venv.create(tmp_path / "fresh", with_pip=True)
    python = tmp_path / "fresh" / "bin" / "python"
    preinstall_torch(python)
    run(python, *pip, "install", "-q", wheel, cwd=tmp_path)
    run(python.with_name("steerlens"), "demo", "--out", "demo", cwd=tmp_path)
    assert (tmp_path / "demo" / "report.html").is_file()
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    code = "\n".join(re.findall(r"```python\n(.*?)```", readme, flags=re.DOTALL))
    (tmp_path / "readme.py").write_text(code)
    assert "Trace(" in run(python, "readme.py", cwd=tmp_path)
    assert (tmp_path / "out" / "report.html").is_file()
