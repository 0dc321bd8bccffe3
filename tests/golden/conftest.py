"""A copy of what version 0.1.0 wrote, with it as the working directory: its paths are relative."""

import shutil
from pathlib import Path

import pytest
from before import BEFORE


@pytest.fixture
def before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The copy's folder, the working directory of the test; traces are kept in a `STEERLENS_CACHE` of its own."""
    folder = tmp_path / "before"
    shutil.copytree(BEFORE, folder)
    monkeypatch.chdir(folder)
    monkeypatch.setenv("STEERLENS_CACHE", str(tmp_path / "traces"))
    return folder


@pytest.fixture
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Figures are empty files, for tests that look at other files alone: drawing takes longer than all else."""
    monkeypatch.setattr("matplotlib.backends.backend_agg.FigureCanvasAgg.print_png", lambda *_, **__: None)
    monkeypatch.setattr("matplotlib.backends.backend_svg.FigureCanvasSVG.print_svg", lambda *_, **__: None)
