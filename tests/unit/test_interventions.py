"""Interventions: what is refused with which words, and that no hook outlives its forward pass."""

from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from steerlens.encoders.clip import CLIPEncoder
from steerlens.encoders.hooks import Hook, registered
from steerlens.errors import UsageError
from steerlens.interventions import Add, Intervention, Mean, Patch, Resample, Scale, Zero
from steerlens.sites import Site
from steerlens.testing.tiny import tiny_encoder

PLACE = Site("resid_post", 1)
D, T = 16, 5


@cache
def setting() -> tuple[CLIPEncoder, Tensor]:
    return tiny_encoder(), torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("kind", [Add, Mean, Resample, Patch])
def test_an_intervention_that_needs_a_tensor_says_so(kind: type[Intervention]) -> None:
    encoder, pixels = setting()
    with pytest.raises(UsageError, match=rf"{kind.__name__} at resid_post\.1 was given no tensor"):
        encoder.embed(pixels, [kind(PLACE)])


@pytest.mark.parametrize("shape", [(D + 1,), (3, D), (3, T, D), (2, T + 1, D), (1, 2, T, D), (2, T, 1, D)], ids=str)
@pytest.mark.parametrize("kind", [Add, Mean, Resample, Patch])
def test_a_tensor_that_does_not_fit_is_refused_with_both_shapes(kind: Any, shape: tuple[int, ...]) -> None:
    encoder, pixels = setting()
    with pytest.raises(UsageError, match=r"does not fit the site's \(pictures, tokens, width\) = \(2, 5, 16\)"):
        encoder.embed(pixels, [kind(PLACE, None, torch.zeros(shape))])


def test_a_tensor_is_held_against_the_chosen_tokens() -> None:
    encoder, pixels = setting()
    encoder.embed(pixels, [Patch(PLACE, (0, 2), torch.zeros(2, D))])
    with pytest.raises(UsageError, match=r"= \(2, 2, 16\)"):
        encoder.embed(pixels, [Patch(PLACE, (0, 2), torch.zeros(T, D))])


@pytest.mark.parametrize("factor", [torch.ones(3), torch.ones(2, 1), torch.ones(0)])
def test_factors_that_are_not_one_a_picture_are_refused(factor: Tensor) -> None:
    encoder, pixels = setting()
    with pytest.raises(UsageError, match="do not fit 2 pictures; give one number, or one per picture"):
        encoder.embed(pixels, [Scale(PLACE, factor=factor)])


@pytest.mark.parametrize(
    ("intervention", "message"),
    [
        (Zero(Site("resid_post", 3)), "the model has 3 layers, 0 to 2"),
        (Zero(Site("head", 0, 2)), "the model has heads 0 to 1"),
        (Zero(PLACE, tokens=(0, T)), r"resid_post\.1: the model has 5 tokens a picture"),
        (Zero(PLACE, tokens=(-T - 1,)), "the model has 5 tokens"),
        (Zero(Site("vector", name="x")), r"vector\.x is a direction, not a place in the model: use Add"),
        (Zero(Site("feature", name="x", index=1)), r"feature\.x\.1 is part of a sparse autoencoder"),
    ],
)
def test_a_place_that_the_model_does_not_have_is_refused(intervention: Intervention, message: str) -> None:
    encoder, pixels = setting()
    for call in (encoder.embed, lambda inputs, given: encoder.record(inputs, [PLACE], given)):
        with pytest.raises(UsageError, match=message):
            call(pixels, [intervention])
    assert hook_count(encoder) == 0


def test_recording_a_direction_is_refused() -> None:
    encoder, pixels = setting()
    with pytest.raises(UsageError, match="is a vector, not a place"):
        encoder.record(pixels, [PLACE, Site("vector", name="x")])
    assert hook_count(encoder) == 0


def test_the_base_class_changes_nothing_by_itself_and_cannot_be_used() -> None:
    encoder, pixels = setting()
    with pytest.raises(NotImplementedError, match="Intervention"):
        encoder.embed(pixels, [Intervention(PLACE)])


