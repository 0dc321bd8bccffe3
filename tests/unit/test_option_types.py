"""Options from Python programs: converted to the types that they are declared with, or refused by name."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch

from steerlens.decoders.options import DecodeOptions
from steerlens.errors import UsageError
from steerlens.option_types import convert_options
from steerlens.sweep.options import LookOptions


@dataclass(frozen=True)
class Several:
    texts: tuple[str, ...] = ()
    counts: tuple[int, ...] = ()
    sizes: tuple[tuple[int, int], ...] = ()
    mixed: tuple[float | None, ...] = ()

    def __post_init__(self) -> None:
        convert_options(self)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("texts", "several texts"),
        ("counts", "several whole numbers"),
        ("sizes", r"several, each \(a whole number, a whole number\)"),
        ("mixed", "several, each a number or None"),
    ],
)
def test_options_of_several_values_name_their_type(name: str, words: str) -> None:
    with pytest.raises(UsageError, match=f"{name} takes {words}, not 'x'"):
        Several(**{name: "x"})  # type: ignore[arg-type]


def test_whole_numbers_of_other_libraries_and_lists_become_plain_values() -> None:
    options = LookOptions(n_seeds=np.int64(2), steps=torch.tensor(3), guidance_interval=[0, np.float32(0.5)])  # type: ignore[arg-type]
    assert (options.n_seeds, options.steps, options.guidance_interval) == (2, 3, (0, 0.5))
    assert [type(value) for value in (options.n_seeds, options.steps)] == [int, int]
    assert type(options.guidance_interval) is tuple and type(options.guidance_interval[1]) is float
    assert LookOptions(guidance=4).guidance == 4 and LookOptions(effect=["direct", "total"]).effect == (
        "direct",
        "total",
    )  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("n_seeds", 1.5, "n_seeds takes a whole number, not 1.5"),
        ("n_seeds", "2", "a whole number, not '2'"),
        ("controls", True, "a whole number, not True"),
        ("seed", None, "a whole number, not None"),
        ("steps", 2.0, "a whole number or None"),
        ("guidance", "4", "a number or None, not '4'"),
        ("guidance_interval", 0.5, r"\(a number, a number\) or None"),
        ("guidance_interval", (0.5,), r"\(a number, a number\)"),
        ("cache", "yes", "True or False, not 'yes'"),
        ("lenses", None, "several texts"),
        ("decode", 3, "a text, not 3"),
        ("scheduler", 1, "a text or None"),
    ],
)
def test_values_of_another_type_are_refused_by_name(name: str, value: Any, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        LookOptions(**{name: value})


def test_options_of_a_decoder_are_checked_too() -> None:
    with pytest.raises(UsageError, match=r"steps takes a whole number, not 2\.5"):
        DecodeOptions(steps=2.5, guidance=1.0, scheduler="ddim", size=(8, 8))  # type: ignore[arg-type]
    with pytest.raises(UsageError, match=r"size takes \(a whole number, a whole number\)"):
        DecodeOptions(steps=2, guidance=1.0, scheduler="ddim", size=8)  # type: ignore[arg-type]
