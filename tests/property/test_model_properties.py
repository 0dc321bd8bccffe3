"""Traces and interventions for models of any size."""

from functools import cache

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from steerlens.encoders.clip import CLIPEncoder
from steerlens.interventions import Add, Patch, Scale, Zero
from steerlens.lenses.steering import SteeringLens
from steerlens.lenses.strength import Strength
from steerlens.sites import Site, all_heads
from steerlens.testing.tiny import tiny_encoder

dimensions = st.tuples(
    st.integers(1, 5), st.integers(1, 5), st.integers(1, 6), st.integers(1, 3), st.sampled_from([2, 4, 8])
).map(
    lambda t: {
        "layers": t[0],
        "heads": t[1],
        "width": t[1] * t[2] + t[1],
        "image_size": t[3] * t[4],
        "patch_size": t[4],
    }
)
places = st.sampled_from(
    [
        "embed",
        "resid_pre.1",
        "resid_mid.0",
        "resid_mid.2",
        "resid_post.1",
        "attn_out.0",
        "mlp_out.2",
        "head.0.1",
        "head.2.0",
    ]
).map(Site.parse)
T = 5
token_sets = st.lists(st.integers(0, T - 1), min_size=1, max_size=T, unique=True).map(tuple)
EXACT = {"rtol": 1e-9, "atol": 1e-10}


@cache
def setting() -> tuple[CLIPEncoder, Tensor, Tensor]:
    encoder = tiny_encoder(dtype=torch.float64)
    pixels = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(1)).double()
    return encoder, pixels, encoder.embed(pixels)


