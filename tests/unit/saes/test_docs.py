"""The example of docs/saes.md runs as it stands."""

import json
import re
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

DOCS = Path(__file__).parents[3] / "docs"


def test_the_example_of_the_page_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    block = re.findall(r"```python\n(.*?)```", (DOCS / "saes.md").read_text(encoding="utf-8"), flags=re.DOTALL)[0]
    assert len(block.splitlines()) < 15
    D, F = 192, 32
    torch.manual_seed(0)
    weights = {"W_enc": torch.randn(D, F), "W_dec": torch.randn(F, D) / D**0.5}
    save = tmp_path / "my-sae"
    save.mkdir()
    save_file({**weights, "b_enc": torch.zeros(F), "b_dec": torch.zeros(D)}, save / "sae_weights.safetensors")
    (save / "cfg.json").write_text(json.dumps({"architecture": "standard", "d_in": D, "d_sae": F}))
    monkeypatch.chdir(tmp_path)
    exec(compile(block, "saes.md", "exec"), {})
    first, second, third = capsys.readouterr().out.splitlines()
    assert float(re.findall(r"tensor\((.*)\)", first)[0]) <= 1e-4 and second.startswith("Fidelity(n_values=")
    assert float(re.findall(r"[\d.]+", third)[0]) <= 1
