"""Steering strength: the identities that link `s` and `rho`, for any residual and write."""

import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from steerlens.lenses.strength import Strength, visible_norm

seeds = st.integers(0, 2**31)
factors = st.floats(-1000, 1000, allow_nan=False)
relative = st.floats(-50, 50, allow_nan=False)


def vectors(seed: int, scale: float = 1.0, width: int = 8) -> Tensor:
    return scale * torch.randn(3, 2, width, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@given(seeds, factors, st.booleans())
def test_the_rho_of_a_factor_steers_as_far_as_the_factor(seed: int, s: float, centred: bool) -> None:
    residual, write = vectors(seed), vectors(seed + 1)
    coefficient = Strength("s", s).coefficient(residual, write, centred=centred)
    torch.testing.assert_close(coefficient, torch.full((3,), s - 1, dtype=torch.float64))
    rho = coefficient * visible_norm(write, centred=centred) / visible_norm(residual, centred=centred)
    for row in range(3):
        back = Strength("rho", float(rho[row])).coefficient(residual, write, centred=centred)[row]
        torch.testing.assert_close(back, coefficient[row], rtol=1e-9, atol=1e-9)


@given(seeds, relative, st.booleans(), st.floats(1e-6, 1e6))
def test_rho_is_the_relative_norm_of_what_is_added(seed: int, rho: float, centred: bool, scale: float) -> None:
    residual, write = vectors(seed), vectors(seed + 1, scale)
    added = Strength("rho", rho).coefficient(residual, write, centred=centred)[:, None, None] * write
    size = visible_norm(added, centred=centred) / visible_norm(residual, centred=centred)
    torch.testing.assert_close(size, torch.full((3,), abs(rho), dtype=torch.float64), rtol=1e-9, atol=1e-12)


@given(seeds, relative, st.floats(1e-3, 1e3))
def test_under_rho_the_size_of_a_write_does_not_matter(seed: int, rho: float, scale: float) -> None:
    residual, write = vectors(seed), vectors(seed + 1)
    strength = Strength("rho", rho)
    plain = strength.coefficient(residual, write, centred=True)[:, None, None] * write
    scaled = strength.coefficient(residual, scale * write, centred=True)[:, None, None] * (scale * write)
    torch.testing.assert_close(scaled, plain, rtol=1e-9, atol=1e-9)


@given(seeds, relative, st.floats(-10, 10))
def test_a_shift_of_all_of_the_width_is_not_seen_before_a_layer_norm(seed: int, rho: float, shift: float) -> None:
    residual, write = vectors(seed), vectors(seed + 1)
    strength = Strength("rho", rho)
    torch.testing.assert_close(
        strength.coefficient(residual + shift, write - shift, centred=True),
        strength.coefficient(residual, write, centred=True),
    )


@given(relative, seeds)
def test_rho_is_linear(rho: float, seed: int) -> None:
    residual, write = vectors(seed), vectors(seed + 1)
    once = Strength("rho", 1.0).coefficient(residual, write, centred=True)
    torch.testing.assert_close(Strength("rho", rho).coefficient(residual, write, centred=True), rho * once)


@given(st.sampled_from(["s", "rho"]), st.integers(-99_999, 99_999), st.integers(0, 6))
def test_a_strengths_text_form_names_it_again(kind: str, digits: int, decimals: int) -> None:
    strength = Strength(kind, digits / 10**decimals)  # type: ignore[arg-type]
    assert Strength.parse(str(strength)) == strength
