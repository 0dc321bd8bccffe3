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

_READOUTS = """\
`load_encoder(model, processor)` takes fine-tuned objects of all these classes, also wrapped by `DataParallel`,
`torch.compile`, Lightning or PEFT (LoRA is merged in a copy). An embedding is read from:

- `clip`, `metaclip_2`: the projected class token.
- `clip_vision`, `tipsv2`: the class token after the final norm; with `load_encoder(..., readout="mean")` the mean of
  the patches, with a number that token (token 1 of TIPSv2 is its second class token).
- `llava`: the mean of the tokens that the language model gets, at the layer where it reads them and without a norm, or
  one token. Later blocks, projector and language model are left out.
- `qwen2_5_vl`, `qwen3_vl`: the mean of the last residual over patches, or one patch. The mergers are left out, their
  norms included. Pictures are squashed to a square of 448 pixels, or as near as the processor's limits allow.
- `siglip`: the pooling head over all tokens; of classifiers their mean.
- `siglip2`: the same, of pictures squashed to a square, or of a given shape as the model's own processor cuts them:
  `load_encoder(..., shape=(width, height))`, on the command line `?shape=WIDTHxHEIGHT` after the encoder's name.
- `vit`, `deit`, `vit_mae`, `dinov3_vit`: the class token after the final norm, through the pooler where there is one.
- `dinov2`, `dinov2_with_registers`: the class token after the final norm; of classifiers with the mean of the patches.
- `aimv2`: the pooling head over all tokens, or their mean.
- `timm`, `open_clip`, `open_clip_timm`: the model's own pooling (class token, mean, attention), before a classifier and
  after a projection. Perception Encoder lang and spatial: the mean of the patches, without a norm.

Post-norm blocks of timm's `Eva` (`eva02_enormous_patch14_clip_224`) are refused: a norm after the output projection
leaves no head a write of its own. Where a norm acts on all heads before it (EVA-CLIP), removing a head freezes its
divisor.
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
        _READOUTS,
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
