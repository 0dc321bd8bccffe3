"""Features, errors and biases of sparse autoencoders as components of the lenses."""

import pytest
import torch
from PIL import Image
from tiny_saes import tiny_sae
from torch import Tensor

from steerlens.encoders import Encoder
from steerlens.errors import UsageError
from steerlens.interventions import Add, Patch, Scale
from steerlens.lenses.controls import steer_controls
from steerlens.lenses.diffusion import DiffusionLens
from steerlens.lenses.sae_parts import activations_on_tokens, check_sae, sae_writes, writes_on_tokens
from steerlens.lenses.steering import SteeringLens
from steerlens.lenses.total import TotalLens
from steerlens.saes import BatchTopK, Normalisation, SparseAutoencoder, TopK, feature_interventions, value_at
from steerlens.scores import cosine_distance
from steerlens.sites import Site, SiteKind
from steerlens.testing.tiny import tiny_encoder
from steerlens.trace import Trace

SITES = ["embed", "resid_pre.1", "resid_mid.1", "resid_post.0", "resid_post.2", "attn_out.1", "mlp_out.1", "head.1.1"]


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    return tiny_encoder()


@pytest.fixture(scope="module")
def inputs(encoder: Encoder) -> dict[str, Tensor]:
    noise = torch.randint(0, 255, (2, 16, 16, 3), generator=torch.Generator().manual_seed(1), dtype=torch.uint8)
    return dict(encoder.preprocess([Image.fromarray(picture.numpy()) for picture in noise]))


@pytest.fixture(scope="module")
def trace(encoder: Encoder, inputs: dict[str, Tensor]) -> Trace:
    return encoder.trace(inputs)


def active(sae: SparseAutoencoder, trace: Trace, k: int = 3) -> list[Site]:
    best = sae.encode(value_at(sae, trace)).sum(dim=(0, 1)).topk(k).indices
    return [sae.feature(index) for index in best.tolist()]


def scaled_by_hooks(
    encoder: Encoder, inputs: dict[str, Tensor], sae: SparseAutoencoder, site: Site, factor: float
) -> Tensor:
    """The definition by the autoencoder's own intervention: encode, scale, decode, add the error; then freeze."""
    assert isinstance(sae.site, Site)
    later = later_places(encoder, Site("attn_out", sae.site.layer) if sae.site.kind == "head" else sae.site)
    clean = encoder.record(inputs, later) if later else {}
    changes = feature_interventions([Scale(site, factor=factor)], [sae])
    return encoder.embed(inputs, [*changes, *(Patch(one, value=clean[one]) for one in later)])


def later_places(encoder: Encoder, place: Site) -> list[Site]:
    order = ["resid_pre", "attn_out", "resid_mid", "mlp_out", "resid_post"]
    stage, layer = 0 if place.kind == "embed" else order.index(place.kind), max(place.layer, 0)
    sublayers: list[SiteKind] = ["attn_out", "mlp_out"]
    same = [Site(kind, layer) for kind in sublayers if order.index(kind) > stage]
    return same + [Site(kind, after) for after in range(layer + 1, encoder.spec.n_layers) for kind in sublayers]


def steered_by_hooks(
    encoder: Encoder, inputs: dict[str, Tensor], sae: SparseAutoencoder, site: Site, factor: float
) -> Tensor:
    """The definition: add `factor - 1` times the feature's write at its site, keep later submodules clean."""
    assert isinstance(sae.site, Site)
    place = Site("attn_out", sae.site.layer) if sae.site.kind == "head" else sae.site
    later = later_places(encoder, place)
    clean = encoder.record(inputs, [sae.site, *later])
    x = clean[sae.site]
    write = sae.encode(x)[..., site.index, None] * sae.W_dec[site.index]
    changes = [Add(place, vector=(factor - 1) * write), *(Patch(one, value=clean[one]) for one in later)]
    return encoder.embed(inputs, changes)


@pytest.mark.parametrize("place", SITES)
def test_the_closed_form_of_a_feature_is_steering_it_hook_by_hook(
    encoder: Encoder, inputs: dict[str, Tensor], trace: Trace, place: str
) -> None:
    sae = tiny_sae(encoder, place)
    sites = active(sae, trace)
    closed = SteeringLens(encoder, "s=6", {sae.name: sae}).embeddings(trace, sites)
    for column, site in enumerate(sites):
        by_hooks = steered_by_hooks(encoder, inputs, sae, site, 6.0)
        assert cosine_distance(closed[:, column], by_hooks) <= 1e-6
        assert cosine_distance(closed[:, column], scaled_by_hooks(encoder, inputs, sae, site, 6.0)) <= 1e-6
        assert cosine_distance(closed[:, column], trace.embedding) > 1e-4


@pytest.mark.parametrize("place", SITES)
@pytest.mark.parametrize("kind", ["none", "constant", "unit_norm", "layer_norm"])
def test_features_bias_and_error_sum_to_the_value(encoder: Encoder, trace: Trace, place: str, kind: str) -> None:
    normalisation = Normalisation(kind)  # type: ignore[arg-type]
    if kind == "constant":
        normalisation = Normalisation("constant", 0.7, torch.full((encoder.spec.width,), 0.1))
    sae = tiny_sae(encoder, place, normalisation=normalisation, activation=TopK(5))
    parts = [*(sae.feature(index) for index in range(sae.n_features)), *remainders(sae)]
    total = torch.stack(list(sae_writes(trace, parts, {sae.name: sae}).values())).sum(dim=0)
    value = trace.at(place)
    assert float((total - value).norm(dim=-1).max() / value.norm(dim=-1).max()) <= 1e-5