@pytest.mark.parametrize(
    "text", ["embed", "resid_pre.1", "resid_mid.1", "resid_post.1", "attn_out.1", "mlp_out.1", "head.1.1"]
)
def test_no_hook_outlives_a_forward_pass_that_succeeds_or_fails(text: str) -> None:
    encoder, pixels = setting()
    site, clean = Site.parse(text), encoder.embed(pixels)
    encoder.embed(pixels, [Zero(site)])
    assert hook_count(encoder) == 0
    encoder.record(pixels, [site], [Zero(site)])
    assert hook_count(encoder) == 0
    with pytest.raises(UsageError):
        encoder.embed(pixels, [Zero(site), Add(site)])
    assert hook_count(encoder) == 0
    assert torch.equal(encoder.embed(pixels), clean)


def test_hooks_registered_before_a_registration_that_fails_are_removed() -> None:
    layer = nn.Linear(2, 2)

    def registrations() -> Any:
        yield Hook(layer, "after", lambda *_: None)
        raise RuntimeError("second registration")

    with pytest.raises(RuntimeError, match="second registration"), registered(registrations()):
        pytest.fail("the block must not be entered")
    assert not layer._forward_hooks


def test_the_callers_own_hooks_stay() -> None:
    encoder, pixels = setting()
    seen: list[str] = []
    handle = encoder.model.vision_model.encoder.layers[1].register_forward_hook(lambda *_: seen.append("own"))
    encoder.embed(pixels, [Zero(PLACE)])
    encoder.trace(pixels)
    encoder.embed(pixels)
    handle.remove()
    assert seen == ["own"] * 3


def test_tensors_of_another_precision_are_taken_in_the_models() -> None:
    encoder, pixels = setting()
    vector = torch.randn(D, generator=torch.Generator().manual_seed(0))
    got = encoder.embed(pixels, [Add(PLACE, vector=vector.double())])
    assert got.dtype == torch.float32
    assert torch.equal(got, encoder.embed(pixels, [Add(PLACE, vector=vector)]))


def test_arrays_are_taken_like_tensors() -> None:
    encoder, pixels = setting()
    vector = torch.randn(D, generator=torch.Generator().manual_seed(0))
    for plain, array in (
        (Add(PLACE, vector=vector), Add(PLACE, vector=vector.numpy())),  # type: ignore[arg-type]
        (Scale(PLACE, factor=torch.tensor([2.0, 3.0])), Scale(PLACE, factor=np.array([2.0, 3.0], np.float32))),  # type: ignore[arg-type]
    ):
        assert torch.equal(encoder.embed(pixels, [plain]), encoder.embed(pixels, [array]))


@pytest.mark.parametrize("tokens", [0, (True, False), torch.tensor([True, False]), (1.0,), "0"], ids=str)
def test_tokens_are_positions_and_no_mask(tokens: Any) -> None:
    with pytest.raises(UsageError, match="tokens are positions, such as"):
        Zero(PLACE, tokens=tokens)
    assert Zero(PLACE, tokens=torch.tensor([0, 2])).tokens == (0, 2)  # type: ignore[arg-type]


@pytest.mark.parametrize("value", ["2", [2.0], 2.0])
def test_values_that_are_no_tensors_are_refused(value: Any) -> None:
    with pytest.raises(UsageError, match=r"Add at resid_post\.1 takes a tensor"):
        Add(PLACE, vector=value)
    if not isinstance(value, float):
        with pytest.raises(UsageError, match=r"Scale at resid_post\.1 takes a number or a tensor"):
            Scale(PLACE, factor=value)


def test_a_number_is_no_vector_of_the_residual_stream() -> None:
    encoder, pixels = setting()
    for given in (torch.tensor(1.0), torch.ones(1), torch.ones(2, 5, 1)):
        with pytest.raises(UsageError, match="does not fit the site"):
            encoder.embed(pixels, [Add(PLACE, vector=given)])


def test_a_factor_of_nan_is_not_hidden() -> None:
    encoder, pixels = setting()
    assert encoder.embed(pixels, [Scale(PLACE, factor=float("nan"))]).isnan().all()


def hook_count(encoder: CLIPEncoder) -> int:
    return sum(len(module._forward_hooks) + len(module._forward_pre_hooks) for module in encoder.model.modules())
