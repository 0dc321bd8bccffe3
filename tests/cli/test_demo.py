"""`steerlens demo`: the main job on the bundled pair, as a user runs it."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from steerlens.runs.store import load_run


@pytest.mark.slow
def test_the_demo_shows_every_layer_and_every_head_under_both_lenses(emoji: object, tmp_path: Path) -> None:
    out = tmp_path / "demo"
    command = [sys.executable, "-m", "steerlens.cli.main", "demo", "--out", str(out), "--json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr
    atlas = load_run(out)
    heads = atlas.encoder.n_layers * atlas.encoder.n_heads
    assert len(atlas.ranked("diffusion")) == len(atlas.ranked("steering")) == heads
    assert len([site for site in atlas.sites("diffusion") if site.kind == "resid_post"]) == atlas.encoder.n_layers
    assert all(head.control is not None for head in atlas.ranked("steering"))
    assert len(atlas.results) > 150
    assert atlas.reading().labels
    assert Path(json.loads(done.stdout)["report"]).is_file()
    # A trained decoder shows the picture again; noise would come out near 0.
    assert atlas.clean()[0].fidelity > 0.3