@pytest.mark.parametrize("place", ["head.1.1", "attn_out.1"])
def test_autoencoders_of_head_values_write_through_the_output_projection(
    encoder: Encoder, inputs: dict[str, Tensor], trace: Trace, place: str
) -> None:
    sae = tiny_sae(encoder, place, space="head_values", activation=BatchTopK(0, 0.1))
    parts = [*(sae.feature(index) for index in range(sae.n_features)), *remainders(sae)]
    total = torch.stack(list(sae_writes(trace, parts, {sae.name: sae}).values())).sum(dim=0)
    whole = trace.at(place) - (trace.attn_bias[1] if place == "attn_out.1" else 0)
    assert torch.allclose(total, whole, atol=1e-5)
    on_tokens = writes_on_tokens(encoder, inputs, sae, parts).sum(dim=1)
    assert torch.allclose(on_tokens[:, :1], total, atol=1e-5)


def test_parts_of_the_embedding_are_steered_after_the_projection(encoder: Encoder, trace: Trace) -> None:
    sae = tiny_sae(encoder, "embedding")
    directions, e = {sae.name: sae}, trace.embedding
    sites = [*active(sae, trace), *remainders(sae)]
    write = sae.encode(e)[:, sites[0].index, None] * sae.W_dec[sites[0].index]
    by_factor = SteeringLens(encoder, "s=3", directions)
    assert torch.allclose(by_factor.embeddings(trace, sites)[:, 0], e + 2 * write, atol=1e-6)
    assert torch.allclose(DiffusionLens(encoder, directions).embeddings(trace, sites)[:, 0], write, atol=1e-6)
    steering = SteeringLens(encoder, "rho=0.5", directions)
    moved = steering.embeddings(trace, sites) - e[:, None]
    assert torch.allclose(moved.norm(dim=-1), 0.5 * e.norm(dim=-1)[:, None].expand(2, 5), atol=1e-5)
    assert torch.allclose(steering.relative_strength(trace, sites), torch.full((2, 5), 0.5), atol=1e-6)
    # Beside components of the residual stream, each keeps its own space.
    mixed = steering.embeddings(trace, [sites[0], Site("head", 1, 0), sites[1]])
    assert torch.allclose(mixed[:, [0, 2]], steering.embeddings(trace, sites[:2]), atol=1e-6)
    assert torch.allclose(mixed[:, 1], steering.embeddings(trace, "L1H0")[:, 0], atol=1e-6)
    controls = steer_controls(encoder, trace, [(sites[0], 0), (sites[0], 1)], torch.full((2, 2), 0.5), directions)
    assert torch.allclose((controls - e[:, None]).norm(dim=-1), 0.5 * e.norm(dim=-1)[:, None].expand(2, 2), atol=1e-5)
    assert cosine_distance(controls[:, 0] - e, controls[:, 1] - e) > 0.1


@pytest.mark.parametrize("place", ["resid_post.0", "attn_out.1", "head.0.1"])
def test_the_total_effect_changes_the_feature_on_every_token(
    encoder: Encoder, inputs: dict[str, Tensor], trace: Trace, place: str
) -> None:
    sae = tiny_sae(encoder, place)
    site, own = active(sae, trace, 1)[0], Site.parse(place)
    at = Site("attn_out", own.layer) if own.kind == "head" else own
    write = writes_on_tokens(encoder, inputs, sae, [site])[:, 0]
    lens = TotalLens(encoder, "s=4", {sae.name: sae})
    assert torch.allclose(
        lens.embeddings(inputs, [site])[:, 0], encoder.embed(inputs, [Add(at, vector=3 * write)]), atol=1e-5
    )
    assert torch.allclose(
        lens.without(inputs, [site])[:, 0], encoder.embed(inputs, [Add(at, vector=-write)]), atol=1e-5
    )


def test_activations_on_tokens_are_those_of_the_recorded_values(encoder: Encoder, inputs: dict[str, Tensor]) -> None:
    sae = tiny_sae(encoder, "mlp_out.2")
    sites = [sae.feature(3), Site("error", name="tiny"), sae.feature(7), Site("bias", name="tiny")]
    x = encoder.record(inputs, [Site("mlp_out", 2)])[Site("mlp_out", 2)]
    activations, found = sae.encode(x), activations_on_tokens(encoder, inputs, sae, sites)
    assert torch.allclose(found[:, [0, 2]], activations[..., [3, 7]].transpose(1, 2), atol=1e-6)
    assert torch.allclose(found[:, 1], (x - sae.decode(activations)).norm(dim=-1), atol=1e-5)
    assert torch.allclose(found[:, 3], sae.b_dec.norm().expand_as(found[:, 3]), atol=1e-6)


def test_what_does_not_fit_is_refused(encoder: Encoder, trace: Trace) -> None:
    sae = tiny_sae(encoder)
    lens = SteeringLens(encoder, "s=2", {sae.name: sae})
    with pytest.raises(UsageError, match="no feature 40"):
        lens.embeddings(trace, ["feature.tiny.40"])
    with pytest.raises(UsageError, match="no sparse autoencoder is called 'other'"):
        lens.embeddings(trace, ["feature.other.1"])
    wide = tiny_sae(tiny_encoder(width=24), "resid_post.1")
    with pytest.raises(UsageError, match="width 24"):
        check_sae(wide, encoder.spec)
    deep = tiny_sae(encoder, "resid_post.7")
    with pytest.raises(UsageError, match="3 layers"):
        check_sae(deep, encoder.spec)
    after = tiny_sae(encoder, "embedding", name="after")
    with pytest.raises(UsageError, match="leave out effect total"):
        TotalLens(encoder, "s=2", {"after": after}).places(after.feature(0))


def remainders(sae: SparseAutoencoder) -> list[Site]:
    return [Site("error", name=sae.name), Site("bias", name=sae.name)]
