"""Sparse autoencoders: encoding, the identity of a split, refusals."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from steerlens.errors import ModelError, UsageError
from steerlens.saes import (
    EMBEDDING,
    Activation,
    BatchTopK,
    Gated,
    JumpReLU,
    Normalisation,
    ReLU,
    SparseAutoencoder,
    TopK,
    fidelity,
)
from steerlens.saes.normalisation import NormalisationKind
from steerlens.sites import Site

D, F = 12, 40


def random_sae(activation: Activation | None = None, kind: NormalisationKind = "none", **fields: object):
    generator = torch.Generator().manual_seed(0)

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    W_dec = draw(F, D) / D**0.5
    mean = draw(D) if kind == "constant" else None
    sae = SparseAutoencoder(
        "toy",
        Site("resid_post", 3),
        W_dec.T + draw(D, F) / 8,
        W_dec,
        draw(F) / 4,
        draw(D),
        activation or ReLU(),
        normalisation=Normalisation(kind, 0.5 if kind == "constant" else 1.0, mean),
    )
    return replace(sae, **fields)


ACTIVATIONS = {
    "relu": ReLU(),
    "top_k": TopK(5),
    "batch_top_k": BatchTopK(5, 0.8),
    "jump_relu": JumpReLU(torch.linspace(-0.5, 1.5, F)),
    "gated": Gated(torch.linspace(-1, 1, F), torch.linspace(-0.5, 0.5, F)),
}
KINDS: tuple[NormalisationKind, ...] = ("none", "constant", "unit_norm", "layer_norm")


def plain_encode(activation: Activation, row: Tensor, W_enc: Tensor, b_enc: Tensor) -> list[float]:
    """The definition, one feature at a time."""
    before = [float(row @ W_enc[:, i] + b_enc[i]) for i in range(F)]
    if isinstance(activation, TopK):
        kept = sorted(range(F), key=lambda i: -before[i])[: activation.k]
        return [max(before[i], 0.0) if i in kept else 0.0 for i in range(F)]
    if isinstance(activation, BatchTopK):
        return [max(v, 0.0) if v > activation.threshold else 0.0 for v in before]
    if isinstance(activation, JumpReLU):
        return [max(v, 0.0) if v > activation.threshold[i] else 0.0 for i, v in enumerate(before)]
    if isinstance(activation, Gated):
        values: list[float] = []
        for i in range(F):
            projected = float(row @ W_enc[:, i])
            magnitude = projected * float(activation.r_mag[i].exp()) + float(b_enc[i])
            values.append(max(magnitude, 0.0) if projected + float(activation.b_gate[i]) > 0 else 0.0)
        return values
    return [max(v, 0.0) for v in before]


@pytest.mark.parametrize("applies", [False, True])
@pytest.mark.parametrize("name", ACTIVATIONS)
def test_encode_follows_the_definition_of_each_activation(name: str, applies: bool) -> None:
    sae = random_sae(ACTIVATIONS[name], apply_b_dec_to_input=applies)
    x = torch.randn(6, D, generator=torch.Generator().manual_seed(1)) * 2
    rows = x - sae.b_dec if applies else x
    expected = torch.tensor([plain_encode(sae.activation, row, sae.W_enc, sae.b_enc) for row in rows])
    assert 0 < (expected > 0).float().mean() < 1
    torch.testing.assert_close(sae.encode(x), expected, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(sae.decode(expected), expected @ sae.W_dec + sae.b_dec)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ACTIVATIONS)
def test_features_bias_and_error_sum_to_the_value(name: str, kind: NormalisationKind) -> None:
    sae = random_sae(ACTIVATIONS[name], kind)
    x = torch.randn(2, 7, D, generator=torch.Generator().manual_seed(2)) * 3 + 1
    split = sae.split(x)
    total = sae.writes(split).sum(dim=-2) + split.bias + split.error
    torch.testing.assert_close(total, x, atol=1e-5, rtol=0)
    torch.testing.assert_close(sae.sum(split), x, atol=1e-5, rtol=0)
    # The error is what decoding misses, so the parts before it are the autoencoder's own reconstruction.
    torch.testing.assert_close(x - split.error, sae.decode(sae.encode(x), x), atol=1e-5, rtol=1e-5)
    dense = torch.zeros(2, 7, F).scatter_add_(-1, split.indices, split.activations)
    torch.testing.assert_close(dense, sae.encode(x))


def test_a_split_in_several_parts_equals_a_whole_one(monkeypatch: pytest.MonkeyPatch) -> None:
    sae, x = random_sae(), torch.randn(2, 9, D)
    whole = sae.split(x)
    monkeypatch.setattr("steerlens.saes.sae._NUMBERS", 4 * F)
    parts = sae.split(x)
    for name in ("indices", "activations", "multiplier", "bias", "error"):
        torch.testing.assert_close(getattr(parts, name), getattr(whole, name))


def test_a_value_without_active_feature_is_bias_and_error() -> None:
    sae = random_sae(JumpReLU(torch.full((F,), 1e9)))
    split = sae.split(torch.ones(3, D))
    assert split.indices.shape == (3, 0)
    torch.testing.assert_close(sae.sum(split), torch.ones(3, D))


def test_layer_norm_is_undone_at_the_output() -> None:
    sae = random_sae(kind="layer_norm")
    x = torch.randn(4, D) * 5 + 3
    mu, sigma = x.mean(-1, keepdim=True), x.std(-1, keepdim=True)
    bare = replace(sae, normalisation=Normalisation())
    f = bare.encode((x - mu) / (sigma + 1e-5))
    torch.testing.assert_close(sae.encode(x), f)
    torch.testing.assert_close(sae.decode(f, x), (f @ sae.W_dec + sae.b_dec) * sigma + mu)
    with pytest.raises(UsageError, match="needs the values that were encoded"):
        sae.decode(f)


def test_fidelity_of_a_perfect_and_of_a_useless_autoencoder() -> None:
    x = torch.randn(50, D)
    identity = SparseAutoencoder(
        "id",
        EMBEDDING,
        torch.cat([torch.eye(D), -torch.eye(D)], 1),
        torch.cat([torch.eye(D), -torch.eye(D)]),
        torch.zeros(2 * D),
        torch.zeros(D),
        ReLU(),
    )
    perfect = fidelity(identity, x)
    assert perfect.explained_variance == pytest.approx(1) and perfect.cosine == pytest.approx(1)
    assert perfect.l0 == pytest.approx(D) and perfect.dead_share == 0 and not perfect.is_poor
    silent = replace(identity, b_enc=torch.full((2 * D,), -1e6), b_dec=x.mean(0))
    useless = fidelity(silent, x, readout=lambda values: values[:, :3])
    assert useless.explained_variance == pytest.approx(0, abs=1e-5) and useless.l0 == 0
    assert useless.dead_share == 1 and useless.is_poor and useless.after_readout
    with pytest.raises(UsageError, match="at least one value"):
        fidelity(identity, torch.zeros(0, D))


def test_explained_variance_and_l0_follow_their_definitions() -> None:
    sae = random_sae(TopK(3))
    x = torch.randn(4, 5, D)
    rows, measured = x.reshape(-1, D), fidelity(sae, x)
    rebuilt = sae.decode(sae.encode(rows))
    left = (rows - rebuilt).square().sum() / (rows - rows.mean(0)).square().sum()
    assert measured.explained_variance == pytest.approx(float(1 - left), abs=1e-4)
    assert measured.l0 == pytest.approx(float((sae.encode(rows) > 0).sum(1).float().mean()))


def test_identity_changes_with_whatever_changes_the_activations() -> None:
    sae = random_sae()
    same = replace(random_sae(), name="other")
    assert sae.identity == same.identity
    changed = [
        replace(sae, W_enc=sae.W_enc * 1.01),
        replace(sae, activation=TopK(3)),
        replace(sae, site=EMBEDDING),
        replace(sae, apply_b_dec_to_input=True),
        replace(sae, normalisation=Normalisation("layer_norm")),
    ]
    assert len({sae.identity, *(other.identity for other in changed)}) == 6


def test_bad_weights_are_refused_by_name() -> None:
    sae = random_sae()
    nan = sae.b_enc.clone()
    nan[3] = float("nan")
    for fields, words in (
        ({"b_enc": nan}, "b_enc holds values that are NaN"),
        ({"W_dec": sae.W_dec.T}, r"W_dec has shape \(12, 40\), where W_enc of shape \(12, 40\) calls for \(40, 12\)"),
        ({"activation": TopK(F + 1)}, "keeps 41 features of 40"),
        ({"activation": JumpReLU(torch.zeros(3))}, r"threshold has shape \(3,\) for 40 features"),
    ):
        with pytest.raises(ModelError, match=words):
            replace(sae, **fields)
    with pytest.raises(UsageError, match="is not a place that it can read"):
        replace(sae, site=Site("vector", name="x"))
    with pytest.raises(UsageError, match=r"head_values cannot be read at resid_post\.3"):
        replace(sae, space="head_values")
    with pytest.raises(UsageError, match=r"reads values of width 12, not \(13,\)"):
        sae.encode(torch.zeros(2, 13))
    with pytest.raises(UsageError, match="there is no feature 40"):
        sae.feature(40)
