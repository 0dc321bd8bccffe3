"""Areas and choices of the overlay study, on trajectories that are made up."""

from dataclasses import replace

import pytest
import torch

from steerlens.studies.overlay.areas import RANDOM, Trajectories, quantity
from steerlens.studies.overlay.joint import RANDOM_ORDERS, REFERENCE, area, points, random_orders
from steerlens.studies.overlay.measure import strip_columns
from steerlens.studies.overlay.orders import choose, choose_all
from steerlens.studies.overlay.parts import OverlayPart, TrajectoryPart
from steerlens.studies.shared.settings import LensSetting
from steerlens.studies.shared.stats import mean_estimate


def test_points_and_areas() -> None:
    for n_heads in (1, 6, 12, 72, 768):
        counts = points(n_heads)
        quarter = max(1, n_heads // 4)
        assert counts[0] == 0 and counts[-1] == n_heads and quarter in counts and len(counts) <= 22
        assert list(counts) == sorted(set(counts))
        assert [counts[place] for place in strip_columns(counts)][-2:] == [quarter, n_heads]
        straight = torch.tensor(counts, dtype=torch.float32) / quarter
        # A drop that grows in proportion has half of its final value as its mean, however the points lie.
        assert area(1 - straight, counts) == pytest.approx(0.5)
        assert area(torch.zeros(len(counts)), counts) == 0


def made_trajectories(n_pairs: int = 6) -> Trajectories:
    """Pairs whose embeddings go from the overlay to the base at the speed that an order is given."""
    counts, generator = points(48), torch.Generator().manual_seed(5)
    parts, ways = list[OverlayPart](), list[TrajectoryPart]()
    none = torch.zeros(48)
    for _ in range(n_pairs):
        base, overlay = torch.randn(2, 16, generator=generator)
        speeds = {REFERENCE: 3.0, "fast|overlay": 2.0, "slow|overlay": 0.7}
        speeds |= {f"random {n}": 0.8 + 0.4 * float(torch.rand(1, generator=generator)) for n in range(RANDOM_ORDERS)}
        share = torch.tensor(counts) / 48
        ways.append(
            TrajectoryPart(
                {
                    name: overlay + (base - overlay) * (1 - (1 - share) ** speed)[:, None]
                    for name, speed in speeds.items()
                }
            )
        )
        parts.append(OverlayPart(overlay, base, overlay, torch.zeros(16), none, none.long(), none, none))
    return Trajectories(parts, ways, counts)


def test_the_reference_gets_one_and_random_orders_nought() -> None:
    made = made_trajectories()
    assert made.normalised(REFERENCE) == pytest.approx(1)
    assert made.normalised(RANDOM) == pytest.approx(0)
    each = [made.normalised(f"random {n}") for n in range(RANDOM_ORDERS)]
    assert sum(each) / len(each) == pytest.approx(0, abs=1e-6) and min(each) < 0 < max(each)
    fast = made.normalised_estimate("fast|overlay")
    assert 0.4 < fast.low <= fast.value <= fast.high < 1 and fast.excludes_zero
    assert made.normalised("slow|overlay") < 0
    same = made.normalised_estimate("fast|overlay", less="fast|overlay")
    assert (same.value, same.low, same.high) == (0, 0, 0)
    apart = made.normalised_estimate("fast|overlay", less="slow|overlay")
    assert apart.value == pytest.approx(fast.value - made.normalised("slow|overlay"), abs=1e-6)
    line = made.curve("fast|overlay", "projection")
    assert line.values[0] == pytest.approx(1) and line.values[-1] == pytest.approx(0, abs=1e-6)
    assert all(low <= value <= high for low, value, high in zip(line.low, line.values, line.high, strict=True))


def test_the_choice_goes_to_the_order_that_removes_most() -> None:
    made = made_trajectories()

    class Named(LensSetting):
        def __str__(self) -> str:
            return "fast" if self.centred else "slow"

    settings = [Named("diffusion"), Named("diffusion", centred=True)]
    choice = choose(made, settings, ("overlay",))
    assert choice.setting.centred and choice.compare == "overlay" and len(choice.candidates) == 2
    assert choice.area == pytest.approx(made.normalised("fast|overlay"))
    # What decodes badly may be the better one undecoded: each is chosen by its own scores.
    ways = [
        TrajectoryPart(
            {
                **way.embeddings,
                "slow|overlay|asked": way.embeddings["fast|overlay"],
                "fast|overlay|asked": way.embeddings["slow|overlay"],
            }
        )
        for way in made.trajectories
    ]
    turned = replace(made, trajectories=ways)
    both = choose_all(turned, {"diffusion": settings}, ("overlay",))
    assert both["diffusion"].setting.centred and not both["diffusion, not decoded"].setting.centred
    assert both["diffusion"].candidates.keys() == both["diffusion, not decoded"].candidates.keys()


def test_a_curve_is_the_studies_own_bootstrap_point_by_point() -> None:
    made = made_trajectories()
    line = made.curve("fast|overlay", "projection", draws=50, seed=3)
    each = torch.stack(
        [
            quantity(part, way.embeddings["fast|overlay"], "projection")
            for part, way in zip(made.parts, made.trajectories, strict=True)
        ]
    )
    for place in (0, 3, 8):
        found = mean_estimate(each[:, [place]], made.pair_names, draws=50, seed=3, heads=False)
        assert (line.values[place], line.low[place], line.high[place]) == (found.value, found.low, found.high)


def test_random_orders_are_each_pairs_own() -> None:
    first, again, other = (random_orders(12, seed) for seed in ("0 a", "0 a", "0 b"))
    assert first == again != other and len(first) == RANDOM_ORDERS
    assert all(sorted(order) == list(range(12)) for order in first.values())
    assert len({tuple(order) for order in first.values()}) > 1
