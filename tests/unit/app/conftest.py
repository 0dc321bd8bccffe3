"""An explorer of the tiny random pair, and pictures to look at."""

from pathlib import Path
from typing import Any

import pytest
import torch

from steerlens.app import Explorer, Policy
from steerlens.app.models import OpenModel
from steerlens.zoo import sample_picture


@pytest.fixture
def explorer(pair: Any, pair_folder: Path) -> Explorer:
    explorer = Explorer([OpenModel("tiny", pair, {"model": str(pair_folder)})], Policy())
    explorer.inputs.offer(sample_picture())
    return explorer


@pytest.fixture(autouse=True)
def _no_gradients() -> Any:
    """As on the worker's thread."""
    with torch.no_grad():
        yield


@pytest.fixture
def sample(explorer: Explorer) -> str:
    return explorer.inputs.examples()[0].id
