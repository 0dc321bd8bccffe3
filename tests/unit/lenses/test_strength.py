"""Steering strength, and what the Steering Lens refuses."""

from fractions import Fraction
from typing import Any

import numpy as np
import pytest
import torch

from steerlens.errors import UsageError
from steerlens.lenses.controls import steer_directions
from steerlens.lenses.diffusion import DiffusionLens
from steerlens.lenses.steering import SteeringLens, steer_and_patch
from steerlens.lenses.strength import Strength, visible_norm
from steerlens.sites import Site
from steerlens.testing.tiny import tiny_encoder


@pytest.mark.parametrize("value", [np.float64(0.5), np.float32(0.5), Fraction(1, 2)], ids=repr)
def test_numbers_of_other_libraries_are_kept_as_plain_ones(value: Any) -> None:
    strength = Strength("rho", value)
    assert type(strength.value) is float and strength == Strength.parse(str(strength)) == Strength("rho", 0.5)
    assert str(Strength("s", np.float64(1 / 3))) == f"s={1 / 3!r}"


def test_a_whole_number_too_large_for_floating_point_is_refused() -> None:
    with pytest.raises(UsageError, match="at most 1e\\+09"):
        Strength("s", 10**400)


@pytest.mark.parametrize(
    ("text", "strength"),
    [
        (" rho=-0.5 ", Strength("rho", -0.5)),
        ("rho=2", Strength("rho", 2.0)),
        ("rho:2", Strength("rho", 2.0)),
        ("s=40", Strength("s", 40.0)),
        ("s=-3e2", Strength("s", -300.0)),
    ],
)
def test_a_strength_is_read_from_text(text: str, strength: Strength) -> None:
    assert Strength.parse(text) == strength
    assert Strength.parse(str(strength)) == strength


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("strong", "'strong' is not a strength; write rho=1 or s=40"),
        ("", "is not a strength"),
        ("s=", "is not a strength"),
        ("t=3", "unknown kind of strength 't'; it is s or rho"),
        ("=3", "unknown kind of strength ''"),
        ("s=inf", "a finite number, not inf"),
        ("s=1e19", "would overflow single precision"),
        ("rho=-1e18", "would overflow single precision"),
        ("nan", "write s=nan .* or rho=nan"),
        ("40", r"could be a factor or a relative strength; write s=40 .* or rho=40 "),
    ],
)
def test_a_text_that_is_no_strength_is_refused(text: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        Strength.parse(text)


def test_the_visible_norm_leaves_the_mean_out_only_before_a_layer_norm() -> None:
    vectors = torch.tensor([[[3.0, 4.0]], [[5.0, 5.0]]])
    torch.testing.assert_close(visible_norm(vectors, centred=True), torch.tensor([0.5**0.5, 0.0]))
    torch.testing.assert_close(visible_norm(vectors, centred=False), torch.tensor([5.0, 50**0.5]))


def test_a_write_of_no_size_is_not_steered_under_rho_and_nothing_is_divided_by_it() -> None:
    residual, write = torch.ones(1, 1, 4).cumsum(-1), torch.zeros(1, 1, 4)
    assert Strength("rho", 2.0).coefficient(residual, write, centred=True).tolist() == [0.0]
    assert Strength("s", 3.0).coefficient(residual, write, centred=True).tolist() == [2.0]


@pytest.mark.parametrize("level", [0.1, 1.0, 123.456])
def test_a_direction_that_the_norm_removes_is_no_direction_whatever_its_rounding(level: float) -> None:
    constant = torch.full((1, 1, 192), level)  # 0.1 has no exact mean in float32: what is left is rounding
    assert Strength("rho", 1.0).coefficient(torch.ones(1, 1, 192).cumsum(-1), constant, centred=True).tolist() == [0.0]
    assert Strength("rho", 1.0).coefficient(constant, constant, centred=False).tolist() == [1.0]
    encoder = tiny_encoder()
    lens = SteeringLens(encoder, "rho=1", {"flat": torch.full((16,), level)})
    with pytest.raises(UsageError, match="'flat' has the same number on every coordinate"):
        lens.embeddings(encoder.trace(torch.zeros(1, 3, 16, 16)), "vector.flat")


@pytest.mark.parametrize("strength", ["s=1e9", "rho=1e9", "rho=-1e9"])
def test_the_largest_strengths_still_tend_to_the_diffusion_lens(strength: str) -> None:
    encoder = tiny_encoder()
    trace = encoder.trace(torch.randn(1, 3, 16, 16, generator=torch.Generator().manual_seed(0)))
    limit = SteeringLens(encoder, "rho=1e4" if "-" not in strength else "rho=-1e4").embeddings(trace, "heads")
    got = SteeringLens(encoder, strength).embeddings(trace, "heads")
    torch.testing.assert_close(got, limit, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("value", ["40", None, True, [1.0]])
def test_a_strength_is_a_number(value: Any) -> None:
    with pytest.raises(UsageError, match="a strength is a finite number"):
        Strength("s", value)


def test_the_reported_rho_is_signed_as_its_definition_is() -> None:
    encoder = tiny_encoder()
    trace = encoder.trace(torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(0)))
    sites = [Site("head", 1, 0), Site("mlp_out", 2)]
    for s in (-3.0, 0.0, 1.0, 4.0):
        lens = SteeringLens(encoder, Strength("s", s))
        got = lens.relative_strength(trace, sites)
        writes, final = trace.stack(sites)[:, :, 0], trace.final[:, None, 0]
        centred = [vectors - vectors.mean(dim=-1, keepdim=True) for vectors in (writes, final)]
        torch.testing.assert_close(got, (s - 1) * centred[0].norm(dim=-1) / centred[1].norm(dim=-1))
        again = steer_directions(encoder, trace, trace.stack(sites), got)
        torch.testing.assert_close(again, lens.embeddings(trace, sites), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("epsilon", [0.0, 1e-5, 0.05])
def test_the_limit_of_large_factors_is_the_diffusion_lens_up_to_epsilon(epsilon: float) -> None:
    encoder = tiny_encoder()
    norm: Any = encoder.linear_after
    constant = encoder.readout(torch.zeros(1, 1, 16))  # the biases of norm and projection
    norm.eps = epsilon
    trace = encoder.trace(torch.randn(1, 3, 16, 16, generator=torch.Generator().manual_seed(0)))
    site = Site("head", 1, 0)
    write = trace.at(site)[:, 0]
    far = SteeringLens(encoder, Strength("s", 1e6)).embeddings(trace, [site])[:, 0]
    torch.testing.assert_close(far, encoder.readout(1e6 * write[:, None]), rtol=1e-3, atol=1e-5)
    shown = DiffusionLens(encoder).embeddings(trace, [site])[:, 0]
    variance = write.var(dim=-1, correction=0, keepdim=True)
    factor = (variance / (variance + epsilon)).sqrt()
    torch.testing.assert_close(shown - constant, factor * (far - constant), rtol=1e-3, atol=1e-5)
    assert (factor == 1) == (epsilon == 0)


def test_several_readout_tokens_share_one_coefficient() -> None:
    residual, write = torch.randn(2, 3, 4, 8), torch.randn(2, 3, 4, 8)
    assert Strength("rho", 1.0).coefficient(residual, write, centred=True).shape == (2, 3)


@pytest.mark.parametrize("text", ["embed", "resid_pre.0", "resid_mid.1", "resid_post.2"])
def test_the_residual_stream_itself_is_not_steered(text: str) -> None:
    encoder = tiny_encoder()
    pixels = torch.zeros(1, 3, 16, 16)
    lens = SteeringLens(encoder, Strength("rho", 1.0))
    with pytest.raises(UsageError, match="holds the residual stream, which the Diffusion Lens shows"):
        lens.embeddings(encoder.trace(pixels), [Site.parse(text)])
    with pytest.raises(UsageError, match="cannot be steered"):
        steer_and_patch(encoder, pixels, Site.parse(text), 2.0)


@pytest.mark.parametrize("make", [DiffusionLens, lambda *given: SteeringLens(given[0], Strength("s", 2.0), *given[1:])])
def test_a_direction_that_is_not_there_or_too_wide_is_refused(make: type[DiffusionLens]) -> None:
    encoder = tiny_encoder()
    trace = encoder.trace(torch.zeros(1, 3, 16, 16))
    probe = Site("vector", name="probe")
    with pytest.raises(UsageError, match="no direction is called 'probe'; known: none was given"):
        make(encoder).embeddings(trace, [probe])
    with pytest.raises(UsageError, match="known: a, b"):
        make(encoder, {"b": torch.zeros(16), "a": torch.zeros(16)}).embeddings(trace, [probe])
    with pytest.raises(UsageError, match=r"'probe' has shape \(17,\); this encoder's width is 16"):
        make(encoder, {"probe": torch.zeros(17)}).embeddings(trace, [probe])
    for zero in (torch.zeros(16), torch.full((16,), float("nan"))):
        with pytest.raises(UsageError, match="'probe' is zero or not finite"):
            make(encoder, {"probe": zero}).embeddings(trace, [probe])
    with pytest.raises(UsageError, match="'probe' is a ndarray: directions are tensors"):
        make(encoder, {"probe": torch.ones(16).numpy()}).embeddings(trace, [probe])  # type: ignore[dict-item]
    with pytest.raises(UsageError, match="no site was requested"):
        make(encoder).embeddings(trace, [])


def test_the_definition_needs_the_tensor_of_a_direction() -> None:
    with pytest.raises(UsageError, match=r"vector\.probe was given no direction"):
        steer_and_patch(tiny_encoder(), torch.zeros(1, 3, 16, 16), Site("vector", name="probe"), 2.0)


def test_a_control_is_steered_exactly_as_hard_as_it_is_told() -> None:
    encoder = tiny_encoder()
    trace = encoder.trace(torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(0)))
    directions = torch.randn(2, 3, 1, 16, generator=torch.Generator().manual_seed(1))
    rho = torch.tensor([[0.0, 0.5, -2.0], [1.0, 3.0, 0.1]])
    got = steer_directions(encoder, trace, directions, rho)
    for picture in range(2):
        for index in range(3):
            lens = SteeringLens(
                encoder, Strength("rho", float(rho[picture, index])), {"d": directions[picture, index, 0]}
            )
            wanted = lens.embeddings(trace, [Site("vector", name="d")])[picture, 0]
            torch.testing.assert_close(got[picture, index], wanted, rtol=1e-5, atol=1e-5)


def test_a_control_of_no_size_is_the_clean_embedding() -> None:
    encoder = tiny_encoder()
    trace = encoder.trace(torch.randn(1, 3, 16, 16, generator=torch.Generator().manual_seed(0)))
    got = steer_directions(encoder, trace, torch.zeros(1, 1, 1, 16), torch.ones(1, 1))
    torch.testing.assert_close(got[:, 0], trace.embedding)


def test_steered_residuals_of_a_half_precision_model_are_held_in_float32() -> None:
    encoder = tiny_encoder(dtype=torch.bfloat16)
    trace = encoder.trace(torch.zeros(1, 3, 16, 16, dtype=torch.bfloat16))
    lens = SteeringLens(encoder, Strength("s", 1.001))
    assert lens.residuals(trace, [Site("head", 0, 0)]).dtype == torch.float32
    assert lens.embeddings(trace, [Site("head", 0, 0)]).dtype == torch.bfloat16
