"""Every intervention at every kind of site, on a model whose every part matters, against plain code."""

from collections.abc import Callable
from functools import cache

import pytest
import torch
from plain import SIZES, Plain, plain_forward, random_encoder, random_pixels
from torch import Tensor

from steerlens.encoders.clip import CLIPEncoder
from steerlens.interventions import Add, Intervention, Mean, Patch, Resample, Scale, Zero
from steerlens.sites import Site

SIZE = SIZES[2]
PLACES = ("embed", "resid_pre.2", "resid_mid.1", "resid_post.0", "resid_post.3", "attn_out.1", "mlp_out.2", "head.1.2")
TOKENS: tuple[tuple[int, ...] | None, ...] = (None, (0,), (1, 3, -1))

Make = Callable[[Site, tuple[int, ...] | None, Tensor], Intervention]
"""Makes an intervention from a site, tokens, and what the site holds on those tokens in a clean run."""


def noise(like: Tensor, seed: int = 7) -> Tensor:
    return torch.randn(like.shape, generator=torch.Generator().manual_seed(seed)).to(like)


FACTORS = torch.tensor([0.0, 1.0, -2.5])

# name: (the intervention, the same change as a function of what the site holds and its value in the clean run)
CHANGES: dict[str, tuple[Make, Callable[[Tensor, Tensor], Tensor]]] = {
    "scale": (lambda site, tokens, _: Scale(site, tokens, factor=2.5), lambda now, _: 2.5 * now),
    "scale per picture": (
        lambda site, tokens, _: Scale(site, tokens, factor=FACTORS),
        lambda now, _: torch.stack([float(f) * row for f, row in zip(FACTORS, now, strict=True)]),
    ),
    "add a direction": (
        lambda site, tokens, clean: Add(site, tokens, vector=noise(clean[0, 0])),
        lambda now, clean: now + noise(clean[0, 0]),
    ),
    "add per token": (
        lambda site, tokens, clean: Add(site, tokens, vector=noise(clean[0])),
        lambda now, clean: now + noise(clean[0])[None],
    ),
    "add per picture": (
        lambda site, tokens, clean: Add(site, tokens, vector=noise(clean)),
        lambda now, clean: now + noise(clean),
    ),
    "zero": (lambda site, tokens, _: Zero(site, tokens), lambda now, _: 0 * now),
    "mean": (
        lambda site, tokens, clean: Mean(site, tokens, value=clean.mean(0)),
        lambda now, clean: clean.mean(0)[None].expand_as(now),
    ),
    "resample": (
        lambda site, tokens, clean: Resample(site, tokens, value=clean.flip(0)),
        lambda now, clean: clean.flip(0),
    ),
    "patch": (
        lambda site, tokens, clean: Patch(site, tokens, value=noise(clean)),
        lambda now, clean: noise(clean),
    ),
}


@cache
def clean_run() -> tuple[CLIPEncoder, Tensor, Plain]:
    encoder = random_encoder(SIZE)
    pixels = random_pixels(encoder)
    return encoder, pixels, plain_forward(encoder, pixels)


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("place", PLACES)
def test_an_intervention_gives_the_embedding_that_plain_code_gives(place: str, change: str) -> None:
    encoder, pixels, clean = clean_run()
    make, function = CHANGES[change]
    for tokens in TOKENS:
        chosen = list(range(encoder.spec.n_tokens)) if tokens is None else list(tokens)
        held = clean.sites[place][:, chosen]

        def edit(name: str, value: Tensor, chosen: list[int] = chosen, held: Tensor = held) -> Tensor:
            if name != place:
                return value
            value = value.clone()
            value[:, chosen] = function(value[:, chosen], held)
            return value

        wanted = plain_forward(encoder, pixels, edit).embedding
        got = encoder.embed(pixels, [make(Site.parse(place), tokens, held)])
        torch.testing.assert_close(got, wanted, rtol=1e-9, atol=1e-10)
        nothing = torch.allclose(got, clean.embedding, rtol=1e-3)
        assert nothing == changes_nothing(place, change, tokens), f"{change} at {place} on {tokens}"


