"""Lenses on image tokens: closed forms against their definition hook by hook, and against plain arithmetic."""

from pathlib import Path
from typing import Any, cast

import pytest
import torch
from torch import Tensor

from steerlens.decoders.base import clean_conditioning, read_residuals
from steerlens.errors import ModelError, UsageError
from steerlens.interventions import Scale
from steerlens.lenses.components import Group
from steerlens.lenses.image_tokens import TokenDiffusionLens, TokenSteeringLens
from steerlens.lenses.image_tokens_by_hooks import steer_and_patch_tokens
from steerlens.lenses.regions import Area, Box, Outside, Patches, RegionPart, SpecialTokens, Token, parse_tokens
from steerlens.lenses.strength import Strength
from steerlens.lenses.token_trace import reaching_sites, source_of, trace_tokens
from steerlens.loading import load
from steerlens.sites import Site, all_heads, layer_sites
from steerlens.testing.tiny import tiny_encoder
from steerlens.testing.tiny_decoders import save_tiny_decoder
from steerlens.testing.tiny_vit_mae import VARIANTS, save_tiny_vit_mae
from steerlens.zoo.pair import Pair

FAMILIES = ("rae-dinov2", "rae-siglip2", "rae-mae", "ip-adapter-plus-sd15", *VARIANTS)


@pytest.fixture(scope="module", params=FAMILIES)
def pair(request: Any, tmp_path_factory: pytest.TempPathFactory) -> Pair:
    folder: Path = tmp_path_factory.mktemp(request.param)
    save = save_tiny_vit_mae if request.param in VARIANTS else save_tiny_decoder
    saved = save(folder, request.param) if save is save_tiny_vit_mae else save_tiny_decoder(request.param, folder)
    return load(saved, dtype="float32", device="cpu")


@pytest.fixture(scope="module")
def pixels(pair: Pair) -> Tensor:
    return torch.randn(2, 3, *pair.encoder.spec.image_size, generator=torch.Generator().manual_seed(1))


def last_layer(pair: Pair) -> int:
    return source_of(pair.decoder)[1].last_layer(pair.encoder.spec.n_layers)


def submodules(pair: Pair) -> list[Site]:
    n, H = last_layer(pair) + 1, pair.encoder.spec.n_heads
    return [*all_heads(n, H), *layer_sites("attn_out", n), *layer_sites("mlp_out", n)]