def noise(shape: tuple[int, ...], seed: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@settings(max_examples=25)
@given(dimensions, st.integers(0, 1000), st.integers(1, 3))
def test_the_decomposition_is_exact_for_every_size(size: dict[str, int], seed: int, batch: int) -> None:
    encoder = tiny_encoder(seed, **size)
    pixels = torch.randn(
        batch, 3, size["image_size"], size["image_size"], generator=torch.Generator().manual_seed(seed)
    )
    trace = encoder.trace(pixels, attention=True)
    assert trace.check(1e-5) <= 1e-5
    for layer in range(size["layers"]):
        heads = trace.head_writes(layer).sum(dim=1) + trace.attn_bias[layer]
        torch.testing.assert_close(heads, trace.attn_out[:, layer], rtol=1e-4, atol=1e-5)
    site = Site("head", size["layers"] - 1, size["heads"] - 1)
    torch.testing.assert_close(trace.token_writes(site).sum(dim=2), trace.at(site), rtol=1e-4, atol=1e-5)


@given(places, st.one_of(st.none(), token_sets))
def test_scale_by_1_and_adding_0_and_patching_the_own_value_change_nothing(
    site: Site, tokens: tuple[int, ...] | None
) -> None:
    encoder, pixels, clean = setting()
    held = encoder.record(pixels, [site])[site]
    held = held if tokens is None else held[:, list(tokens)]
    for nothing in (
        Scale(site, tokens, factor=1.0),
        Scale(site, tokens, factor=torch.ones(2)),
        Add(site, tokens, vector=torch.zeros(16)),
        Patch(site, tokens, value=held),
    ):
        torch.testing.assert_close(encoder.embed(pixels, [nothing]), clean, **EXACT)


@given(places, st.one_of(st.none(), token_sets))
def test_zero_is_scale_by_0_and_adding_the_negative_of_what_is_there(
    site: Site, tokens: tuple[int, ...] | None
) -> None:
    encoder, pixels, _ = setting()
    held = encoder.record(pixels, [site])[site]
    held = held if tokens is None else held[:, list(tokens)]
    zero = encoder.embed(pixels, [Zero(site, tokens)])
    torch.testing.assert_close(encoder.embed(pixels, [Scale(site, tokens, factor=0.0)]), zero, **EXACT)
    torch.testing.assert_close(encoder.embed(pixels, [Add(site, tokens, vector=-held)]), zero, **EXACT)


@given(places, st.floats(-5, 5), st.integers(0, 100), st.one_of(st.none(), token_sets))
def test_what_a_site_holds_afterwards_is_linear_in_the_change(
    site: Site, factor: float, seed: int, tokens: tuple[int, ...] | None
) -> None:
    encoder, pixels, _ = setting()
    # A point of the residual stream that holds nothing but the change: the next one, under a change of this one.
    after = Site("resid_mid", site.layer) if site.kind in ("head", "attn_out") else site
    if site.kind == "mlp_out":
        after = Site("resid_post", site.layer)
    vector = noise((16,), seed)
    before = encoder.record(pixels, [after])[after]
    once = encoder.record(pixels, [after], [Add(site, tokens, vector=vector)])[after] - before
    scaled = encoder.record(pixels, [after], [Add(site, tokens, vector=factor * vector)])[after] - before
    torch.testing.assert_close(scaled, factor * once, **EXACT)
    wanted = torch.zeros_like(before)
    wanted[:, slice(None) if tokens is None else list(tokens)] = vector
    torch.testing.assert_close(once, wanted, **EXACT)


@given(places, token_sets)
def test_an_intervention_leaves_the_tokens_it_does_not_name(site: Site, tokens: tuple[int, ...]) -> None:
    encoder, pixels, _ = setting()
    after = {"head": "resid_mid", "attn_out": "resid_mid", "mlp_out": "resid_post"}.get(site.kind)
    watched = site if after is None else Site(after, site.layer)  # type: ignore[arg-type]
    before = encoder.record(pixels, [watched])[watched]
    changed = encoder.record(pixels, [watched], [Scale(site, tokens, factor=3.0)])[watched]
    others = [token for token in range(T) if token not in tokens]
    torch.testing.assert_close(changed[:, others], before[:, others], **EXACT)
    moved = (changed - before).norm(dim=-1)[:, list(tokens)]
    assert (moved > 1e-6).all()


@given(places, st.lists(st.floats(-4, 4), min_size=2, max_size=2))
def test_factors_of_each_picture_are_those_pictures_scaled_one_by_one(site: Site, factors: list[float]) -> None:
    encoder, pixels, _ = setting()
    together = encoder.embed(pixels, [Scale(site, factor=torch.tensor(factors, dtype=torch.float64))])
    for index, factor in enumerate(factors):
        alone = encoder.embed(pixels[index : index + 1], [Scale(site, factor=factor)])
        torch.testing.assert_close(together[index : index + 1], alone, **EXACT)


@given(st.lists(st.sampled_from(all_heads(3, 2)), min_size=1, max_size=6, unique=True), st.floats(-3, 3))
def test_scaling_every_head_of_a_layer_is_scaling_its_attention_without_the_bias(
    heads: list[Site], factor: float
) -> None:
    encoder, pixels, _ = setting()
    layer = heads[0].layer
    bias = encoder.model.vision_model.encoder.layers[layer].self_attn.out_proj.bias.detach()
    by_heads = encoder.embed(pixels, [Scale(Site("head", layer, head), factor=factor) for head in range(2)])
    attention = Site("attn_out", layer)
    whole = [Add(attention, vector=-bias), Scale(attention, factor=factor), Add(attention, vector=bias)]
    torch.testing.assert_close(by_heads, encoder.embed(pixels, whole), **EXACT)


@given(st.permutations(all_heads(3, 2)), st.floats(-20, 20))
def test_a_sites_steered_embedding_does_not_depend_on_the_sites_beside_it(heads: list[Site], s: float) -> None:
    encoder, pixels, _ = setting()
    trace, lens = encoder.trace(pixels), SteeringLens(encoder, Strength("s", s))
    together = lens.embeddings(trace, heads)
    for index in (0, 3):
        torch.testing.assert_close(together[:, index : index + 1], lens.embeddings(trace, [heads[index]]), **EXACT)
