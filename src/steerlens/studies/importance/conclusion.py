"""Conclusion of the importance study in plain sentences, and its claims; the figures alone decide the words."""

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from steerlens.studies.importance.scores import DIRECT_EFFECT, LESS_NORM, PLAIN_KIND, UNDECODED
from steerlens.studies.shared.conclusion import Claim, Conclusion, cautioned
from steerlens.studies.shared.effects import Effect
from steerlens.studies.shared.markdown import interval
from steerlens.studies.shared.oracle import oracle_name
from steerlens.studies.shared.partial import GIVEN_BOTH, LAYER, NORM
from steerlens.studies.shared.stats import Estimate
from steerlens.studies.shared.targets import TEXT

if TYPE_CHECKING:
    from steerlens.studies.importance.results import ImportanceSummary, OracleShare, TargetNull

_PLAIN_UNDECODED = f"{PLAIN_KIND}, {UNDECODED}"


def importance_conclusion(summary: "ImportanceSummary") -> Conclusion | None:
    """Concludes from the paper's claim; None for studies of earlier versions, which lack the baselines."""
    effect = summary.published
    own, other, norm = (
        summary.row(name, effect) for name in (f"steering, {_PLAIN_UNDECODED}", f"diffusion, {_PLAIN_UNDECODED}", NORM)
    )
    difference = summary.difference(_PLAIN_UNDECODED, effect)
    left = summary.row(f"steering, {_PLAIN_UNDECODED}", effect, GIVEN_BOTH)
    if own is None or other is None or norm is None or difference is None or left is None:
        return None
    model = summary.setup.model or "this model"
    beyond = summary.difference(f"{_PLAIN_UNDECODED}{LESS_NORM}", effect)
    sentences = [
        f"On {model}, before decoding, the Steering Lens {_predicts(own.estimate)} how far the embedding moves when a "
        f"head is ablated ({effect.ablation} ablation; rank correlation {interval(own.estimate)}); "
        f"{_norm(norm.estimate, None if beyond is None else beyond.estimate)}, and with this norm and the layer held "
        f"fixed {_left(left.estimate)} of the lens' figure ({interval(left.estimate)}).",
        _other_lens(summary, difference.estimate, other.estimate),
        _decoded(summary, effect),
        _towards_labels(summary),
        f"Measured on {summary.n_pictures} pictures of {summary.n_concepts} concepts and {summary.n_heads} heads"
        f"{'' if summary.setup.decoding else ', without decoding pictures'}; 95 % intervals in brackets.",
    ]
    return Conclusion(
        tuple(filter(None, sentences)), _next_step(summary, beyond is not None and beyond.estimate.above())
    )


def _predicts(own: Estimate) -> str:
    if own.above():
        return "predicts"
    return "predicts in reverse" if own.excludes_zero else "is not shown to predict"


def _norm(norm: Estimate, beyond: Estimate | None) -> str:
    """What the norm of the write, which needs no lens, does beside the lens."""
    compared = "not told apart from the lens"
    if beyond is not None and beyond.excludes_zero:
        compared = f"{'less' if beyond.above() else 'more'} than the lens"
    return f"the norm of a head's write, which needs no lens, reaches {interval(norm)}, {compared}"


def _left(left: Estimate) -> str:
    return "something is left" if left.above() else "nothing certain is left"


def _other_lens(summary: "ImportanceSummary", difference: Estimate, other: Estimate) -> str:
    """Comparison with the Diffusion Lens, raw and with both baselines held fixed; and the layer alone."""
    effect = summary.published
    words = "is not told apart from"
    if difference.excludes_zero:
        words = "does better than" if difference.above() else "does worse than"
    text = f"The Steering Lens {words} the Diffusion Lens ({interval(other)}; difference {interval(difference)})"
    if (held := summary.difference(_PLAIN_UNDECODED, effect, GIVEN_BOTH)) is not None:
        text += f", with norm and layer held fixed {interval(held.estimate)}"
    if (layer := summary.row(LAYER, effect)) is not None:
        text += f"; the number of the layer alone reaches {interval(layer.estimate)}"
    return f"{text}."


def _decoded(summary: "ImportanceSummary", effect: Effect) -> str:
    """What decoded pictures reach, beside the oracles; without decoding, what the exact direct effect reaches."""
    row = summary.row(f"steering, {PLAIN_KIND}", effect)
    if row is None:
        direct = summary.row(DIRECT_EFFECT, effect)
        if direct is None:
            return ""
        return f"Each head's exact direct effect, which needs no lens either, reaches {interval(direct.estimate)}."
    words = f"In decoded pictures it reaches {interval(row.estimate)}"
    if (left := summary.row(f"steering, {PLAIN_KIND}", effect, GIVEN_BOTH)) is not None:
        words += f", with norm and layer held fixed {interval(left.estimate)}"
    parts = [words, *map(_beside_oracle, _shares(summary.oracle, effect))]
    return f"{'; '.join(parts)}."


def _beside_oracle(row: "OracleShare") -> str:
    """What decoding the true effect reaches, and the lens' share of it with the same seed; no oracle bounds a lens."""
    how = "by one factor for all heads" if row.oracle == oracle_name("one factor") else "to one length for all heads"
    reached = f"the true effect, amplified {how} and decoded, reaches {interval(row.most)}"
    if not row.most.above():
        return f"{reached}, which is not shown to differ from 0"
    share = f"{interval(row.share)} of that"
    if row.share.above(1.0):
        return f"{reached}, and with the same seed the lens exceeds it ({share})"
    if row.share.value > 1:
        return f"{reached}, and with the same seed the lens exceeds it by point estimate alone ({share})"
    return f"{reached}, and with the same seed the lens reaches {share}"


