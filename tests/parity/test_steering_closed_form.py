"""The Diffusion Steering Lens: its closed form against its definition, hook by hook and in plain code."""

from functools import cache

import pytest
import torch
from plain import SIZES, Size, cosine_distance, plain_forward, random_encoder, random_pixels
from torch import Tensor

from steerlens.encoders.clip import CLIPEncoder
from steerlens.interventions import Scale
from steerlens.lenses.controls import steer_directions
from steerlens.lenses.diffusion import DiffusionLens
from steerlens.lenses.steering import SteeringLens, steer_and_patch
from steerlens.lenses.strength import Strength
from steerlens.sites import Site, all_heads, layer_sites
from steerlens.trace import Trace

FACTORS = (-3.0, 0.0, 0.5, 1.0, 2.0, 40.0, 1000.0)


@cache
def single(size: Size) -> tuple[CLIPEncoder, Tensor, Trace]:
    """A model in float32, the precision that the figures are promised for."""
    encoder = random_encoder(size, torch.float32)
    pixels = random_pixels(encoder)
    return encoder, pixels, encoder.trace(pixels)


def submodules(encoder: CLIPEncoder) -> list[Site]:
    L, H = encoder.spec.n_layers, encoder.spec.n_heads
    return [*all_heads(L, H), *layer_sites("attn_out", L), *layer_sites("mlp_out", L)]


@pytest.mark.parametrize("factor", FACTORS)
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_closed_form_is_the_hook_by_hook_definition_within_1e6(size: Size, factor: float) -> None:
    encoder, pixels, trace = single(size)
    sites = submodules(encoder)
    closed = SteeringLens(encoder, Strength("s", factor)).embeddings(trace, sites)
    for index, site in enumerate(sites):
        by_hooks = steer_and_patch(encoder, pixels, site, factor)
        assert cosine_distance(closed[:, index], by_hooks) <= 1e-6, site


@pytest.mark.parametrize("layer", range(SIZES[2].layers))
@pytest.mark.parametrize("factor", FACTORS)
def test_closed_form_of_a_direction_is_the_definition_whatever_layer_it_enters_at(factor: float, layer: int) -> None:
    encoder, pixels, trace = single(SIZES[2])
    direction = torch.randn(encoder.spec.width, generator=torch.Generator().manual_seed(3))
    site = Site("vector", name="probe")
    lens = SteeringLens(encoder, Strength("s", factor), {"probe": direction})
    by_hooks = steer_and_patch(encoder, pixels, site, factor, direction, layer)
    assert cosine_distance(lens.embeddings(trace, [site])[:, 0], by_hooks) <= 1e-6


@pytest.mark.parametrize("place", ["head.0.1", "head.2.0", "attn_out.1", "mlp_out.0", "mlp_out.3"])
def test_the_definition_is_what_plain_code_gives_when_later_submodules_are_held(place: str) -> None:
    encoder = random_encoder(SIZES[2])
    pixels = random_pixels(encoder)
    clean = plain_forward(encoder, pixels).sites
    kind, layer = place.split(".")[0], int(place.split(".")[1])

    def edit(name: str, value: Tensor) -> Tensor:
        if name == place:
            return 7 * value
        part, _, number = name.partition(".")
        later = part in ("attn_out", "mlp_out") and int(number) > layer
        same_layer = name == f"mlp_out.{layer}" and kind != "mlp_out"
        return clean[name] if later or same_layer else value

    wanted = plain_forward(encoder, pixels, edit).embedding
    got = steer_and_patch(encoder, pixels, Site.parse(place), 7.0)
    torch.testing.assert_close(got, wanted, rtol=1e-9, atol=1e-10)


def test_without_patches_steering_gives_something_else() -> None:
    encoder, pixels, trace = single(SIZES[2])
    site = Site("head", 0, 1)
    closed = SteeringLens(encoder, Strength("s", 3.0)).embeddings(trace, [site])[:, 0]
    assert cosine_distance(closed, encoder.embed(pixels, [Scale(site, factor=3.0)])) > 1e-3


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("strength", [Strength("s", 1.0), Strength("rho", 0.0)], ids=str)
def test_s_1_and_rho_0_are_the_clean_embedding(size: Size, strength: Strength) -> None:
    encoder, _, trace = single(size)
    steered = SteeringLens(encoder, strength).embeddings(trace, submodules(encoder))
    torch.testing.assert_close(steered, trace.embedding[:, None].expand_as(steered), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_diffusion_lens_of_the_last_residual_is_the_native_embedding(size: Size) -> None:
    encoder, pixels, trace = single(size)
    last = DiffusionLens(encoder).embeddings(trace, [Site("resid_post", size.layers - 1)])[:, 0]
    torch.testing.assert_close(last, encoder.embed(pixels), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("kind", ["s", "rho"])
def test_as_steering_grows_it_tends_to_the_diffusion_lens_of_the_component(kind: str) -> None:
    encoder, _, trace = single(SIZES[2])
    sites = submodules(encoder)
    limit = DiffusionLens(encoder).embeddings(trace, sites)
    distances = [
        cosine_distance(SteeringLens(encoder, Strength(kind, value)).embeddings(trace, sites), limit)
        for value in (10.0, 100.0, 1000.0, 1e6)
    ]
    assert distances == sorted(distances, reverse=True)
    assert distances[0] > 1e-4
    assert distances[-1] < 1e-6


def test_s_0_takes_the_direct_contribution_out() -> None:
    encoder, _, trace = single(SIZES[2])
    site = Site("mlp_out", 1)
    without = encoder.readout(trace.final - trace.at(site)).detach()
    steered = SteeringLens(encoder, Strength("s", 0.0)).embeddings(trace, [site])[:, 0]
    torch.testing.assert_close(steered, without, rtol=1e-5, atol=1e-5)


def test_steer_directions_along_the_writes_themselves_is_the_steering_lens() -> None:
    encoder, _, trace = single(SIZES[2])
    sites = submodules(encoder)
    rho = torch.full((len(trace), len(sites)), 0.8)
    along = steer_directions(encoder, trace, trace.stack(sites), rho)
    torch.testing.assert_close(along, SteeringLens(encoder, Strength("rho", 0.8)).embeddings(trace, sites))


def test_a_pictures_steered_embeddings_do_not_depend_on_the_batch() -> None:
    encoder, pixels, trace = single(SIZES[2])
    lens, sites = SteeringLens(encoder, Strength("rho", 1.0)), submodules(encoder)
    alone = lens.embeddings(encoder.trace(pixels[1:2]), sites)
    torch.testing.assert_close(lens.embeddings(trace, sites)[1:2], alone, rtol=1e-5, atol=1e-5)


def test_closed_form_of_the_bundled_encoder_is_the_definition_within_1e6(emoji: object) -> None:
    encoder = emoji.encoder  # type: ignore[attr-defined]
    pixels = random_pixels(encoder, 2)
    trace = encoder.trace(pixels)
    sites = [Site("head", 0, 0), Site("head", 6, 3), Site("attn_out", 11), Site("mlp_out", 4)]
    for factor in (-3.0, 10.0, 1000.0):
        closed = SteeringLens(encoder, Strength("s", factor)).embeddings(trace, sites)
        for index, site in enumerate(sites):
            assert cosine_distance(closed[:, index], steer_and_patch(encoder, pixels, site, factor)) <= 1e-6
