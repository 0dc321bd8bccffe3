"""The total lens against plain hooked forward passes, one component at a time, on every encoder family."""

from functools import cache, partial
from typing import Any

import pytest
import torch
from plain import SIZES, random_encoder, random_pixels
from torch import Tensor

from steerlens.encoders import Inputs
from steerlens.errors import UsageError
from steerlens.interventions import Add, Scale, Zero
from steerlens.lenses import (
    Change,
    CleanPass,
    Group,
    Outside,
    Patches,
    RegionPart,
    SteeringLens,
    Strength,
    TotalLens,
    clean_pass,
    control_direction,
    visible_norm,
)
from steerlens.scores import cosine_distance
from steerlens.sites import Site, all_heads, layer_sites
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

CLOSE = 1e-6
"""Largest cosine distance from the plain pass."""


@cache
def tiny(kind: str) -> tuple[Any, Inputs]:
    encoder = tiny_family_encoder(kind)
    return encoder, noise_pictures(encoder)


def every_site(encoder: Any) -> tuple[Site, ...]:
    L, H = encoder.spec.n_layers, encoder.spec.n_heads
    return (*all_heads(L, H), *layer_sites("attn_out", L), *layer_sites("mlp_out", L))


@pytest.mark.parametrize("kind", sorted(MODELS))
@pytest.mark.parametrize("strength", ["s=-3", "rho=1"])
def test_every_family_gives_what_a_plain_hooked_pass_gives(kind: str, strength: str) -> None:
    encoder, inputs = tiny(kind)
    sites, lens = every_site(encoder), TotalLens(encoder, Strength.parse(strength))
    clean = lens.clean(inputs)
    assert clean.prefix is not None
    scaled, without = lens.embeddings(clean, sites), lens.without(clean, sites)
    factors = 1 + lens.coefficients(clean, sites)
    for index, site in enumerate(sites):
        plain = encoder.embed(inputs, [Scale(site, factor=factors[:, index])])
        assert cosine_distance(scaled[:, index], plain) <= CLOSE
        assert cosine_distance(without[:, index], encoder.embed(inputs, [Zero(site)])) <= CLOSE
    assert cosine_distance(scaled, clean.trace.embedding[:, None].expand_as(scaled)) > 1e-4


ENCODER = random_encoder(SIZES[2])
PIXELS = random_pixels(ENCODER, 2, seed=1)
GROUP = Group((Site("head", 1, 0), Site("head", 1, 2), Site("mlp_out", 1), Site("attn_out", 2), Site("head", 3, 1)))
VECTOR = torch.randn(ENCODER.spec.width, generator=torch.Generator().manual_seed(5))
REGION = RegionPart((Site("head", 2, 0), Site("head", 2, 1)), Patches((0, 0), (0, 1)))
NAMED = {"some": GROUP, "probe": VECTOR, "corner": REGION}
SITES = (
    *(Site("head", 2, 1), Site("attn_out", 0), Site("mlp_out", 3)),
    *(Site("group", name="some"), Site("vector", name="probe"), Site("region", name="corner")),
)


def lens_of(strength: str = "s=3", at: str = "resid_post.1") -> TotalLens:
    return TotalLens(ENCODER, Strength.parse(strength), NAMED, Site.parse(at))


def full(clean: CleanPass) -> CleanPass:
    """The same clean pass for an encoder whose blocks cannot be called one after another."""
    return CleanPass(clean.inputs, clean.trace, None)


def additions(lens: TotalLens, clean: CleanPass, change: Change) -> dict[Site, Tensor]:
    rows = list(lens._rows(clean, [change]))
    return {place: torch.stack([row.additions[place] for row in rows]) for place in rows[0].additions}


@pytest.mark.parametrize("kind", ["scaled", "ablated", "control"])
def test_passes_from_the_first_layer_give_the_same(kind: Any) -> None:
    lens, clean = lens_of("rho=0.7"), clean_pass(ENCODER, PIXELS, attention=True)
    changes = [Change(site, kind) for site in SITES]
    assert cosine_distance(lens.changed(clean, changes), lens.changed(full(clean), changes)) <= CLOSE


