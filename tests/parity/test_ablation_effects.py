"""Ablations from cached prefixes, direct effects and attribution patching, against full passes one site at a time."""

from dataclasses import dataclass, replace

import pytest
import torch
from plain import SIZES, random_encoder, random_pixels
from torch import Tensor

from steerlens.encoders.clip import CLIPEncoder
from steerlens.encoders.prefix import record_from, record_prefix, resume
from steerlens.errors import ModelError, UsageError
from steerlens.interventions import ByRow, Intervention, Resample, Scale, Zero
from steerlens.progress import Progress, run_to_end
from steerlens.scores import cosine_similarity
from steerlens.sites import Site, all_heads
from steerlens.studies.shared.ablation import (
    Ablated,
    Ablation,
    ablate,
    attribution,
    mean_writes,
    signed_effect,
    similarity_with,
    unsigned_effect,
)

ENCODER = random_encoder(SIZES[2])
PIXELS, OTHERS = random_pixels(ENCODER, 3, seed=1), random_pixels(ENCODER, 3, seed=2)
SITES = (*all_heads(4, 3), Site("attn_out", 2), Site("mlp_out", 0), Site("mlp_out", 3))


def replacement(site: Site, ablation: Ablation) -> Tensor:
    own, other = ENCODER.record(PIXELS, [site])[site], ENCODER.record(OTHERS, [site])[site]
    return {"zero": torch.zeros_like(own), "mean": other.mean(dim=0, keepdim=True).expand_as(own), "resample": other}[
        ablation
    ]


def carried_out(ablation: Ablation, batch: int = 64) -> Ablated:
    prefix, others = record_prefix(ENCODER, PIXELS), record_prefix(ENCODER, OTHERS)
    means = mean_writes(ENCODER, [{"pixel_values": OTHERS[:2]}, {"pixel_values": OTHERS[2:]}], SITES)
    told: list[Progress] = []
    events = ablate(ENCODER, prefix, SITES, ablation, means=means, others=others, batch=batch)
    ablated = run_to_end(events, told.append)
    assert [event.done for event in told] == [4, 7, 11, 15]  # sites, layer after layer
    assert {event.total for event in told} == {15}
    return ablated


@pytest.mark.parametrize("ablation", ["zero", "mean", "resample"])
def test_total_effects_equal_full_passes_one_site_at_a_time(ablation: Ablation) -> None:
    found = carried_out(ablation)
    assert found.sites == SITES
    torch.testing.assert_close(found.clean, ENCODER.embed(PIXELS))
    for index, site in enumerate(SITES):
        value = replacement(site, ablation).float().to(PIXELS)  # means are kept in float32
        whole = ENCODER.embed(PIXELS, [Resample(site, value=value)])
        torch.testing.assert_close(found.total[:, index], whole, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("ablation", ["zero", "mean", "resample"])
def test_direct_effects_change_the_final_residual_alone(ablation: Ablation) -> None:
    found, trace = carried_out(ablation), ENCODER.trace(PIXELS)
    for index, site in enumerate(SITES):
        put = replacement(site, ablation)[:, :1]
        whole = ENCODER.readout(trace.final - trace.at(site) + put)
        torch.testing.assert_close(found.direct[:, index], whole, rtol=1e-4, atol=1e-5)


def test_nothing_depends_on_how_many_rows_share_a_pass() -> None:
    one, many = carried_out("resample", batch=1), carried_out("resample", batch=64)
    torch.testing.assert_close(one.total, many.total)


def test_the_last_layers_total_effect_is_direct_where_no_mlp_follows() -> None:
    found = carried_out("zero")
    last = SITES.index(Site("mlp_out", 3))
    torch.testing.assert_close(found.total[:, last], found.direct[:, last].to(found.total), rtol=1e-4, atol=1e-5)


def test_effects_by_their_definition() -> None:
    clean, target = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 1.0]])
    ablated = torch.tensor([[[1.0, 0.0], [0.0, 2.0], [1.0, 1.0]]])
    torch.testing.assert_close(unsigned_effect(clean, ablated), torch.tensor([[0.0, 1.0, 1 - 0.5**0.5]]))
    torch.testing.assert_close(signed_effect(clean, ablated, target), torch.tensor([[0.0, -1.0, -(0.5**0.5)]]))


