"""The plan: which cells a request becomes."""

import pytest

from steerlens.atlas.plan import Cell, Plan, RepeatedCells, clean_site, compact, grouped, make_plan
from steerlens.errors import UsageError
from steerlens.lenses.strength import Strength
from steerlens.runs.manifest import plan_from_json, plan_to_json
from steerlens.sites import Site, all_heads, layer_sites

RHO = Strength("rho", 1.0)


def plan(**changes: object) -> Plan:
    request = {"pictures": ["a"], "sites": (*layer_sites("resid_post", 3), *all_heads(3, 2)), "n_layers": 3}
    return make_plan(**{**request, "strength": RHO, **changes})  # type: ignore[arg-type]


def test_every_head_is_planned_under_both_lenses_and_with_a_control() -> None:
    cells = plan().cells
    by_lens = {
        lens: [cell.site for cell in cells if cell.lens == lens] for lens in ("diffusion", "steering", "control")
    }
    assert by_lens["diffusion"] == [*layer_sites("resid_post", 3), *all_heads(3, 2)]
    assert by_lens["steering"] == by_lens["control"] == list(all_heads(3, 2))


def test_the_clean_reconstruction_is_the_last_layer_and_planned_once() -> None:
    clean = Cell("a", "diffusion", clean_site(3), None, 0)
    assert plan().cells.count(clean) == 1
    assert plan(sites=all_heads(3, 2), lenses=("steering",)).cells[0] == clean


def test_the_residual_stream_is_never_steered() -> None:
    steered = [cell for cell in plan().cells if cell.lens == "steering"]
    assert steered
    assert all(cell.site.is_write for cell in steered)


def test_equal_cells_are_planned_once() -> None:
    sites = (Site("head", 0, 0), Site("head", 0, 0))
    cells = plan(sites=sites, pictures=["a", "a"]).cells
    assert len(set(cells)) == len(cells) == 4


def test_seeds_and_controls_multiply() -> None:
    assert len(plan(sites=all_heads(3, 2), seeds=(0, 1), controls=3)) == 2 * (1 + 6 + 6 + 18)
    assert not [cell for cell in plan(controls=0).cells if cell.lens == "control"]


def test_keys_are_unique_and_come_back_from_json() -> None:
    full = plan(seeds=(3, 4), strength=Strength("s", 2.123456789), pictures=["a", "b"])
    assert len({cell.key for cell in full.cells}) == len(full)
    assert plan_from_json(plan_to_json(full)) == full


def test_the_residual_stream_under_the_steering_lens_alone_is_refused() -> None:
    with pytest.raises(UsageError, match="can steer"):
        plan(sites=layer_sites("resid_post", 3), lenses=("steering",))


@pytest.mark.parametrize("wrong", [{"pictures": []}, {"sites": ()}, {"seeds": ()}, {"controls": -1}])
def test_a_request_for_nothing_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(UsageError):
        plan(**wrong)


def test_cells_are_made_a_picture_at_a_time_and_named_once_in_json() -> None:
    full = plan(pictures=[str(number) for number in range(1000)], seeds=(0, 1))
    assert isinstance(full.cells, RepeatedCells)
    each = len(plan(seeds=(0, 1)))
    assert len(full) == 1000 * each and len(plan_to_json(full)["cells"]) == len(full.cells.each) == each
    by_hand = tuple(full.cells)
    assert full.cells[each] == by_hand[each] and full.cells[-1] == by_hand[-1]
    assert full.cells[each - 2 : each + 2] == by_hand[each - 2 : each + 2]
    assert dict(full.by_picture()) == grouped(by_hand)
    assert full.of("7") == grouped(by_hand)["7"] == Plan(by_hand, RHO, (0, 1), 3).of("7")
    with pytest.raises(IndexError):
        full.cells[len(full)]


def test_a_plan_of_earlier_versions_that_names_every_cell_is_the_same_plan() -> None:
    full = plan(pictures=["a", "b"])
    before = {**plan_to_json(full), "cells": [cell.key for cell in full.cells]}
    del before["pictures"]
    assert plan_to_json(plan_from_json(before)) == plan_to_json(full)
    # pictures with cells of their own, as a merge makes them, keep their list
    ragged = Plan((*full.cells[:3], *full.cells[-4:]), RHO, (0,), 3)
    assert plan_from_json(plan_to_json(ragged)) == ragged
    assert compact(ragged.cells) is ragged.cells
    mixed = (full.of("a")[0], full.of("b")[0], full.of("a")[1], full.of("b")[1])
    assert compact(mixed) is mixed