@pytest.mark.parametrize("factor", [0.0, 4.0])
def test_members_of_a_group_are_scaled_as_they_are_in_the_running_pass(factor: float) -> None:
    plain = ENCODER.embed(PIXELS, [Scale(site, factor=factor) for site in GROUP.members])
    lens = lens_of(f"s={factor}")
    assert cosine_distance(lens.embeddings(PIXELS, [Site("group", name="some")])[:, 0], plain) <= CLOSE
    if factor == 0:
        assert cosine_distance(lens.without(PIXELS, [Site("group", name="some")])[:, 0], plain) <= CLOSE


@pytest.mark.parametrize("at", ["embed", "resid_pre.2", "resid_mid.1", "resid_post.3"])
def test_a_direction_is_added_and_removed_at_its_place(at: str) -> None:
    lens, site, place = lens_of("s=3", at), Site("vector", name="probe"), Site.parse(at)
    plain = ENCODER.embed(PIXELS, [Add(place, vector=2 * VECTOR)])
    assert cosine_distance(lens.embeddings(PIXELS, [site])[:, 0], plain) <= CLOSE
    unit = (VECTOR / VECTOR.norm()).to(PIXELS)
    value = ENCODER.record(PIXELS, [place])[place]
    removed = ENCODER.embed(PIXELS, [Add(place, vector=-(value @ unit)[..., None] * unit)])
    assert cosine_distance(lens.without(PIXELS, [site])[:, 0], removed) <= CLOSE


def test_what_a_head_reads_everywhere_is_the_head() -> None:
    rows, columns = ENCODER.spec.patch_grid
    head, patches = Site("head", 2, 1), Patches((0, rows - 1), (0, columns - 1))
    halves = {"in": RegionPart((head,), patches), "out": RegionPart((head,), Outside(patches))}
    lens = TotalLens(ENCODER, Strength("s", 2.0), halves)
    clean = lens.clean(PIXELS)
    inside, outside, whole = (
        additions(lens, clean, Change(site))[Site("attn_out", 2)]
        for site in (Site("region", name="in"), Site("region", name="out"), head)
    )
    torch.testing.assert_close(inside + outside, whole, rtol=1e-4, atol=1e-5, check_dtype=False)
    plain = ENCODER.embed(PIXELS, [Add(Site("attn_out", 2), vector=inside)])
    assert cosine_distance(lens.embeddings(clean, [Site("region", name="in")])[:, 0], plain) <= CLOSE


def test_a_group_of_one_is_its_member() -> None:
    lens = TotalLens(ENCODER, Strength("rho", 1.0), {"alone": Group((Site("head", 1, 1),))})
    clean = lens.clean(PIXELS)
    for kind in ("scaled", "ablated"):
        pair = lens.changed(clean, [Change(Site("head", 1, 1), kind), Change(Site("group", name="alone"), kind)])
        assert cosine_distance(pair[:, 0], pair[:, 1]) <= CLOSE


def test_the_last_mlp_has_no_effect_but_the_direct_one() -> None:
    lens, last = lens_of("rho=1"), Site("mlp_out", ENCODER.spec.n_layers - 1)
    clean = lens.clean(PIXELS)
    for kind in ("scaled", "ablated", "control"):
        changes = [Change(last, kind)]
        assert cosine_distance(lens.changed(clean, changes), lens.direct(clean, changes)) <= CLOSE


def test_the_direct_counterpart_is_the_steering_lens() -> None:
    lens, clean = lens_of("rho=1"), clean_pass(ENCODER, PIXELS, attention=True)
    steering = SteeringLens(ENCODER, lens.strength, NAMED)
    assert (
        cosine_distance(lens.direct(clean, [Change(site) for site in SITES]), steering.embeddings(clean.trace, SITES))
        <= CLOSE
    )
    torch.testing.assert_close(
        lens.relative_strength(clean, [Change(site) for site in SITES]),
        torch.ones(2, len(SITES)).to(PIXELS),
        check_dtype=False,
    )


