"""The page of all models, written from the model cards and from the measurements of the conformance checks."""

from collections.abc import Iterable, Mapping, Sequence

from steerlens.testing.conformance import Conformance
from steerlens.zoo.cards import Card, Repository

_HEAD = """\
<!-- Written by `make models` from the model cards and the conformance checks. Changes by hand are lost. -->

# Models
"""

_ENCODERS = """\
## Encoders

Each adapter is compared with slow oracles by `steerlens.testing.check_encoder`, on tiny models of the real classes with
random weights, biases and norms: the identity of the decomposition, every head against the native model without it, the
closed form of the Diffusion Steering Lens against its hook-by-hook definition, every intervention against raw hooks,
pictures alone against pictures in a batch. The error is the largest relative error of all these checks and models.
"""

_DECODERS = """\
## Decoders

Checked by `steerlens.testing.check_decoder` on tiny copies of the real pipelines, in float32. The error is the largest
difference, in pictures with values from 0 to 1, between a picture decoded alone and the same one in a batch, or decoded
again; a step of an 8-bit picture is 0.004. Moves to other precisions and devices and back are checked too.
"""

_PRESETS = """\
## Presets

Pairs that go by a name: `steerlens lens photo.png --model NAME`. Pinned means that the card names the hub's commit.
A decoder draws what it was trained on: a picture of anything else comes back as something of its domain.
"""


def catalogue(rows: Sequence[Conformance], cards: Mapping[str, Card], versions: Mapping[str, str]) -> str:
    """Writes the page as Markdown.

    Args:
        rows: measurements of every adapter.
        cards: every model card, by name.
        versions: versions of the libraries of the measurements.
    """
    encoders = [row for row in rows if row.group == "steerlens.encoders"]
    decoders = [row for row in rows if row.group == "steerlens.decoders"]
    measured = ", ".join(f"{name} {version}" for name, version in sorted(versions.items()))
    parts = [
        _HEAD,
        _ENCODERS,
        _table(("family", "adapter", "checked on", "float32", "bfloat16"), map(_measured, encoders)),
        _DECODERS,
        _table(("family", "adapter", "float32"), map(_measured, decoders)),
        _failures(rows),
        f"Measured with {measured}.\n",
        _PRESETS,
        _table(
            (
                *("name", "what", "domain: trained on", "reads", "decoder", "encoder: layers x heads, size", "weights"),
                *("licence", "GB", "paper"),
            ),
            (_preset(card) for card in cards.values()),
        ),
    ]
    return "\n".join(part for part in parts if part)


def _measured(row: Conformance) -> tuple[str, ...]:
    module, _, name = row.adapter.partition(":")
    models = ("; ".join(row.models),) if row.models else ()
    return f"`{row.family}`", f"`{module.rpartition('.')[2]}.{name}`", *models, *map(_number, row.errors.values())


def _number(error: float | None) -> str:
    return "not measured" if error is None else "0" if error == 0 else f"{error:.1e}"


def _failures(rows: Sequence[Conformance]) -> str:
    lines = [f"- `{row.family}`: {failure}" for row in rows for failure in row.failures]
    return "\n".join(["Checks that do not pass:\n", *lines, ""]) if lines else ""


def _preset(card: Card) -> tuple[str, ...]:
    places: dict[str, None] = dict.fromkeys(
        _place(place) for place in (card.encoder, card.decoder, card.adapter) if place is not None
    )
    if card.bundled:
        places |= {"in the package" if card.encoder is None else "decoder in the package": None}
    where = ", ".join(places) or "none"
    sizes = f"{card.layers} x {card.heads}, {card.embedding_size}" if card.layers else "any"
    paper = f"[{card.paper}](https://arxiv.org/abs/{card.paper})" if card.paper[:1].isdigit() else card.paper
    reads = card.consumes.replace("_", " ")
    return (
        f"`{card.name}`",
        card.title,
        card.domain,
        reads,
        f"`{card.family}`",
        sizes,
        where,
        card.licence,
        f"{card.gigabytes:g}",
        paper,
    )


def _place(place: Repository) -> str:
    pinned = "pinned" if place.revision else "not pinned"
    return f"[{place.repository}](https://huggingface.co/{place.repository}) ({pinned})"


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [heads, ["---"] * len(heads), *rows]
    return "".join(f"| {' | '.join(cell.replace('|', '/') for cell in line)} |\n" for line in lines)
