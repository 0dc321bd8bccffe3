"""Warnings about inputs outside the domain of the pair, in words."""

from collections.abc import Iterator

from steerlens.atlas import Atlas
from steerlens.zoo import models_for_photographs


def domain_warnings(atlas: Atlas) -> Iterator[tuple[str, str, str]]:
    """Yields name, reason and id of every input that lies outside the domain of the pair."""
    for reading in atlas.readings:
        check = atlas.domain(reading.id)
        if check is not None and check.outside:
            yield reading.picture.name, str(check), reading.id


def outside_words(name: str, model: str) -> str:
    """Says that an input lies outside the domain of a model."""
    return (
        f"{name} is unlike the pictures that {model} was trained on. Its reconstruction, its labels and every picture "
        "of its heads show what the model makes of a picture it does not know."
    )


def advice(model: str) -> str:
    """Names models that suit photographs, and the way without a generator."""
    photographs = models_for_photographs(but=model)[:3]
    named = f"For photographs, take --model {' or '.join(photographs)}; or show" if photographs else "Show"
    return (
        f"{named} the nearest of your own pictures, without a generator: steerlens neighbours index PICTURES "
        "--encoder ENCODER. The command steerlens models says what each model was trained on."
    )
