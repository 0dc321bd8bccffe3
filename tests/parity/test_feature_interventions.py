"""Interventions at features on the real forward pass, against hooks by hand: encode, change, decode, add the error."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from steerlens.encoders.native import NativeEncoder
from steerlens.errors import UsageError
from steerlens.interventions import Add, Intervention, Mean, Patch, Scale, Zero
from steerlens.saes import (
    EMBEDDING,
    ChangeFeatures,
    JumpReLU,
    Normalisation,
    ReLU,
    SparseAutoencoder,
    TopK,
    change_features,
    feature_interventions,
)
from steerlens.sites import Site
from steerlens.testing.encoder_checks import noise_pictures
from steerlens.testing.tiny_families import tiny_family_encoder

F = 48
CLOSE = {"rtol": 1e-7, "atol": 1e-9}
PLACES = ("resid_pre.1", "resid_mid.1", "resid_post.0", "attn_out.1", "mlp_out.1", "head.1.1", "embed")


def encoder() -> NativeEncoder:
    return tiny_family_encoder("CLIPVisionModelWithProjection", dtype=torch.float64)


def random_sae(width: int, site: Any, **fields: Any) -> SparseAutoencoder:
    generator = torch.Generator().manual_seed(3)

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    fields = {"activation": ReLU(), **fields}
    b_enc = draw(F)
    b_enc[7] += 6  # active on most tokens
    return SparseAutoencoder("toy", site, draw(width, F), draw(F, width), b_enc, draw(width), **fields)


def native_module(model: NativeEncoder, site: Site) -> tuple[Any, bool]:
    """Module and whether its input (or its output) is the value at the site."""
    layer = model.layers()[max(site.layer, 0)]
    return {
        "embed": (layer.block, True),
        "resid_pre": (layer.block, True),
        "resid_post": (layer.block, False),
        "attn_out": (layer.attn_out, False),
        "mlp_out": (layer.mlp_out, False),
    }[site.kind]


def by_hand(model: NativeEncoder, inputs: Any, sae: SparseAutoencoder, edit: Callable[[Tensor], Tensor]) -> Tensor:
    """The definition: a raw hook that encodes, edits the activations, decodes and adds the error back."""
    assert isinstance(sae.site, Site)
    module, before = native_module(model, sae.site)

    def changed(x: Tensor) -> Tensor:
        f = sae.encode(x)
        error = x - sae.decode(f, x)
        return sae.decode(edit(f.clone()), x) + error

    if before:
        handle = module.register_forward_pre_hook(lambda _, args: (changed(args[0]), *args[1:]))
    else:

        def leave(_: Any, __: Any, output: Any) -> Any:
            return (changed(output[0]), *output[1:]) if isinstance(output, tuple) else changed(output)

        handle = module.register_forward_hook(leave)
    try:
        return model.embed(inputs)
    finally:
        handle.remove()


def set_to(value: float | Tensor) -> Callable[[Tensor], Tensor]:
    def edit(f: Tensor) -> Tensor:
        f[..., 7] = value
        return f

    return edit


def scaled(f: Tensor) -> Tensor:
    f[..., 7] *= 5
    return f


def added(f: Tensor) -> Tensor:
    f[..., 7] += 2
    return f


FEATURE = Site("feature", name="toy", index=7)
ONE = torch.full((1,), 1.5, dtype=torch.float64)
CHANGES: dict[str, tuple[Intervention, Callable[[Tensor], Tensor]]] = {
    "zero": (Zero(FEATURE), set_to(0.0)),
    "scale": (Scale(FEATURE, factor=5.0), scaled),
    "mean": (Mean(FEATURE, value=ONE), set_to(1.5)),
    "patch": (Patch(FEATURE, value=ONE), set_to(1.5)),
    "add": (Add(FEATURE, vector=2 * torch.ones(1, dtype=torch.float64)), added),
}


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("place", ["resid_pre.1", "resid_post.0", "attn_out.1", "mlp_out.1", "embed"])
def test_a_change_is_what_a_hook_by_hand_does(place: str, change: str) -> None:
    model = encoder()
    inputs, sae = noise_pictures(model), random_sae(model.spec.width, Site.parse(place))
    intervention, edit = CHANGES[change]
    wanted = by_hand(model, inputs, sae, edit)
    got = model.embed(inputs, feature_interventions([intervention], [sae]))
    torch.testing.assert_close(got, wanted, **CLOSE)
    assert not torch.allclose(got, model.embed(inputs), rtol=1e-6)


SETTINGS: dict[str, dict[str, Any]] = {
    "top_k": {"activation": TopK(6)},
    "jump_relu": {"activation": JumpReLU(torch.linspace(-1, 2, F, dtype=torch.float64))},
    "layer_norm": {"normalisation": Normalisation("layer_norm")},
    "unit_norm": {"normalisation": Normalisation("unit_norm"), "apply_b_dec_to_input": True},
}


@pytest.mark.parametrize("setting", SETTINGS)
def test_every_activation_and_normalisation(setting: str) -> None:
    model = encoder()
    inputs = noise_pictures(model)
    sae = random_sae(model.spec.width, Site("resid_post", 0), **SETTINGS[setting])
    x = model.record(inputs, [Site("resid_post", 0)])[Site("resid_post", 0)]
    strongest = int(sae.encode(x).sum((0, 1)).argmax())
    site = sae.feature(strongest)

    def edit(f: Tensor) -> Tensor:
        f[..., strongest] = 0
        return f

    got = model.embed(inputs, feature_interventions([Zero(site)], {"toy": sae}))
    torch.testing.assert_close(got, by_hand(model, inputs, sae, edit), **CLOSE)


def head_values_by_hand(model: NativeEncoder, inputs: Any, sae: SparseAutoencoder, edit: Any) -> Tensor:
    """The definition for head values: a raw hook on the input of the output projection."""
    assert isinstance(sae.site, Site)
    layer, width = model.layers()[sae.site.layer], model.spec.width // model.spec.n_heads
    head = sae.site.head
    part = slice(head * width, (head + 1) * width) if sae.site.kind == "head" else slice(None)

    def changed(_: Any, args: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        z = args[0].clone()
        own = z[..., part].clone()
        f = sae.encode(own)
        z[..., part] = sae.decode(edit(f.clone()), own) + own - sae.decode(f, own)
        return (z, *args[1:])

    handle = layer.attn_proj.register_forward_pre_hook(changed)
    try:
        return model.embed(inputs)
    finally:
        handle.remove()


def head_values_sae(model: NativeEncoder, place: str) -> SparseAutoencoder:
    site = Site.parse(place)
    width = model.spec.width // (model.spec.n_heads if site.kind == "head" else 1)
    return random_sae(width, site, space="head_values", normalisation=Normalisation("layer_norm"))


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("place", ["attn_out.1", "head.0.1"])
def test_features_of_head_values_change_before_the_output_projection(place: str, change: str) -> None:
    model = encoder()
    inputs, sae = noise_pictures(model), head_values_sae(model, place)
    intervention, edit = CHANGES[change]
    wanted = head_values_by_hand(model, inputs, sae, edit)
    got = model.embed(inputs, feature_interventions([intervention], [sae]))
    torch.testing.assert_close(got, wanted, **CLOSE)
    assert not torch.allclose(got, model.embed(inputs), rtol=1e-6)
    nothing = model.embed(inputs, feature_interventions([Scale(FEATURE, factor=1.0)], [sae]))
    torch.testing.assert_close(nothing, model.embed(inputs), **CLOSE)


def test_features_of_head_values_change_on_the_chosen_tokens_alone() -> None:
    model = encoder()
    inputs, sae = noise_pictures(model), head_values_sae(model, "attn_out.0")
    assert isinstance(sae.site, Site)
    zero = Zero(FEATURE)
    nowhere, everywhere = (
        model.embed(inputs, [ChangeFeatures(sae.site, tokens=tokens, sae=sae, changes=(zero,))])
        for tokens in ((), tuple(range(model.spec.n_tokens)))
    )
    torch.testing.assert_close(nowhere, model.embed(inputs), **CLOSE)
    torch.testing.assert_close(everywhere, model.embed(inputs, feature_interventions([zero], [sae])), **CLOSE)
    some = model.embed(inputs, [ChangeFeatures(sae.site, tokens=(2,), sae=sae, changes=(zero,))])
    assert not torch.allclose(some, everywhere) and not torch.allclose(some, nowhere)


def test_a_feature_of_head_values_changes_before_its_head() -> None:
    model = encoder()
    inputs, sae = noise_pictures(model), head_values_sae(model, "head.0.1")
    changes = [Zero(Site("head", 0, 1)), Scale(FEATURE, factor=3.0)]
    got = model.embed(inputs, feature_interventions(changes, [sae]))
    torch.testing.assert_close(got, model.embed(inputs, [Zero(Site("head", 0, 1))]), **CLOSE)


@pytest.mark.parametrize("place", ["resid_post.0", "mlp_out.1"])
def test_error_and_bias_are_changed_like_features(place: str) -> None:
    model = encoder()
    inputs, sae = noise_pictures(model), random_sae(model.spec.width, Site.parse(place))
    x = model.record(inputs, [sae.site])[sae.site]  # type: ignore[list-item,index]
    rebuilt = sae.decode(sae.encode(x), x)
    for intervention, put in (
        (Zero("error.toy"), rebuilt),
        (Scale("error.toy", factor=2.0), x + (x - rebuilt)),
        (Zero("bias.toy"), x - sae.b_dec),
        (Patch("error.toy", value=x), rebuilt + x),
    ):
        got = model.embed(inputs, feature_interventions([intervention], [sae]))
        torch.testing.assert_close(got, model.embed(inputs, [Patch(sae.site, value=put)]), **CLOSE)  # type: ignore[arg-type]


@pytest.mark.parametrize("place", PLACES)
def test_a_change_that_changes_nothing_changes_nothing(place: str) -> None:
    model = encoder()
    inputs, sae = noise_pictures(model), random_sae(model.spec.width, Site.parse(place))
    got = model.embed(inputs, feature_interventions([Scale(FEATURE, factor=1.0)], [sae]))
    assert torch.equal(got, model.embed(inputs))


def test_features_of_one_autoencoder_change_together() -> None:
    model = encoder()
    inputs, sae = noise_pictures(model), random_sae(model.spec.width, Site("mlp_out", 0))

    def edit(f: Tensor) -> Tensor:
        f[..., 7], f[..., 9] = 0, 3 * f[..., 9]
        return f

    changes = [Zero(FEATURE), Scale(sae.feature(9), factor=3.0)]
    got = model.embed(inputs, feature_interventions(changes, [sae]))
    torch.testing.assert_close(got, by_hand(model, inputs, sae, edit), **CLOSE)


def test_a_write_may_be_given_in_place_of_an_activation() -> None:
    model = encoder()
    inputs, sae = noise_pictures(model), random_sae(model.spec.width, Site("mlp_out", 0))
    write = 1.5 * sae.W_dec[7]
    got = model.embed(inputs, feature_interventions([Mean(FEATURE, value=write)], [sae]))
    wanted = model.embed(inputs, feature_interventions([Mean(FEATURE, value=ONE)], [sae]))
    torch.testing.assert_close(got, wanted, **CLOSE)


def test_tokens_and_pictures_of_a_change() -> None:
    model = encoder()
    inputs, sae = noise_pictures(model), random_sae(model.spec.width, Site("resid_pre", 1))

    def edit(f: Tensor) -> Tensor:
        f[:, 1, 7] = 0
        return f

    got = model.embed(inputs, feature_interventions([Zero(FEATURE, tokens=(1,))], [sae]))
    torch.testing.assert_close(got, by_hand(model, inputs, sae, edit), **CLOSE)
    factors = torch.tensor([1.0, 0.0, 1.0], dtype=torch.float64)
    rows = model.embed(inputs, feature_interventions([Scale(FEATURE, factor=factors)], [sae]))
    torch.testing.assert_close(rows[[0, 2]], model.embed(inputs)[[0, 2]], **CLOSE)
    assert not torch.allclose(rows[1], model.embed(inputs)[1], rtol=1e-6)


def test_embeddings_change_after_the_forward_pass() -> None:
    model = encoder()
    inputs, sae = noise_pictures(model), random_sae(model.spec.embedding_size, EMBEDDING)
    x = model.embed(inputs)
    f = sae.encode(x)
    edited = f.clone()
    edited[:, 7] = 0
    wanted = sae.decode(edited) + (x - sae.decode(f))
    torch.testing.assert_close(change_features(sae, x[:, None], [Zero(FEATURE)])[:, 0], wanted, **CLOSE)
    with pytest.raises(UsageError, match="reads the image embedding, which comes after"):
        feature_interventions([Zero(FEATURE)], [sae])


def test_gradients_flow_through_a_change() -> None:
    model = encoder()
    inputs, sae = noise_pictures(model), random_sae(model.spec.width, Site("mlp_out", 0))
    factor = torch.ones(3, dtype=torch.float64, requires_grad=True)
    score = model.forward(inputs, feature_interventions([Scale(FEATURE, factor=factor)], [sae])).sum()
    (slope,) = torch.autograd.grad(score, factor)
    step = 1e-6
    ahead = model.embed(inputs, feature_interventions([Scale(FEATURE, factor=1 + step)], [sae])).sum()
    back = model.embed(inputs, feature_interventions([Scale(FEATURE, factor=1 - step)], [sae])).sum()
    assert float(slope.sum()) == pytest.approx(float(ahead - back) / (2 * step), rel=1e-5)


def test_what_is_not_there_is_refused() -> None:
    sae = random_sae(8, Site("mlp_out", 0))
    with pytest.raises(UsageError, match="no sparse autoencoder is called 'other'; known: toy"):
        feature_interventions([Zero("feature.other.1")], [sae])
    with pytest.raises(UsageError, match="toy has features 0 to 47; there is no feature 48"):
        feature_interventions([Zero("feature.toy.48")], [sae])
    with pytest.raises(UsageError, match=r"error\.other is not a feature"):
        change_features(sae, torch.zeros(1, 1, 8), [Zero("error.other")])
    others = [Zero(Site("mlp_out", 0))]
    assert feature_interventions(others, [sae]) == others