@pytest.mark.parametrize("site", SITES)
def test_a_control_is_as_strong_as_its_component_and_has_the_direction_of_the_direct_one(site: Site) -> None:
    lens, clean = lens_of("rho=-0.5"), clean_pass(ENCODER, PIXELS, attention=True)
    whole = torch.stack(list(additions(lens, clean, Change(site, "control", draw=1)).values())).sum(dim=0)
    final = clean.trace.final
    direction = control_direction(site, 1, final[0])
    on_readout = whole[:, :1]
    rho = visible_norm(on_readout, centred=True) / visible_norm(final, centred=True)
    torch.testing.assert_close(rho, torch.full_like(rho, 0.5))
    assert cosine_distance(-on_readout[:, 0], direction.expand_as(on_readout[:, 0])) <= CLOSE
    own = additions(lens, clean, Change(site))
    if own:  # a group is scaled in the running pass, so its rows hold factors
        change = torch.stack(list(own.values())).sum(dim=0)
        sizes = [visible_norm(tensor[..., None, :], centred=True) for tensor in (whole, change)]
        torch.testing.assert_close(*sizes, check_dtype=False)


def test_nothing_depends_on_what_shares_a_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    lens, clean = lens_of("rho=1"), clean_pass(ENCODER, PIXELS, attention=True)
    changes = [Change(site, kind) for site in SITES for kind in ("scaled", "ablated", "control")]
    together = lens.changed(clean, changes)
    monkeypatch.setattr("steerlens.lenses.total.TOKENS", 1)
    assert len(lens.batches(changes)) == len(changes)
    assert cosine_distance(together, lens.changed(clean, changes)) <= CLOSE


@pytest.mark.parametrize(
    ("site", "named", "said"),
    [
        (Site("resid_post", 1), {}, "scaling it scales no component"),
        (Site("vector", name="probe"), {"probe": VECTOR}, "say where it is added"),
        (Site("vector", name="other"), {"probe": VECTOR}, "no vector is called 'other'"),
        (Site("head", 9, 0), {}, "the model has 4 layers"),
        (
            Site("region", name="two"),
            {"two": RegionPart((Site("head", 1, 0), Site("head", 2, 0)), Patches((0, 0), (0, 0)))},
            "heads of layers 1, 2",
        ),
    ],
)
def test_what_has_no_total_effect_is_refused(site: Site, named: Any, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        TotalLens(ENCODER, Strength("s", 2.0), named).embeddings(PIXELS, [site])


def test_the_clean_run_is_the_clean_embedding() -> None:
    for strength in ("s=1", "rho=0"):
        clean = clean_pass(ENCODER, PIXELS, attention=True)
        scaled = lens_of(strength).embeddings(clean, SITES)
        assert cosine_distance(scaled, clean.trace.embedding[:, None].expand_as(scaled)) <= CLOSE


def library_encoders() -> dict[str, Any]:
    """Builders of tiny encoders of timm and open_clip, variant by variant."""
    groups = {
        "timm": (TIMM_VARIANTS, tiny_timm_encoder),
        "eva": (EVA_VARIANTS, tiny_eva_encoder),
        "open_clip": (OPEN_CLIP_VARIANTS, tiny_open_clip_encoder),
    }
    return {
        f"{library} {name}": partial(build, **options)
        for library, (variants, build) in groups.items()
        for name, options in variants.items()
    }


@pytest.mark.usefixtures("timm", "open_clip")
@pytest.mark.parametrize("name", sorted(library_encoders()))
def test_every_variant_of_timm_and_open_clip_gives_what_a_plain_hooked_pass_gives(name: str) -> None:
    encoder = library_encoders()[name]()
    inputs, sites = noise_pictures(encoder), every_site(encoder)
    lens = TotalLens(encoder, "rho=1")
    clean = lens.clean(inputs)
    assert clean.prefix is not None
    scaled, without, factors = (
        lens.embeddings(clean, sites),
        lens.without(clean, sites),
        lens.coefficients(clean, sites),
    )
    for index, site in enumerate(sites):
        plain = encoder.embed(inputs, [Scale(site, factor=1 + factors[:, index])])
        assert cosine_distance(scaled[:, index], plain) <= CLOSE
        assert cosine_distance(without[:, index], encoder.embed(inputs, [Zero(site)])) <= CLOSE
