"""Options of a sweep that cannot change its results: refused, because the results would look as if they had.

Defaults are never refused, nor values that turn something off, such as `controls=0`.
"""

from collections.abc import Iterator

from steerlens.atlas import Plan
from steerlens.decoders import DecodeOptions
from steerlens.errors import UsageError
from steerlens.sweep.options import LookOptions
from steerlens.sweep.selection import Selection
from steerlens.sweep.units import UnitRequest

_DEFAULTS = LookOptions()


def refuse_unused_in_plan(options: LookOptions, plan: Plan) -> None:
    """Checks that every option about sites and lenses changes a plan.

    Args:
        options: options of the sweep.
        plan: the plan that they give.

    Raises:
        UsageError: if an option has no effect, naming all that have none.
    """
    _refuse(_unused_in_plan(options, plan))


def refuse_unused_in_decoding(
    options: LookOptions, defaults: DecodeOptions, decoder: str, *, ranks: bool = False
) -> None:
    """Checks that every option about decoding changes what a decoder does.

    Args:
        options: options of the sweep.
        defaults: the decoder's own options.
        decoder: its name, for the message.
        ranks: True for an index of pictures, whose seeds choose among the nearest.

    Raises:
        UsageError: if an option has no effect, naming all that have none.
    """
    _refuse(_unused_in_decoding(options, defaults, decoder, ranks))


def refuse_tokens(options: LookOptions, decoder: str) -> None:
    """Checks that no tokens are chosen for a decoder of embeddings.

    Args:
        options: options of the sweep.
        decoder: its name, for the message.

    Raises:
        UsageError: if there are.
    """
    if options.tokens.strip() != _DEFAULTS.tokens:
        raise UsageError(
            f"tokens {options.tokens!r} cannot be written to: {decoder} reads one image embedding, not image tokens. "
            "To see what heads read from a part of the picture, name a region."
        )


def refuse_unused_units(options: LookOptions, request: UnitRequest) -> None:
    """Checks that options about neurons and features go with sites that leave their choice open.

    Args:
        options: options of the sweep.
        request: the neurons and features that its sites name.

    Raises:
        UsageError: if such an option has no effect.
    """
    if request.strongest_of or request.layers:
        return
    given = [("strongest", options.strongest), ("rank", options.rank)]
    why = "it chooses among features and neurons, and the sites name none, or name them by number"
    _refuse((f"{name} {value}", why) for name, value in given if value != getattr(_DEFAULTS, name))


def refuse_unused_labels(options: LookOptions, *, vocabulary: int, own: bool) -> None:
    """Checks that the number of labels and the vocabulary go together.

    Args:
        options: options of the sweep.
        vocabulary: number of texts in the vocabulary; 0 without any.
        own: True if the user gave it.

    Raises:
        UsageError: if there is a number without a vocabulary or above its size, or the vocabulary of a user who asks
            for no labels.
    """
    if options.n_labels not in (_DEFAULTS.n_labels, 0) and not vocabulary:
        _refuse(iter([(f"labels {options.n_labels}", "this model has no vocabulary, so give one too")]))
    if options.n_labels != _DEFAULTS.n_labels and options.n_labels > vocabulary:
        raise UsageError(f"labels {options.n_labels}: there are only {vocabulary} texts in the vocabulary.")
    if options.n_labels == 0 and own:
        _refuse(iter([("a vocabulary", "0 labels were requested")]))


def _refuse(unused: Iterator[tuple[str, str]]) -> None:
    by_reason: dict[str, list[str]] = {}
    for option, reason in unused:
        by_reason.setdefault(reason, []).append(option)
    if by_reason:
        words = "; ".join(f"{', '.join(options)}: no effect, because {why}" for why, options in by_reason.items())
        raise UsageError(f"{words}. Leave out what has no effect.")


def _unused_in_plan(options: LookOptions, plan: Plan) -> Iterator[tuple[str, str]]:
    cells = plan.of(plan.pictures[0])
    lenses = {cell.lens for cell in cells}
    if lenses.isdisjoint(("steering", "total")):
        steered = options.controls not in (_DEFAULTS.controls, 0)
        for name, given, text in (
            ("strength", options.strength is not None, options.strength),
            ("controls", steered, options.controls),
            ("foils", options.foils > 0, options.foils),
            ("effect", options.effect not in (_DEFAULTS.effect, ("direct",), ()), _text(options.effect)),
            ("tokens", options.tokens != _DEFAULTS.tokens, options.tokens),
        ):
            if given:
                yield f"{name} {text}", _nothing_steered(options)
    elif options.foils > 0 and "foil" not in lenses:
        yield f"foils {options.foils}", "foils show the direct effect of heads, groups and regions, and there is none"
    selection = Selection.parse(options.decode)
    ranked = len({cell.site for cell in cells if cell.site.is_write})
    if selection.rule != "all" and not ranked:
        yield f"decode {selection}", "it selects heads and other writes, and the sites have none"
    elif selection.rule == "top" and selection.value > ranked:
        yield f"decode {selection}", f"there are only {ranked} sites to select from"


def _unused_in_decoding(
    options: LookOptions, defaults: DecodeOptions, decoder: str, ranks: bool
) -> Iterator[tuple[str, str]]:
    if defaults.scheduler == "none":
        for name in ("steps", "guidance", "guidance_interval", "scheduler"):
            value = getattr(options, name)
            if value not in (None, getattr(defaults, name)):
                yield f"{name} {_text(value)}", f"{decoder} decodes in one pass, without denoising"
        for name, field in (("seed", "seed"), ("seeds", "n_seeds")):
            if not ranks and getattr(options, field) != getattr(_DEFAULTS, field):
                yield f"{name} {getattr(options, field)}", f"{decoder} decodes in one pass, without denoising"
        return
    guidance = defaults.guidance if options.guidance is None else options.guidance
    interval = options.guidance_interval
    if interval not in (None, (0.0, 1.0), defaults.guidance_interval) and guidance <= 1:
        yield f"guidance_interval {_text(interval)}", f"there is no guidance (scale {guidance:g})"


def _nothing_steered(options: LookOptions) -> str:
    if "steering" not in options.lenses:
        return "nothing is steered without the Steering Lens"
    return "nothing is steered: the sites are all of the residual stream"


def _text(value: object) -> str:
    if isinstance(value, tuple):
        parts: tuple[object, ...] = value  # pyright: ignore[reportUnknownVariableType]
        return " ".join(f"{part:g}" if isinstance(part, float) else str(part) for part in parts)
    return f"{value:g}" if isinstance(value, float) else str(value)
