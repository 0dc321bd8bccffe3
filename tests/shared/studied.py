"""Tiny pictures, subjects and pairs: what the tests of the studies share."""

from collections.abc import Generator
from dataclasses import replace
from typing import Any, TypeVar

import torch
from PIL import Image
from torch import Tensor

from steerlens.lenses.strength import Strength
from steerlens.progress import Progress, run_to_end
from steerlens.studies.importance.options import ImportanceOptions
from steerlens.studies.shared.folder import rounded
from steerlens.studies.shared.settings import LensSetting
from steerlens.studies.shared.subjects import Subject, SubjectSet
from steerlens.zoo.pair import Pair

_Summary = TypeVar("_Summary")


def picture(seed: int, size: int = 16, channels: int = 3) -> Image.Image:
    """A picture of random pixels."""
    generator = torch.Generator().manual_seed(seed)
    pixels = torch.randint(0, 256, (size, size, channels), generator=generator, dtype=torch.uint8)
    return Image.fromarray(pixels.numpy())


def noise(*shape: int, seed: int = 0) -> Tensor:
    """Random numbers in double precision."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def subject_set(pair: Pair, n_selection: int, n_reported: int, n_reference: int) -> SubjectSet:
    """Random pictures of concepts that the tiny pair knows, each with another picture of its concept."""
    assert pair.vocabulary is not None
    names = pair.vocabulary.names
    made = [Subject(f"p{n}", picture(n), names[n], picture(100 + n)) for n in range(n_selection + n_reported)]
    reference = tuple(picture(200 + n) for n in range(n_reference))
    return SubjectSet(tuple(made[:n_selection]), tuple(made[n_selection:]), reference, "random pictures")


def quick(pair: Pair, steps: int = 1, guidance: float = 1.0) -> Any:
    """Decoding options of few steps."""
    return replace(pair.decoder.spec.defaults, steps=steps, guidance=guidance)


def importance_options(pair: Pair, *, decoding: bool, **studied: Any) -> ImportanceOptions:
    """Options of a small importance study with plain and centred lenses; `studied`: its components, if not heads."""
    plain = LensSetting("steering", Strength("rho", 1.0))
    return ImportanceOptions(
        quick(pair),
        steering=(plain, replace(plain, centred=True)),
        diffusion=(LensSetting("diffusion"), LensSetting("diffusion", centred=True)),
        decoding=decoding,
        **studied,
    )


def finish(events: Generator[Progress, None, _Summary]) -> _Summary:
    """Runs a study to its end; its summary."""

    def check(event: Progress) -> None:
        assert 0 <= event.done <= event.total

    return run_to_end(events, check)


def stored(summary: Any) -> Any:
    """A summary as it comes back from its file."""
    return type(summary).from_json(rounded(summary.to_json()), "summary.json")