def areas(pair: Pair) -> list[Area | None]:
    spec = pair.encoder.spec
    height, width = spec.image_size
    one = Token(spec.first_patch + 2)
    return [None, one, Patches((0, 0), (0, 1)), Box(1, 2, width // 2 + 3, height // 2 + 1), Outside(one)]


def steering(pair: Pair, strength: str, area: Area | None = None) -> TokenSteeringLens:
    return TokenSteeringLens(pair.encoder, pair.decoder, Strength.parse(strength), area)


def last_read(pair: Pair, residuals: Tensor) -> Tensor:
    """The residuals of the last layer that the decoder reads."""
    return residuals if source_of(pair.decoder)[1].layers is None else residuals[..., -1, :, :]


def relative_error(got: Tensor, wanted: Tensor) -> float:
    return float((got.double() - wanted.double()).norm() / wanted.double().norm())


@pytest.mark.parametrize("factor", [-3.0, 0.5, 1.0, 40.0])
@pytest.mark.parametrize("which", range(5), ids=["all", "one", "patches", "box", "outside"])
def test_closed_form_is_the_hook_by_hook_definition(pair: Pair, pixels: Tensor, which: int, factor: float) -> None:
    sites, area, (reader, source) = submodules(pair), areas(pair)[which], source_of(pair.decoder)
    lens = steering(pair, f"s={factor}", area)
    trace = trace_tokens(pair.encoder, pair.decoder, pixels, sites)
    residuals, tokens = lens.residuals(trace, sites), lens.tokens(trace, sites)
    for index, site in enumerate(sites):
        by_hooks = steer_and_patch_tokens(pair.encoder, pixels, site, factor, source, lens.weights())
        assert relative_error(residuals[:, index], by_hooks) < 1e-5, site
        assert relative_error(tokens[:, index], reader.tokens(by_hooks)) < 1e-5, site


@pytest.mark.parametrize("layer", [0, 1])
def test_a_direction_is_the_same_whatever_layer_it_enters_at(pair: Pair, pixels: Tensor, layer: int) -> None:
    spec, (_, source) = pair.encoder.spec, source_of(pair.decoder)
    direction = torch.randn(spec.width, generator=torch.Generator().manual_seed(2))
    site, lens = Site("vector", name="probe"), steering(pair, "s=7", areas(pair)[3])
    trace = trace_tokens(pair.encoder, pair.decoder, pixels, [site], {"probe": direction})
    by_hooks = steer_and_patch_tokens(pair.encoder, pixels, site, 7.0, source, lens.weights(), direction, layer)
    steered = lens.residuals(trace, [site])[:, 0]
    assert relative_error(last_read(pair, steered), last_read(pair, by_hooks)) < 1e-5
    # Of several layers that are read, all hold the direction, as if it had entered before the first of them.
    entered_before_all = layer <= source.layers_read(spec.n_layers)[0]
    assert (relative_error(steered, by_hooks) < 1e-5) == entered_before_all


def test_without_patches_steering_gives_something_else(pair: Pair, pixels: Tensor) -> None:
    site, lens = Site("head", 0, 0), steering(pair, "s=5")
    closed = lens.residuals(trace_tokens(pair.encoder, pair.decoder, pixels, [site]), [site])[:, 0]
    source = source_of(pair.decoder)[1]
    reacting = read_residuals(pair.encoder, {"pixel_values": pixels}, source, [Scale(site, factor=5.0)])
    assert relative_error(closed, reacting) > 1e-3


def test_tokens_that_are_not_written_to_are_the_clean_ones(pair: Pair, pixels: Tensor) -> None:
    site, token = Site("head", 0, 0), areas(pair)[1]
    trace = trace_tokens(pair.encoder, pair.decoder, pixels, [site])
    steered = last_read(pair, steering(pair, "rho=2", token).residuals(trace, [site])[:, 0])
    moved = (steered - trace.read).norm(dim=-1)
    chosen = pair.encoder.spec.first_patch + 2
    assert bool((moved[:, chosen] > 0.1).all())
    others = [number for number in range(pair.encoder.spec.n_tokens) if number != chosen]
    assert not moved[:, others].any()


@pytest.mark.parametrize("strength", ["s=1", "rho=0"])
@pytest.mark.parametrize("which", range(5))
def test_s_1_and_rho_0_are_what_the_decoder_reads_of_the_picture(
    pair: Pair, pixels: Tensor, which: int, strength: str
) -> None:
    sites = submodules(pair)
    clean = clean_conditioning(pair.encoder, pair.decoder, {"pixel_values": pixels}).values
    trace = trace_tokens(pair.encoder, pair.decoder, pixels, sites)
    steered = steering(pair, strength, areas(pair)[which]).tokens(trace, sites)
    torch.testing.assert_close(steered, clean[:, None].expand_as(steered), rtol=1e-5, atol=1e-5)
    last = Site("resid_post", last_layer(pair))
    shown = TokenDiffusionLens(pair.encoder, pair.decoder).tokens(
        trace_tokens(pair.encoder, pair.decoder, pixels, [last]), [last]
    )
    torch.testing.assert_close(shown[:, 0], clean, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("which", range(5))
def test_rho_is_the_norm_of_what_is_added_over_all_tokens_written_to(pair: Pair, pixels: Tensor, which: int) -> None:
    sites, lens, (_, source) = submodules(pair), steering(pair, "rho=0.7", areas(pair)[which]), source_of(pair.decoder)
    trace = trace_tokens(pair.encoder, pair.decoder, pixels, sites)
    added = last_read(pair, lens.residuals(trace, sites)) - trace.read[:, None]
    steered = trace.read * lens.weights()[:, None]
    if source.normed:  # a norm follows, which takes the mean over width away
        added, steered = (part - part.mean(dim=-1, keepdim=True) for part in (added, steered))
    wanted = 0.7 * steered.flatten(1).norm(dim=1)
    torch.testing.assert_close(added.flatten(2).norm(dim=2), wanted[:, None].expand(-1, len(sites)), rtol=1e-4, atol=0)
    torch.testing.assert_close(lens.relative_strength(trace, sites), torch.full((2, len(sites)), 0.7))


def posts_of(layers: list[int]) -> list[Site]:
    return [Site("resid_post", layer) for layer in layers]


def as_read(pair: Pair, *residuals: Tensor) -> Tensor:
    """What the decoder reads of residuals of its layers, in plain arithmetic."""
    source, decoder = source_of(pair.decoder)[1], cast(Any, pair.decoder)
    residuals = residuals if source.layers is None or len(residuals) > 1 else residuals * len(source.layers)
    if source.normed:
        native = getattr(decoder, "native_encoder", None)
        norms = [getattr(native, name, None) for name in ("layernorm", "post_layernorm")]
        norm = next(filter(None, norms), None) or decoder.model.token_norm
        centred = [residual - residual.mean(dim=-1, keepdim=True) for residual in residuals]
        residuals = tuple(part / (part.square().mean(dim=-1, keepdim=True) + norm.eps).sqrt() for part in centred)
        if norm.weight is not None:
            residuals = tuple(part * norm.weight + norm.bias for part in residuals)
    if source.patches_only:
        residuals = tuple(residual[:, pair.encoder.spec.first_patch :] for residual in residuals)
    if source.layers is None:
        return residuals[0]
    return torch.stack(residuals).mean(dim=0) + residuals[-1].mean(dim=1, keepdim=True)


def test_the_diffusion_lens_reads_every_layer_as_the_decoder_reads_its_own(pair: Pair, pixels: Tensor) -> None:
    n, source = last_layer(pair) + 1, source_of(pair.decoder)[1]
    sites = [Site("embed"), *layer_sites("resid_mid", n), *layer_sites("resid_post", n), Site("head", 0, 0)]
    trace = trace_tokens(pair.encoder, pair.decoder, pixels, sites)
    shown = TokenDiffusionLens(pair.encoder, pair.decoder).tokens(trace, sites)
    for index, site in enumerate(sites):
        content = pair.encoder.record(pixels, [site])[site]
        layers = [n - 1] if source.layers is None else [min(layer, site.layer) for layer in source.layers]
        if source.layers is None or site.kind in ("embed", "head"):
            wanted = as_read(pair, content)
        elif site.kind == "resid_mid":  # layers before it have their own residual
            posts = posts_of(layers)
            each = pair.encoder.record(pixels, posts)
            wanted = as_read(pair, *(content if post.layer == site.layer else each[post] for post in posts))
        else:
            wanted = as_read(pair, *(pair.encoder.record(pixels, [post])[post] for post in posts_of(layers)))
        torch.testing.assert_close(shown[:, index], wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("which", range(5))
def test_a_control_is_steered_as_hard_as_its_head_on_each_token(pair: Pair, pixels: Tensor, which: int) -> None:
    site, (_, source), lens = Site("head", 0, 0), source_of(pair.decoder), steering(pair, "rho=0.7", areas(pair)[which])
    trace = trace_tokens(pair.encoder, pair.decoder, pixels, [site])
    directions = torch.randn(1, *trace.read.shape[1:], generator=torch.Generator().manual_seed(5))
    added = last_read(pair, lens.residuals(trace, [site])[:, 0]) - trace.read
    control = last_read(pair, lens.controls(trace, [site], directions)[:, 0]) - trace.read
    along = torch.cosine_similarity(control, directions, dim=-1)[:, lens.weights() > 0]
    torch.testing.assert_close(along, torch.ones_like(along), rtol=1e-4, atol=1e-4)
    if source.normed:
        added, control = (part - part.mean(dim=-1, keepdim=True) for part in (added, control))
    torch.testing.assert_close(control.norm(dim=-1), added.norm(dim=-1), rtol=1e-3, atol=1e-5)


def test_groups_and_regions_write_on_every_token(pair: Pair, pixels: Tensor) -> None:
    spec, n = pair.encoder.spec, last_layer(pair) + 1
    heads = all_heads(n, spec.n_heads)
    area = Patches((0, 1), (0, 0))
    directions = {
        "both": Group((heads[0], Site("mlp_out", n - 1))),
        "in": RegionPart((heads[-1],), area),
        "out": RegionPart((heads[-1],), Outside(area)),
    }
    sites = [Site("group", name="both"), Site("region", name="in"), Site("region", name="out")]
    group, inside, outside = trace_tokens(pair.encoder, pair.decoder, pixels, sites, directions).stack(sites).unbind(1)
    held = pair.encoder.record(pixels, [heads[0], heads[-1], Site("mlp_out", n - 1)])
    torch.testing.assert_close(group, held[heads[0]] + held[Site("mlp_out", n - 1)], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(inside + outside, held[heads[-1]], rtol=1e-4, atol=1e-5)
    assert inside.norm() > 0.01 * outside.norm() > 0


def test_a_region_on_the_readout_token_is_what_the_trace_says(pair: Pair, pixels: Tensor) -> None:
    part, site = RegionPart((Site("head", 0, 0),), Patches((0, 0), (0, 1))), Site("region", name="top")
    on_tokens = trace_tokens(pair.encoder, pair.decoder, pixels, [site], {"top": part}).values[site]
    readout = pair.encoder.trace(pixels, attention=True)
    wanted = part.write(pair.encoder.spec, readout)
    torch.testing.assert_close(on_tokens[:, : wanted.shape[1]], wanted, rtol=1e-4, atol=1e-5)


def test_a_decoder_of_several_layers_reads_a_component_from_its_layer_on(pair: Pair, pixels: Tensor) -> None:
    source = source_of(pair.decoder)[1]
    if source.layers is None:
        return
    n, heads = last_layer(pair) + 1, all_heads(last_layer(pair) + 1, pair.encoder.spec.n_heads)
    members = (heads[0], Site("mlp_out", 0), heads[-1])
    area = Patches((0, 1), (0, 0))
    directions = {"many": Group(members), "in": RegionPart((heads[0], heads[-1]), area)}
    sites = [Site("group", name="many"), Site("region", name="in"), heads[-1]]
    trace = trace_tokens(pair.encoder, pair.decoder, pixels, sites, directions)
    group, region, late = trace.gathered(sites).unbind(1)
    alone = trace_tokens(pair.encoder, pair.decoder, pixels, list(members)).gathered(list(members)).sum(dim=1)
    torch.testing.assert_close(group, alone, rtol=1e-5, atol=1e-5)
    single = trace_tokens(
        pair.encoder, pair.decoder, pixels, [Site("region", name="x")], {"x": RegionPart((heads[0],), area)}
    )
    torch.testing.assert_close(region[:, 0], single.values[Site("region", name="x")], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(region[:, -1], trace.values[sites[1]], rtol=1e-5, atol=1e-5)
    assert [layer for layer, part in zip(source.layers, late.unbind(1), strict=True) if part.any()] == [n - 1]


def test_sites_after_the_tokens_that_are_read_are_refused_with_a_reason(pair: Pair, pixels: Tensor) -> None:
    spec, (_, source) = pair.encoder.spec, source_of(pair.decoder)
    L, H, n = spec.n_layers, spec.n_heads, last_layer(pair) + 1
    everything = reaching_sites("resid_post,heads,head.*.0,resid_pre", L, H, pair.decoder.spec)
    assert {site.layer for site in everything} == set(range(n))
    if not source.layers_after:
        return
    for name in (f"head.{n}.0", f"mlp_out.{n}", f"resid_post.{n}", f"head.0-{n}.*"):
        with pytest.raises(UsageError, match=r"has no effect on what .* shows: it reads the tokens after layer"):
            reaching_sites(name, L, H, pair.decoder.spec)
    assert reaching_sites(f"resid_post,resid_pre.{n}", L, H, pair.decoder.spec)[-1] == Site("resid_pre", n)
    for late in (Site("head", n, 0), Site("group", name="late"), Site("region", name="late-part")):
        named = {"late": Group((Site("mlp_out", n),)), "late-part": RegionPart((Site("head", n, 0),), SpecialTokens())}
        with pytest.raises(UsageError, match="has no effect"):
            trace_tokens(pair.encoder, pair.decoder, pixels, [late], named)
    with pytest.raises(UsageError, match="has no effect"):
        steer_and_patch_tokens(pair.encoder, pixels, Site("head", n, 0), 2.0, source)


def test_the_residual_stream_is_not_steered(pair: Pair, pixels: Tensor) -> None:
    site = Site("resid_post", 0)
    with pytest.raises(UsageError, match="Diffusion Lens shows"):
        steering(pair, "s=2").tokens(trace_tokens(pair.encoder, pair.decoder, pixels, [site]), [site])


def test_tokens_that_the_decoder_drops_are_refused(pair: Pair) -> None:
    lens = steering(pair, "rho=1", SpecialTokens())
    if source_of(pair.decoder)[1].patches_only:
        with pytest.raises(UsageError, match=r"reads none of them, since it drops|has no token besides"):
            lens.weights()
    else:
        assert lens.weights().tolist() == [1, 0, 0, 0, 0]
    with pytest.raises(UsageError, match="has tokens 0 to"):
        steering(pair, "rho=1", Token(999)).weights()


def test_a_decoder_of_embeddings_has_no_token_lens(emoji: Any) -> None:
    with pytest.raises(ModelError, match="reads an image embedding, no image tokens"):
        trace_tokens(tiny_encoder(), emoji.decoder, torch.zeros(1, 3, 16, 16), [Site("embed")])


@pytest.mark.parametrize(
    ("text", "area"),
    [
        ("all", None),
        (" 17 ", Token(17)),
        ("8,8,40,40", Box(8, 8, 40, 40)),
        ("patches=2,0-3", Patches((2, 2), (0, 3))),
        ("cls", SpecialTokens()),
        ("outside=cls", Outside(SpecialTokens())),
    ],
)
def test_texts_name_tokens(text: str, area: Area | None) -> None:
    assert parse_tokens(text) == area


@pytest.mark.parametrize("text", ["", "some", "-1", "1-3", "²", "1,2", "99999999999"])
def test_other_texts_are_refused(text: str) -> None:
    with pytest.raises(UsageError, match="names no tokens to write to"):
        parse_tokens(text)
