"""Groups of components steered as one: against an oracle of hooks, through the whole engine, and every refusal."""

from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import Tensor

from steerlens.encoders.clip import CLIPEncoder
from steerlens.errors import UsageError
from steerlens.images import Picture
from steerlens.interventions import Add, Intervention, Patch
from steerlens.lenses.components import Group, check_vector, named_components, parse_groups
from steerlens.lenses.diffusion import DiffusionLens
from steerlens.lenses.regions import Patches, RegionPart
from steerlens.lenses.steering import SteeringLens, steer_and_patch
from steerlens.lenses.strength import Strength
from steerlens.loading import load
from steerlens.scores import cosine_distance
from steerlens.sites import Site, layer_sites, parse_sites
from steerlens.sweep.look import look
from steerlens.testing.tiny import save_tiny_pair, tiny_encoder
from steerlens.trace import Trace


@pytest.fixture(scope="module")
def encoder() -> CLIPEncoder:
    return tiny_encoder()


@pytest.fixture(scope="module")
def pixels(encoder: CLIPEncoder) -> Tensor:
    height, width = encoder.spec.image_size
    return torch.randn(2, 3, height, width, generator=torch.Generator().manual_seed(4))


@pytest.fixture(scope="module")
def trace(encoder: CLIPEncoder, pixels: Tensor) -> Trace:
    return encoder.trace(pixels)


def steered_by_hooks(encoder: CLIPEncoder, pixels: Tensor, members: tuple[Site, ...], factor: float) -> Tensor:
    """Every submodule held at its clean output, and every member's own clean write added on top of that."""
    L = encoder.spec.n_layers
    outputs = [*layer_sites("attn_out", L), *layer_sites("mlp_out", L)]
    clean = encoder.record(pixels, [*outputs, *members])
    changes: list[Intervention] = [Patch(site, value=clean[site]) for site in outputs]
    for site in members:
        enters = Site("attn_out", site.layer) if site.kind == "head" else site
        changes.append(Add(enters, vector=(factor - 1) * clean[site]))
    return encoder.embed(pixels, changes)


@pytest.mark.parametrize("factor", [-2.0, 0.0, 4.0])
@pytest.mark.parametrize("sites", ["head.1.*", "L0H1,L2H0,mlp_out.1", "attn_out.0,head.1-2.*,mlp_out"])
def test_a_group_is_steered_as_hooks_would_steer_all_members_at_once(
    encoder: CLIPEncoder, pixels: Tensor, trace: Trace, sites: str, factor: float
) -> None:
    group = Group(parse_sites(sites, encoder.spec.n_layers, encoder.spec.n_heads))
    lens = SteeringLens(encoder, Strength("s", factor), {"some": group})
    closed = lens.embeddings(trace, [Site("group", name="some")])[:, 0]
    assert cosine_distance(closed, steered_by_hooks(encoder, pixels, group.members, factor)) <= 1e-6
    assert cosine_distance(closed, trace.embedding) > 1e-5


def test_a_group_of_one_is_that_site_under_both_lenses_and_either_strength(encoder: CLIPEncoder, trace: Trace) -> None:
    head, alone = Site("head", 1, 1), {"alone": Group((Site("head", 1, 1),))}
    sites = [head, Site("group", name="alone")]
    for strength in (Strength("rho", 1.0), Strength("s", 5.0)):
        one, other = SteeringLens(encoder, strength, alone).embeddings(trace, sites).unbind(dim=1)
        torch.testing.assert_close(one, other)
    one, other = DiffusionLens(encoder, alone).embeddings(trace, sites).unbind(dim=1)
    torch.testing.assert_close(one, other)


def test_groups_are_read() -> None:
    groups = parse_groups(["late=head.1-2.*, mlp_out.2", "pair = L0H0,L2H1"], 3, 2)
    assert [str(site) for site in groups["late"].members] == [
        *("head.1.0", "head.1.1", "head.2.0", "head.2.1", "mlp_out.2")
    ]
    assert groups["pair"].members == (Site("head", 0, 0), Site("head", 2, 1))


@pytest.mark.parametrize(
    ("texts", "said"),
    [
        (["late"], "write NAME=SITES"),
        (["=heads"], "write NAME=SITES"),
        (["a b=heads"], "cannot name"),
        (["late=head.7.*"], "the model has 3 layers"),
        (["late=resid_post.1"], "cannot be in a group"),
        (["late=attn_out.1,L1H0"], "count twice"),
        (["late=heads", "late=mlp_out"], "two groups are called"),
    ],
)
def test_what_is_no_group_is_refused(texts: list[str], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        parse_groups(texts, 3, 2)


def test_names_are_shared_by_directions_groups_and_regions() -> None:
    assert set(named_components(["a=heads"], ["b=L0H0:cls"], 3, 2, taken=["c"])) == {"a", "b"}
    with pytest.raises(UsageError, match="'a' names two"):
        named_components(["a=heads"], ["a=L0H0:cls"], 3, 2)
    with pytest.raises(UsageError, match="'a' names two"):
        named_components(["a=heads"], [], 3, 2, taken=["a"])


def test_a_name_stands_for_one_kind_of_thing(encoder: CLIPEncoder, trace: Trace) -> None:
    lens = SteeringLens(encoder, Strength("s", 2.0), {"late": Group((Site("mlp_out", 0),))})
    with pytest.raises(UsageError, match="no region is called 'late'"):
        lens.embeddings(trace, [Site("region", name="late")])


def test_the_definition_hook_by_hook_refuses_a_group(encoder: CLIPEncoder, pixels: Tensor) -> None:
    with pytest.raises(UsageError, match="one by one"):
        steer_and_patch(encoder, pixels, Site("group", name="late"), 2.0)


def test_groups_and_regions_go_through_a_run_and_come_back(tmp_path: Path) -> None:
    pair = load(str(save_tiny_pair(tmp_path / "pair")))
    spec = pair.encoder.spec
    picture = Picture.from_image(Image.effect_noise(spec.image_size, 60).convert("RGB"), "noise")
    directions = {
        "late": Group(parse_sites("head.1-2.*", spec.n_layers, spec.n_heads)),
        "corner": RegionPart((Site("head", 1, 0),), Patches((0, 0), (0, 0))),
    }
    atlas = look(pair, picture, sites="L1H0", directions=directions, steps=1, folder=tmp_path / "run")
    sites = [Site("group", name="late"), Site("region", name="corner")]
    assert [site for site in atlas.sites("steering") if site.kind != "head"] == sites
    trace = pair.encoder.trace(pair.encoder.preprocess([picture.image]), attention=True)
    steered = SteeringLens(pair.encoder, atlas.plan.strength, directions).embeddings(trace, sites)[0]
    for site, embedding in zip(sites, steered, strict=True):
        torch.testing.assert_close(atlas.cells("steering", site)[0].conditioning, embedding.float())
        assert atlas.score("steering", site).control is not None
    other = {**directions, "late": Group((Site("mlp_out", 0),))}
    with pytest.raises(UsageError, match="another directions"):
        look(pair, picture, sites="L1H0", directions=other, steps=1, folder=tmp_path / "run")


@pytest.mark.parametrize("length", [1e38, 1e-30, 1e-44])
def test_a_direction_whose_norm_single_precision_cannot_hold_is_told_as_that(length: float) -> None:
    direction = torch.randn(16, generator=torch.Generator().manual_seed(0)) * length
    with pytest.raises(UsageError, match=r"has the norm .* whose square leaves single precision; scale it"):
        check_vector("probe", direction, 16, centred=True)
