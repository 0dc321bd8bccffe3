"""The total lens on image tokens against plain hooked passes, for every kind of decoder of tokens."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from steerlens.errors import UsageError
from steerlens.interventions import Add, Scale, Zero
from steerlens.lenses import Area, Change, Group, Patches, Strength, TokenSteeringLens, TokenTotalLens, clean_pass
from steerlens.lenses.token_trace import source_of, trace_tokens
from steerlens.loading import load
from steerlens.scores import cosine_distance
from steerlens.sites import Site, all_heads, layer_sites
from steerlens.testing.tiny_decoders import save_tiny_decoder
from steerlens.testing.tiny_vit_mae import VARIANTS, save_tiny_vit_mae
from steerlens.zoo.pair import Pair

FAMILIES = ("rae-dinov2", "rae-siglip2", "rae-mae", "ip-adapter-plus-sd15", *VARIANTS)
CLOSE = 1e-6


@pytest.fixture(scope="module", params=FAMILIES)
def pair(request: Any, tmp_path_factory: pytest.TempPathFactory) -> Pair:
    folder: Path = tmp_path_factory.mktemp(request.param)
    several = request.param in VARIANTS
    saved = save_tiny_vit_mae(folder, request.param) if several else save_tiny_decoder(request.param, folder)
    return load(saved, dtype="float32", device="cpu")


@pytest.fixture(scope="module")
def pixels(pair: Pair) -> Tensor:
    return torch.randn(2, 3, *pair.encoder.spec.image_size, generator=torch.Generator().manual_seed(1))


def read_at(pair: Pair) -> Site:
    return Site("resid_post", source_of(pair.decoder)[1].last_layer(pair.encoder.spec.n_layers))


def components(pair: Pair) -> list[Site]:
    n, H = read_at(pair).layer + 1, pair.encoder.spec.n_heads
    return [*all_heads(n, H), *layer_sites("attn_out", n), *layer_sites("mlp_out", n)]


def lens_of(pair: Pair, strength: str, area: Area | None = None, **named: Any) -> TokenTotalLens:
    at = Site("resid_pre", 0)
    return TokenTotalLens(pair.encoder, Strength.parse(strength), named, at, decoder=pair.decoder, area=area)


def tokens_of(pair: Pair, pixels: Tensor, *changes: Any) -> Tensor:
    reader, source = source_of(pair.decoder)
    sites = [Site("resid_post", layer) for layer in source.layers_read(pair.encoder.spec.n_layers)]
    recorded = pair.encoder.record(pixels, sites, changes)
    residuals = torch.stack([recorded[site] for site in sites], dim=1)
    return reader.tokens(residuals[:, 0] if source.layers is None else residuals)


def apart(one: Tensor, other: Tensor) -> float:
    return cosine_distance(one.flatten(1), other.flatten(1))


@pytest.mark.parametrize("strength", ["s=-2", "rho=0.5"])
def test_tokens_are_those_of_a_plain_hooked_pass(pair: Pair, pixels: Tensor, strength: str) -> None:
    sites, lens, clean = components(pair), lens_of(pair, strength), clean_pass(pair.encoder, pixels)
    scaled, without, factors = lens.tokens(clean, sites), lens.without(clean, sites), lens.coefficients(clean, sites)
    for index, site in enumerate(sites):
        assert apart(scaled[:, index], tokens_of(pair, pixels, Scale(site, factor=1 + factors[:, index]))) <= CLOSE
        assert apart(without[:, index], tokens_of(pair, pixels, Zero(site))) <= CLOSE


def test_only_the_tokens_written_to_are_changed_at_the_component(pair: Pair, pixels: Tensor) -> None:
    site, first = Site("head", 0, 0), pair.encoder.spec.first_patch
    lens, clean = lens_of(pair, "s=5", Patches((0, 0), (0, 0))), clean_pass(pair.encoder, pixels)
    plain = tokens_of(pair, pixels, Scale(site, tokens=(first,), factor=5.0))
    assert apart(lens.tokens(clean, [site])[:, 0], plain) <= CLOSE
    group = lens_of(pair, "s=5", Patches((0, 0), (0, 0)), both=Group((site, Site("mlp_out", 0))))
    plain = tokens_of(
        pair, pixels, *(Scale(member, tokens=(first,), factor=5.0) for member in (site, Site("mlp_out", 0)))
    )
    assert apart(group.tokens(clean, [Site("group", name="both")])[:, 0], plain) <= CLOSE


def test_a_direction_is_added_to_every_token_at_its_place(pair: Pair, pixels: Tensor) -> None:
    direction = torch.randn(pair.encoder.spec.width, generator=torch.Generator().manual_seed(2))
    lens = lens_of(pair, "s=3", probe=direction)
    plain = tokens_of(pair, pixels, Add(Site("resid_pre", 0), vector=2 * direction))
    assert apart(lens.tokens(clean_pass(pair.encoder, pixels), [Site("vector", name="probe")])[:, 0], plain) <= CLOSE


def test_the_last_mlp_has_no_effect_but_the_direct_one(pair: Pair, pixels: Tensor) -> None:
    site, lens, clean = Site("mlp_out", read_at(pair).layer), lens_of(pair, "rho=1"), clean_pass(pair.encoder, pixels)
    for kind in ("scaled", "ablated", "control"):
        changes = [Change(site, kind)]  # type: ignore[arg-type]
        assert apart(lens.changed(clean, changes)[:, 0], lens.direct(clean, changes)[:, 0]) <= CLOSE


def test_the_direct_counterpart_and_rho_are_those_of_the_steering_lens(pair: Pair, pixels: Tensor) -> None:
    sites, lens, clean = components(pair), lens_of(pair, "rho=-0.5"), clean_pass(pair.encoder, pixels)
    steering = TokenSteeringLens(pair.encoder, pair.decoder, lens.strength)
    trace, changes = trace_tokens(pair.encoder, pair.decoder, pixels, sites), [Change(site) for site in sites]
    assert apart(lens.direct(clean, changes).flatten(0, 1), steering.tokens(trace, sites).flatten(0, 1)) <= CLOSE
    rho = lens.relative_strength(clean, changes)
    torch.testing.assert_close(rho, torch.full_like(rho, -0.5))
    assert bool((lens.relative_strength(clean, [Change(site, "ablated") for site in sites]) < 0).all())


def test_what_comes_after_the_tokens_is_refused(pair: Pair, pixels: Tensor) -> None:
    L, late = pair.encoder.spec.n_layers, Site("mlp_out", read_at(pair).layer + 1)
    if late.layer >= L:
        return
    with pytest.raises(UsageError, match="has no effect on what"):
        lens_of(pair, "s=2").tokens(clean_pass(pair.encoder, pixels), [late])
