"""Results against the golden tensors; `golden.py` says how to make them anew."""

import pytest
import torch
from torch import Tensor

from golden import FILE, results, stored

ENCODER, WANTED = stored()
GOT: dict[str, Tensor] = results(ENCODER, WANTED["pixels"])


def test_the_golden_file_is_small_and_holds_exactly_what_is_computed() -> None:
    assert FILE.stat().st_size < 40_000
    assert set(WANTED) == {"pixels", *GOT}


@pytest.mark.parametrize("name", sorted(GOT))
def test_result_is_the_golden_one(name: str) -> None:
    torch.testing.assert_close(GOT[name], WANTED[name], rtol=1e-4, atol=1e-5)
