"""Neurons of every family: sums, writes and interventions against raw hooks on the input of the output projection."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from raw_hooks import pixels
from torch import Tensor, nn

from steerlens.encoders.native import NativeEncoder
from steerlens.encoders.prefix import record_from, record_prefix, resume
from steerlens.errors import TraceError, UsageError
from steerlens.interventions import Patch, Scale, Zero
from steerlens.lenses import TotalLens
from steerlens.sites import Site
from steerlens.testing.encoder_checks import noise_pictures
from steerlens.testing.tiny_families import MODELS, tiny_family_encoder
from steerlens.testing.tiny_vit import (
    EVA_VARIANTS,
    OPEN_CLIP_VARIANTS,
    TIMM_VARIANTS,
    tiny_eva_encoder,
    tiny_open_clip_encoder,
    tiny_timm_encoder,
)

LAYER, UNIT = 1, 5
CLOSE = {"rtol": 1e-7, "atol": 1e-9}


def zeroed(module: nn.Module, unit: int, factor: float, run: Callable[[], Tensor]) -> Tensor:
    """A native pass with one unit of a module's input multiplied by a raw hook."""

    def edit(_: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
        hidden = args[0].clone()
        hidden[..., unit] *= factor
        return (hidden, *args[1:])

    handle = module.register_forward_pre_hook(edit)
    try:
        return run()
    finally:
        handle.remove()


def check_neurons(encoder: NativeEncoder, inputs: Any) -> None:
    trace = encoder.trace(inputs, neurons=True)
    neurons = trace.neurons
    for layer in range(encoder.spec.n_layers):
        M = neurons.projections[layer].n_neurons
        sites = [Site("neuron", layer, index=unit) for unit in range(M)]
        writes = trace.stack(sites)
        total = writes.sum(dim=1) + neurons.projections[layer].bias_write()
        torch.testing.assert_close(total, trace.mlp_out[:, layer], **CLOSE)
        torch.testing.assert_close(neurons.norms(layer).movedim(2, 1), writes.norm(dim=-1), **CLOSE)
        direction = torch.linspace(-1, 1, encoder.spec.width, dtype=encoder.dtype)
        torch.testing.assert_close(neurons.dots(layer, direction).movedim(2, 1), writes @ direction, **CLOSE)
    site = Site("neuron", LAYER, index=UNIT)
    recorded = encoder.record(inputs, [site])[site]
    torch.testing.assert_close(recorded[:, list(encoder.readout_tokens)], trace.at(site), **CLOSE)
    module = encoder.layers()[LAYER].neuron_module()
    for factor, change in ((0.0, Zero(site)), (-3.0, Scale(site, factor=-3.0))):
        wanted = zeroed(module, UNIT, factor, lambda: encoder.embed(inputs))
        torch.testing.assert_close(encoder.embed(inputs, [change]), wanted, **CLOSE)
        assert not torch.allclose(wanted, encoder.embed(inputs), rtol=1e-9)
    # Together with the output that holds it: first the neuron, then the whole.
    both = [Zero(Site("mlp_out", LAYER)), Patch(site, value=recorded + 1)]
    torch.testing.assert_close(encoder.embed(inputs, both), encoder.embed(inputs, both[:1]), **CLOSE)


@pytest.mark.parametrize("kind", sorted(MODELS))
def test_neurons_of_every_family_of_transformers(kind: str) -> None:
    encoder = tiny_family_encoder(kind, dtype=torch.float64)
    check_neurons(encoder, noise_pictures(encoder))


@pytest.mark.usefixtures("timm")
@pytest.mark.parametrize("options", TIMM_VARIANTS.values(), ids=list(TIMM_VARIANTS))
def test_neurons_of_timm(options: dict[str, Any]) -> None:
    encoder = tiny_timm_encoder(dtype=torch.float64, **options)
    check_neurons(encoder, pixels(encoder))


@pytest.mark.usefixtures("timm")
@pytest.mark.parametrize("options", EVA_VARIANTS.values(), ids=list(EVA_VARIANTS))
def test_neurons_of_eva(options: dict[str, Any]) -> None:
    encoder = tiny_eva_encoder(dtype=torch.float64, **options)
    check_neurons(encoder, pixels(encoder))


@pytest.mark.usefixtures("open_clip", "timm")
@pytest.mark.parametrize("options", OPEN_CLIP_VARIANTS.values(), ids=list(OPEN_CLIP_VARIANTS))
def test_neurons_of_open_clip(options: dict[str, Any]) -> None:
    encoder = tiny_open_clip_encoder(dtype=torch.float64, **options)
    check_neurons(encoder, pixels(encoder))


def test_a_resumed_pass_changes_neurons_as_a_whole_one() -> None:
    encoder = tiny_family_encoder("CLIPVisionModelWithProjection", dtype=torch.float64)
    inputs, site = noise_pictures(encoder), Site("neuron", LAYER, index=UNIT)
    prefix = record_prefix(encoder, inputs)
    again = resume(encoder, prefix, LAYER, range(len(prefix)), [Zero(site)])
    torch.testing.assert_close(again, encoder.embed(inputs, [Zero(site)]), **CLOSE)
    torch.testing.assert_close(
        record_from(encoder, prefix, [site])[site], encoder.record(inputs, [site])[site], **CLOSE
    )


def test_the_total_lens_takes_neurons_of_plain_inputs() -> None:
    encoder = tiny_family_encoder("CLIPVisionModelWithProjection", dtype=torch.float64)
    inputs, sites = noise_pictures(encoder), [Site("neuron", LAYER, index=unit) for unit in (UNIT, 2)]
    lens = TotalLens(encoder, "s=3")
    scaled, without = lens.embeddings(inputs, sites), lens.without(inputs, f"neuron.{LAYER}.{UNIT},neuron.{LAYER}.2")
    module = encoder.layers()[LAYER].neuron_module()
    for column, site in enumerate(sites):
        for found, factor in ((scaled, 3.0), (without, 0.0)):
            wanted = zeroed(module, site.index, factor, lambda: encoder.embed(inputs))
            torch.testing.assert_close(found[:, column], wanted, **CLOSE)
    clean = lens.clean(inputs, neurons=True)
    torch.testing.assert_close(lens.embeddings(clean, sites), scaled, **CLOSE)


def test_what_is_not_there_is_refused() -> None:
    encoder = tiny_family_encoder("CLIPVisionModelWithProjection")
    inputs = noise_pictures(encoder)
    M = encoder.layers()[0].neurons().n_neurons
    beyond = Site("neuron", 0, index=M)
    for call in (
        lambda: encoder.embed(inputs, [Zero(beyond)]),
        lambda: encoder.record(inputs, [beyond]),
        lambda: encoder.trace(inputs, neurons=True).at(beyond),
    ):
        with pytest.raises(UsageError, match=rf"neuron\.0\.{M}: layer 0 has neurons 0 to {M - 1}"):
            call()
    with pytest.raises(UsageError, match="holds no neurons; take it with"):
        encoder.trace(inputs).at(Site("neuron", 0, index=1))


def test_an_mlp_that_is_not_known_is_refused_by_name() -> None:
    encoder = tiny_family_encoder("CLIPVisionModelWithProjection")
    inputs, block = noise_pictures(encoder), encoder.layers()[1].block

    class Doubled(nn.Module):
        def __init__(self, inner: nn.Module) -> None:
            super().__init__()
            self.inner = inner

        def forward(self, hidden: Tensor) -> Tensor:
            return self.inner(hidden)

    inner = block.mlp
    block.mlp = Doubled(inner)
    with pytest.raises(UsageError, match="its MLP is a Doubled, without a linear output projection"):
        encoder.trace(inputs, neurons=True)
    block.mlp = inner

    class Twice(type(inner)):  # type: ignore[misc]
        def forward(self, hidden: Tensor) -> Tensor:
            return 2 * super().forward(hidden)

    inner.__class__ = Twice
    with pytest.raises(TraceError, match="neurons of layer 1 add up to its MLP's output only within"):
        encoder.trace(inputs, neurons=True)
