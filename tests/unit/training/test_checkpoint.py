"""Checkpoints: a restored optimizer goes on as if it had never stopped, and headers state shapes and facts."""

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from steerlens.errors import StoreError
from steerlens.training.checkpoint import (
    load_checkpoint,
    optimizer_tensors,
    part,
    prefixed,
    restore_optimizer,
    save_checkpoint,
    stored_facts,
    stored_shape,
)


def make() -> tuple[nn.Parameter, torch.optim.Optimizer]:
    """A parameter that is not contiguous, as the transpose of a weight is, with the optimizer of the stages."""
    weight = nn.Parameter(torch.arange(24.0).view(4, 6).T)
    assert not weight.is_contiguous()
    return weight, torch.optim.AdamW([weight], lr=0.1, fused=True)


def step(weight: nn.Parameter, optimizer: torch.optim.Optimizer, number: int) -> None:
    gradient = torch.randn(6, 4, generator=torch.Generator().manual_seed(number))
    weight.grad = torch.empty_like(weight).copy_(gradient)
    optimizer.step()


def test_moments_of_a_transposed_parameter_are_restored_in_its_memory_order(tmp_path: Path) -> None:
    weight, optimizer = make()
    for number in range(3):
        step(weight, optimizer, number)
    tensors: dict[str, Tensor] = prefixed("adamw", optimizer_tensors(optimizer)) | {"weight": weight.detach()}
    save_checkpoint(tmp_path / "state.safetensors", tensors, {})
    stored, _ = load_checkpoint(tmp_path / "state.safetensors")
    again, restored = make()
    with torch.no_grad():
        again.copy_(stored["weight"])
    restore_optimizer(restored, part("adamw", stored))
    for number in range(3, 6):
        step(weight, optimizer, number)
        step(again, restored, number)
    assert torch.equal(again, weight)


def test_shapes_and_facts_come_from_the_header_alone(tmp_path: Path) -> None:
    path = tmp_path / "state.safetensors"
    save_checkpoint(path, {"embeds": torch.zeros(5, 7), "other": torch.zeros(2)}, {"step": 3})
    tensors, facts = load_checkpoint(path)
    assert stored_shape(path, "embeds") == tuple(tensors["embeds"].shape) == (5, 7)
    assert stored_facts(path) == facts == {"step": 3}
    with pytest.raises(StoreError, match="its content is computed again"):
        stored_shape(path, "missing")
    path.write_bytes(path.read_bytes()[:40])
    for read in (stored_facts, lambda file: stored_shape(file, "embeds")):
        with pytest.raises(StoreError, match="is damaged"):
            read(path)