def test_attribution_is_the_derivative_of_the_total_effect() -> None:
    """A small step towards the replacement changes the similarity by the step times the attribution."""
    prefix, others = record_prefix(ENCODER, PIXELS), record_prefix(ENCODER, OTHERS)
    target = torch.randn(3, ENCODER.spec.embedding_size, generator=torch.Generator().manual_seed(3)).double()
    inputs = {"pixel_values": PIXELS}
    found = attribution(ENCODER, inputs, prefix, SITES, similarity_with(target), "resample", others=others)
    step = 1e-3
    for index, site in enumerate(SITES):
        own = ENCODER.record(PIXELS, [site])[site]
        put = replacement(site, "resample")
        sides = [
            cosine_similarity(ENCODER.embed(PIXELS, [Resample(site, value=own + way * step * (put - own))]), target)
            for way in (1, -1)
        ]
        slope = (sides[1] - sides[0]) / (2 * step)
        torch.testing.assert_close(found[:, index].double(), slope, rtol=1e-3, atol=1e-5)


def test_a_resumed_pass_equals_a_full_one_from_every_layer() -> None:
    prefix = record_prefix(ENCODER, PIXELS)
    for layer in range(4):
        rows = [2, 0, 0, 1]
        torch.testing.assert_close(resume(ENCODER, prefix, layer, rows), ENCODER.embed(PIXELS)[rows])


def test_what_one_block_records_is_what_the_whole_pass_records() -> None:
    prefix = record_prefix(ENCODER, PIXELS)
    sites = [Site("head", 2, 1), Site("mlp_out", 2), Site("resid_post", 2)]
    found, whole = record_from(ENCODER, prefix, sites), ENCODER.record(PIXELS, sites)
    for site in sites:
        torch.testing.assert_close(found[site], whole[site])
    with pytest.raises(UsageError, match="one layer"):
        record_from(ENCODER, prefix, [Site("head", 2, 1), Site("head", 1, 1)])


def test_a_pass_cannot_begin_after_what_it_changes() -> None:
    prefix = record_prefix(ENCODER, PIXELS)
    with pytest.raises(UsageError, match="lies before layer 2"):
        resume(ENCODER, prefix, 2, [0], [Zero(Site("head", 1, 0))])


def test_no_hook_is_left_behind() -> None:
    prefix = record_prefix(ENCODER, PIXELS)
    with pytest.raises(UsageError):
        resume(ENCODER, prefix, 0, [0], [ByRow(Site("head", 1, 0), inner=Zero(Site("head", 1, 0)), rows=(5,))])
    for module in ENCODER.model.modules():
        assert not module._forward_hooks and not module._forward_pre_hooks


def test_a_row_has_its_own_intervention() -> None:
    site, other = Site("head", 1, 0), Site("head", 1, 2)
    changes = [
        ByRow(site, inner=Zero(site), rows=(0,)),
        ByRow(other, inner=Scale(other, factor=3.0), rows=(1, 2)),
    ]
    together = ENCODER.embed(PIXELS, changes)
    torch.testing.assert_close(together[:1], ENCODER.embed(PIXELS[:1], [Zero(site)]))
    torch.testing.assert_close(together[1:], ENCODER.embed(PIXELS[1:], [Scale(other, factor=3.0)]))
    with pytest.raises(UsageError, match="takes an intervention at that site"):
        ENCODER.embed(PIXELS, [ByRow(site, inner=Zero(other), rows=(0,))])


def test_a_model_that_is_more_than_its_blocks_is_refused() -> None:
    class Shifted(CLIPEncoder):
        def native_forward(self, inputs):
            return super().native_forward(inputs).flip(-1)

    model = random_encoder(SIZES[1])
    with pytest.raises(ModelError, match="do not give its own embedding"):
        record_prefix(Shifted(model.model, model.processor), random_pixels(model))  # type: ignore[arg-type]


@dataclass(frozen=True, eq=False, repr=False)
class WritesIntoARow(Intervention):
    """Writes into one row of the value that it is given, in place."""

    def new_value(self, value: Tensor) -> Tensor:
        value[1] = 0
        return value


@pytest.mark.parametrize("place", ["attn_out.1", "mlp_out.1", "resid_post.1"])
def test_an_intervention_may_write_into_one_row(place: str) -> None:
    prefix = record_prefix(ENCODER, PIXELS)
    changes = [WritesIntoARow(Site.parse(place))]
    got = resume(ENCODER, prefix, 1, [0, 0, 0], changes)
    wanted = resume(ENCODER, replace(prefix, shortcuts=False), 1, [0, 0, 0], changes)
    assert prefix.shortcuts
    torch.testing.assert_close(got, wanted, rtol=1e-5, atol=1e-6)
