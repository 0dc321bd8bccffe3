"""What heads read from regions: parts that sum, areas that cover what they say, and steering against an oracle."""

from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from steerlens.encoders.clip import CLIPEncoder
from steerlens.errors import UsageError
from steerlens.interventions import Add, Patch
from steerlens.lenses.regions import (
    Area,
    Box,
    Mask,
    Outside,
    Patches,
    RegionPart,
    SpecialTokens,
    parse_area,
    parse_regions,
    token_part,
)
from steerlens.lenses.steering import SteeringLens
from steerlens.lenses.strength import Strength
from steerlens.scores import cosine_distance
from steerlens.sites import Site
from steerlens.testing.tiny import tiny_encoder
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
    return encoder.trace(pixels, attention=True)


def test_an_area_and_all_outside_of_it_sum_to_the_heads_write(encoder: CLIPEncoder, trace: Trace) -> None:
    height, width = encoder.spec.image_size
    area = Box(1, 2, width - 3, height // 2 + 1)  # cuts through patches
    heads = (Site("head", 0, 1), Site("head", 2, 0))
    inside = RegionPart(heads, area).write(encoder.spec, trace)
    outside = RegionPart(heads, Outside(area)).write(encoder.spec, trace)
    torch.testing.assert_close(inside + outside, trace.stack(heads).sum(dim=1), rtol=1e-5, atol=1e-6)
    assert inside.norm() > 0.01 * trace.at(heads[0]).norm()
    assert outside.norm() > 0.01 * trace.at(heads[0]).norm()


def test_a_part_is_the_weighted_sum_of_the_writes_token_by_token(encoder: CLIPEncoder, trace: Trace) -> None:
    site, weights = Site("head", 1, 0), torch.rand(encoder.spec.n_tokens, generator=torch.Generator().manual_seed(0))
    wanted = (trace.token_writes(site) * weights[:, None]).sum(dim=2)
    torch.testing.assert_close(token_part(trace, site, weights), wanted, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("factor", [-2.0, 3.0, 40.0])
@pytest.mark.parametrize("area", [Box(0, 0, 7, 9), Patches((0, 1), (1, 1)), SpecialTokens()], ids=str)
def test_steering_a_part_is_adding_it_at_the_head_with_all_that_follows_held(
    encoder: CLIPEncoder, pixels: Tensor, trace: Trace, area: Area, factor: float
) -> None:
    head, spec = Site("head", 1, 1), encoder.spec
    lens = SteeringLens(encoder, Strength("s", factor), {"part": RegionPart((head,), area)})
    closed = lens.embeddings(trace, [Site("region", name="part")])[:, 0]
    later = [Site("mlp_out", 1), *(Site(kind, 2) for kind in ("attn_out", "mlp_out"))]
    assert spec.n_layers == 3
    clean = encoder.record(pixels, later)
    # By the tokens one after the other, not by the code under test.
    part = (trace.token_writes(head) * area.weights(spec)[:, None]).sum(dim=2)
    steer = Add(head, (0,), vector=(factor - 1) * part)
    oracle = encoder.embed(pixels, [steer, *(Patch(site, value=clean[site]) for site in later)])
    assert cosine_distance(closed, oracle) <= 1e-6
    assert cosine_distance(closed, trace.embedding) > 1e-4


def test_a_box_covers_patches_by_their_share(encoder: CLIPEncoder) -> None:
    spec = encoder.spec
    (rows, columns), (height, width) = spec.patch_grid, spec.image_size
    side = height // rows
    weights = Box(side // 2, 0, side + side // 4, side).weights(spec)
    grid = weights[spec.first_patch :].reshape(rows, columns)
    wanted = torch.zeros(rows, columns)
    wanted[0, 0], wanted[0, 1] = 0.5, 0.25
    assert torch.equal(grid, wanted)
    assert not weights[: spec.first_patch].any()
    assert torch.equal(
        Box(0, 0, width, height).weights(spec) + SpecialTokens().weights(spec), torch.ones(spec.n_tokens)
    )


def test_patches_are_rows_and_columns(encoder: CLIPEncoder) -> None:
    spec, side = encoder.spec, encoder.spec.image_size[0] // encoder.spec.patch_grid[0]
    last = spec.patch_grid[1] - 1
    by_pixels = Box(last * side, 0, (last + 1) * side, 2 * side)
    assert torch.equal(Patches((0, 1), (last, last)).weights(spec), by_pixels.weights(spec))


def test_a_mask_is_cropped_as_its_picture_is(encoder: CLIPEncoder, tmp_path: Path) -> None:
    spec = encoder.spec
    height, width = spec.image_size
    # Twice as wide as what is seen: the outer quarters are cut off.
    array = np.zeros((2 * height, 4 * width), dtype=np.uint8)
    array[:, : 2 * width] = 255
    Image.fromarray(array).save(tmp_path / "left half.png")
    part = parse_regions([f"L0H0:{tmp_path / 'left half.png'}"], spec.n_layers, spec.n_heads)
    ((name, region),) = part.items()
    assert torch.equal(region.area.weights(spec), Box(0, 0, width // 2, height).weights(spec))
    assert name.startswith("L0H0.left-half-")
    with pytest.raises(UsageError, match="marks nothing"):
        Mask(Image.new("L", (8, 8)), "empty").weights(spec)


@pytest.mark.parametrize(
    ("text", "area"),
    [
        ("8,9,40,41", Box(8, 9, 40, 41)),
        (" patches=2-4,3 ", Patches((2, 4), (3, 3))),
        ("cls", SpecialTokens()),
        ("outside=patches=1,2", Outside(Patches((1, 1), (2, 2)))),
    ],
)
def test_areas_are_read(text: str, area: Area) -> None:
    assert parse_area(text) == area


def test_regions_have_names_that_sites_can_bear() -> None:
    parts = parse_regions(["L1H0:1,2,3,4", "head.0-1.*:cls", "eye=head.2:outside=patches=0,1-2"], 3, 2)
    assert list(parts) == ["L1H0.1-2-3-4", "head.0-1.all.cls", "eye"]
    assert parts["head.0-1.all.cls"].heads == tuple(Site("head", layer, head) for layer in (0, 1) for head in (0, 1))
    for name in parts:
        site = Site("region", name=name)
        assert Site.parse(str(site)) == site
        assert site.label == name


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("L1H0", "names no region"),
        ("L1H0:left", "is no region"),
        ("mlp_out.1:cls", "only a head reads"),
        ("L9H0:cls", "the model has 3 layers"),
        ("a b=L1H0:cls", "cannot name"),
        ("L1H0:missing.png", "there is no file"),
    ],
)
def test_what_is_no_region_is_refused(text: str, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        parse_regions([text], 3, 2)


def test_two_regions_of_one_name_are_refused() -> None:
    with pytest.raises(UsageError, match="two regions are called"):
        parse_regions(["L1H0:cls", "L1H0:cls"], 3, 2)


@pytest.mark.parametrize(
    "area", [Box(0, 0, 999, 4), Box(4, 4, 4, 9), Patches((0, 99), (0, 0)), Patches((1, 0), (0, 0))]
)
def test_areas_outside_of_the_picture_are_refused(encoder: CLIPEncoder, area: Area) -> None:
    with pytest.raises(UsageError, match=r"not in the picture|there are no"):
        RegionPart((Site("head", 0, 0),), area).check(encoder.spec)


def test_a_trace_without_attention_cannot_be_split(encoder: CLIPEncoder, pixels: Tensor) -> None:
    part = RegionPart((Site("head", 0, 0),), SpecialTokens())
    with pytest.raises(UsageError, match="attention=True"):
        part.write(encoder.spec, encoder.trace(pixels))


def test_the_former_module_of_regions_still_works_and_warns() -> None:
    with pytest.warns(DeprecationWarning, match=r"steerlens\.lenses\.regions"):
        former = import_module("steerlens.lenses.tokens")
    assert former.Mask is Mask