def changes_nothing(place: str, change: str, tokens: tuple[int, ...] | None) -> bool:
    """The few interventions that the embedding cannot show, known beforehand."""
    if place == "resid_post.3":
        # After the last layer only the class token is read, by a norm that does not see its size.
        return change == "scale" or tokens == (1, 3, -1)
    # All pictures share their first class token.
    return place == "embed" and tokens == (0,) and change in ("mean", "resample")


def test_interventions_at_several_sites_act_together_in_the_order_of_the_forward_pass() -> None:
    encoder, pixels, _ = clean_run()
    factors = {
        "resid_pre.1": 0.5,
        "head.1.0": 3.0,
        "head.1.2": -1.0,
        "attn_out.1": 2.0,
        "resid_mid.1": 1.5,
        "mlp_out.3": 4.0,
    }
    got = encoder.embed(pixels, [Scale(Site.parse(place), factor=f) for place, f in reversed(factors.items())])
    wanted = plain_forward(encoder, pixels, lambda name, value: factors.get(name, 1.0) * value).embedding
    torch.testing.assert_close(got, wanted, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("place", PLACES)
def test_interventions_at_one_site_compose_in_the_order_given(place: str) -> None:
    encoder, pixels, clean = clean_run()
    site, vector = Site.parse(place), noise(clean.sites[place][0, 0])
    order = [Scale(site, factor=2.0), Add(site, vector=vector), Scale(site, factor=3.0)]

    def edit(name: str, value: Tensor) -> Tensor:
        return (2 * value + vector) * 3 if name == place else value

    wanted = plain_forward(encoder, pixels, edit).embedding
    torch.testing.assert_close(encoder.embed(pixels, order), wanted, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("place", PLACES)
def test_record_under_an_intervention_sees_what_follows_from_it(place: str) -> None:
    encoder, pixels, _ = clean_run()

    def edit(name: str, value: Tensor) -> Tensor:
        return 2 * value if name == place else value

    wanted = plain_forward(encoder, pixels, edit).sites
    watched = [Site.parse(text) for text in ("resid_mid.3", "attn_out.3", "mlp_out.3", "head.3.1", "resid_post.3")]
    recorded = encoder.record(pixels, watched, [Scale(Site.parse(place), factor=2.0)])
    for site, value in recorded.items():
        torch.testing.assert_close(value, wanted[str(site)], rtol=1e-9, atol=1e-10)


def test_zeroing_a_head_is_zeroing_its_slice_of_the_output_projections_input() -> None:
    encoder, pixels, _ = clean_run()
    d = encoder.spec.width // encoder.spec.n_heads
    projection = encoder.model.vision_model.encoder.layers[2].self_attn.out_proj

    def zero_slice(_: object, args: tuple[Tensor]) -> tuple[Tensor]:
        return (
            torch.cat([args[0][..., :d], torch.zeros_like(args[0][..., d : 2 * d]), args[0][..., 2 * d :]], dim=-1),
        )

    handle = projection.register_forward_pre_hook(zero_slice)
    with torch.no_grad():
        wanted = encoder.model(pixel_values=pixels).image_embeds
    handle.remove()
    torch.testing.assert_close(encoder.embed(pixels, [Zero(Site("head", 2, 1))]), wanted, rtol=1e-9, atol=1e-10)


def test_gradients_flow_through_forward_under_interventions_and_not_through_embed() -> None:
    encoder, pixels, _ = clean_run()
    vector = torch.zeros(encoder.spec.width, dtype=encoder.dtype, requires_grad=True)
    add = Add(Site("resid_post", 1), vector=vector)
    direction = torch.ones(encoder.spec.embedding_size, dtype=encoder.dtype)
    (encoder.forward(pixels, [add]) @ direction).sum().backward()
    assert vector.grad is not None
    step = 1e-6 * noise(vector.detach())
    moved = encoder.embed(pixels, [Add(add.site, vector=step)]) - encoder.embed(pixels)
    torch.testing.assert_close((moved @ direction).sum(), vector.grad @ step, rtol=1e-4, atol=0)
    assert not encoder.embed(pixels, [add]).requires_grad
