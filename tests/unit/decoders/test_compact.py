"""Decoders in less memory: pictures stay close, bytes are as counted, and what cannot be done is refused."""

import copy
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from torch import nn

from steerlens.conditioning import Conditioning
from steerlens.decoders import Precision, decode, largest_layer, offload, store_compactly, stored_bytes
from steerlens.errors import UsageError
from steerlens.loading import load
from steerlens.testing.tiny import save_tiny_pair
from steerlens.testing.tiny_decoders import save_tiny_decoder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_pair(tmp_path_factory.mktemp("pair"))


def pictures(decoder: Any) -> torch.Tensor:
    values = torch.randn(2, 12, generator=torch.Generator().manual_seed(0))
    return decode(decoder, Conditioning("image_embedding", values), [0, 1])


def stored(network: nn.Module) -> int:
    """Bytes of the weights, as they are in memory."""
    return sum(parameter.nbytes for parameter in network.parameters())


@pytest.mark.parametrize("precision", ["fp8", "int8"])
def test_weights_in_8_bits_are_counted_as_they_are_stored_and_draw_nearly_the_same(
    precision: Precision, folder: Path
) -> None:
    plain = load(folder, device="cpu", dtype="float32").decoder
    pair = load(folder, device="cpu", dtype="float32", precision=precision)
    decoder: Any = pair.decoder
    assert decoder.dtype == torch.float32 and decoder.device.type == "cpu"
    counted = stored_bytes(cast(Any, plain).network, 4, precision)
    assert stored(decoder.network) == counted < 0.5 * stored(cast(Any, plain).network)
    wanted, got = pictures(plain), pictures(decoder)
    assert torch.equal(got, pictures(decoder))  # and again, after layers went back to 8 bits
    assert 0 < (got - wanted).abs().mean() < 0.15  # guidance amplifies the rounding of random weights
    assert stored(decoder.network) == counted
    # Another storage gives other pictures, so it is part of what identifies a run.
    assert pair.provenance.decoder is not None and pair.provenance.decoder.dtype == f"float32, stored as {precision}"


@pytest.mark.parametrize("size", [1.0, 1e-4])
def test_an_int8_weight_is_within_half_a_step_of_its_own(size: float, folder: Path) -> None:
    plain: Any = load(folder, device="cpu", dtype="float32").decoder
    for parameter in plain.network.parameters():
        parameter.data *= size
    decoder: Any = copy.deepcopy(plain)
    store_compactly(decoder, "int8")
    for name, module in plain.network.named_modules():
        if isinstance(module, nn.Linear | nn.Conv2d):
            step = module.weight.abs().flatten(1).amax(dim=1) / 127
            gap = (decoder.network.get_submodule(name).weight - module.weight).abs().flatten(1).amax(dim=1)
            assert bool((gap <= 0.5001 * step).all()), name


@pytest.mark.parametrize("precision", [None, "fp8"])
def test_a_decoder_that_runs_from_the_host_draws_the_same(
    precision: Precision | None, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain: Any = load(folder, device="cpu", dtype="float32", precision=precision).decoder
    moved = copy.deepcopy(load(folder, device="cpu", dtype="float32").decoder)
    if precision is not None:
        store_compactly(moved, precision)
    moves: list[torch.device] = []
    to = torch.Tensor.to

    def watched(tensor: torch.Tensor, *given: Any, **named: Any) -> torch.Tensor:
        if named.get("non_blocking"):
            moves.append(given[0])
        return to(tensor, *given, **named)

    monkeypatch.setattr(torch.Tensor, "to", watched)
    offload(moved, torch.device("cpu"))  # a GPU in place of the CPU is all that this test lacks
    torch.testing.assert_close(pictures(moved), pictures(plain), rtol=0, atol=0)
    assert len(moves) > 100 and set(moves) == {torch.device("cpu")}
    assert 0 < largest_layer(plain.network, 4, None) < stored_bytes(plain.network, 4, None) / 4


def test_what_cannot_be_done_is_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--offload keeps weights in the host's memory while a GPU computes"):
        load(folder, device="cpu", offload=True)
    autoencoder = save_tiny_decoder("rae-mae", tmp_path)
    with pytest.raises(UsageError, match=r"--precision int8: .* has no denoising network"):
        load(autoencoder, device="cpu", precision="int8")