def _towards_labels(summary: "ImportanceSummary") -> str:
    """What is known of effects towards labels, and whether the label matters."""
    score, effect = f"steering, {PLAIN_KIND}, {UNDECODED}", Effect("total", TEXT, summary.published.ablation)
    null = next((row for row in summary.nulls if (row.score, row.effect) == (score, effect)), None)
    if null is None:
        return "Effects towards labels were not measured, since the model has no text for some of the labels."
    counted = f"{summary.n_counted} of {summary.n_pictures} pictures" if summary.n_recognised >= 0 else "all pictures"
    known = ", those that the encoder recognises," if 0 <= summary.n_recognised == summary.n_counted else ""
    if not null.own.above():
        meaning = "so nothing is shown towards labels"
    elif null.own.low <= max(null.others.high, null.random.high):
        meaning = "from which the own label is not told apart"
    else:
        meaning = "so the label matters"
    return (
        f"Towards the picture's own label, on {counted}{known} it reaches {interval(null.own)} before decoding; "
        f"towards other pictures' labels {interval(null.others)} and towards random vectors {interval(null.random)}, "
        f"{meaning}."
    )


def _shares(shares: "Sequence[OracleShare]", effect: Effect) -> "list[OracleShare]":
    """The Steering Lens beside each oracle, that with the larger correlation first."""
    own = [row for row in shares if row.effect == effect and row.score == f"steering, {PLAIN_KIND}"]
    return sorted(own, key=lambda row: -row.most.value)


def _next_step(summary: "ImportanceSummary", beats_norm: bool) -> str:
    if not beats_norm:
        return (
            "to find the heads that matter, ablate them, or sort them by the norm of their writes; use the lens to see "
            "what a head writes, and judge its pictures by whether they fit their own input better than another's."
        )
    if summary.setup.decoding:
        return "compare with more pictures (--count 100) and with an outside judge (--judge)."
    return "decode: the same command without --no-decoder, on a model that has a decoder."


def importance_claims(summary: "ImportanceSummary") -> list[Claim]:
    """Claims that are compared between models."""
    claims: list[Claim] = []
    towards_labels: list[Claim] = []
    effects = {
        f"how far {name} ablation of a head moves the embedding": Effect("total", "", name) for name in ("zero", "mean")
    }
    effects["how much similarity with the label mean ablation of a head costs"] = Effect("total", TEXT, "mean")
    for words, effect in effects.items():
        listed = towards_labels if effect.target else claims
        towards, leading = f", towards {effect.target}" if effect.target else "", effect == summary.published
        for label, how in (
            (f"{PLAIN_KIND}{towards}, {UNDECODED}", "before decoding"),
            (f"{PLAIN_KIND}{towards}", "in pictures"),
        ):
            own = summary.row(f"steering, {label}", effect)
            if own is None:
                continue
            left = summary.row(f"steering, {label}", effect, GIVEN_BOTH)
            difference, norm = (summary.difference(name, effect) for name in (label, f"{label}{LESS_NORM}"))
            held_difference = summary.difference(label, effect, GIVEN_BOTH)
            null = _label_null(summary, effect, decoded=not label.endswith(UNDECODED))
            what = f"The Steering Lens predicts {words}"
            if null is None:
                alone = Claim(what, own.estimate, 0.0, how, leading)
            else:
                # The nulls' own figure, since both are of the same decoder seed.
                nulls = (("other labels", null.others), ("random vectors", null.random))
                alone = Claim(what, null.own, 0.0, how, leading, nulls)
            held = "with the norm of the write and the layer held fixed"
            listed.append(alone)
            if left is not None:
                listed.append(_resting(Claim(f"{what}, {held}", left.estimate, 0.0, how, leading), alone))
            better = f"{what} better than the Diffusion Lens does"
            if difference is not None:
                listed.append(Claim(better, difference.estimate, 0.0, how, leading))
            if held_difference is not None:
                listed.append(Claim(f"{better}, {held}", held_difference.estimate, 0.0, how, leading))
            if norm is not None:
                better = f"{what} better than the norm of the write does"
                listed.append(_resting(Claim(better, norm.estimate, 0.0, how, leading), alone))
    counted = summary.n_counted if summary.n_recognised >= 0 else summary.n_concepts
    return [*cautioned(claims, summary.n_concepts), *cautioned(towards_labels, min(counted, summary.n_concepts))]


def _resting(claim: Claim, alone: Claim) -> Claim:
    """A claim about the label that says nothing of it unless the lens' own figure exceeds those of other labels."""
    note = "the lens alone is not told apart from other labels" if claim.holds and not alone.holds else ""
    return replace(claim, rests_on=alone, note=note) if alone.nulls else claim


def _label_null(summary: "ImportanceSummary", effect: Effect, *, decoded: bool) -> "TargetNull | None":
    """Correlations towards other pictures' labels and random vectors, which a claim about the label must exceed."""
    score = f"steering, {PLAIN_KIND}{'' if decoded else f', {UNDECODED}'}"
    return next((row for row in summary.nulls if (row.score, row.effect) == (score, effect)), None)
