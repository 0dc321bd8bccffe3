"""Conclusion of the importance study in plain sentences, and its claims; the figures alone decide the words."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from steerlens.studies.importance.scores import LESS_NORM, PLAIN_KIND, UNDECODED
from steerlens.studies.shared.conclusion import Claim, Conclusion
from steerlens.studies.shared.effects import Effect
from steerlens.studies.shared.markdown import interval
from steerlens.studies.shared.partial import GIVEN_BOTH, NORM
from steerlens.studies.shared.targets import TEXT

if TYPE_CHECKING:
    from steerlens.studies.importance.results import ImportanceSummary, OracleShare

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
    verdict = "predicts" if own.estimate.above() else "does not predict"
    better = (
        "more than" if difference.estimate.above() else "less than" if difference.estimate.excludes_zero else "like"
    )
    sentences = [
        f"On {model}, the Steering Lens {verdict} how far the embedding moves when a head is ablated "
        f"({effect.ablation} "
        f"ablation): rank correlation {interval(own.estimate)} before decoding, {better} the Diffusion Lens "
        f"({interval(other.estimate)}).",
        _against_baselines(norm.estimate.value, own.estimate.value, interval(left.estimate), left.estimate.above()),
        _decoded(summary, effect),
        _towards_labels(summary),
        f"Measured on {summary.n_pictures} pictures of {summary.n_concepts} concepts and {summary.n_heads} heads; 95 % "
        "intervals in brackets.",
    ]
    return Conclusion(tuple(sentences), _next_step(summary, norm.estimate.value > own.estimate.value))


def _against_baselines(norm: float, own: float, left: str, remains: bool) -> str:
    beaten = norm > own
    size = "does better" if beaten else "does worse"
    rest = f"something is left of the lens' figure, {left}" if remains else f"nothing certain is left of it, {left}"
    return (
        f"The size of a head's write, which needs no lens, {size} ({norm:+.2f}); with size and layer held "
        f"fixed, {rest}."
    )


def _decoded(summary: "ImportanceSummary", effect: Effect) -> str:
    row = summary.row(f"steering, {PLAIN_KIND}", effect)
    if row is None:
        return "No pictures were decoded, so nothing is said of pictures."
    share = _share(summary.oracle, effect)
    words = f"Its decoded pictures reach {interval(row.estimate)}"
    if share is None:
        return f"{words}."
    return (
        f"{words}; the true effect itself, decoded, reaches {interval(share.most)}, so pictures of this decoder "
        "can tell "
        f"no more, and the lens' share of that is {interval(share.share)}."
    )


def _towards_labels(summary: "ImportanceSummary") -> str:
    """What is known of effects towards labels, and whether the label matters."""
    score, effect = f"steering, {PLAIN_KIND}, {UNDECODED}", Effect("total", TEXT, summary.published.ablation)
    null = next((row for row in summary.nulls if (row.score, row.effect) == (score, effect)), None)
    if null is None:
        return "Effects towards labels were not measured: the model knows no text of every label."
    counted = f"{summary.n_counted} of {summary.n_pictures} pictures" if summary.n_recognised >= 0 else "all pictures"
    known = ", those that the encoder recognises," if 0 <= summary.n_recognised == summary.n_counted else ""
    return (
        f"Towards the picture's own label, on {counted}{known} it reaches {interval(null.own)} before decoding; "
        f"towards other pictures' labels {interval(null.others)}, and towards random vectors {interval(null.random)}."
    )


def _share(shares: "Sequence[OracleShare]", effect: Effect) -> "OracleShare | None":
    """Share of the oracle with the larger correlation."""
    own = [row for row in shares if row.effect == effect and row.score == f"steering, {PLAIN_KIND}"]
    return max(own, key=lambda row: row.most.value, default=None)


def _next_step(summary: "ImportanceSummary", norm_wins: bool) -> str:
    if norm_wins:
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
    effects = {
        f"how far ablation moves the embedding ({name} ablation)": Effect("total", "", name)
        for name in ("zero", "mean")
    }
    effects["what ablation costs of the similarity with the label (mean ablation)"] = Effect("total", TEXT, "mean")
    for words, effect in effects.items():
        towards = f", towards {effect.target}" if effect.target else ""
        for label, how in (
            (f"{PLAIN_KIND}{towards}, {UNDECODED}", "before decoding"),
            (f"{PLAIN_KIND}{towards}", "in pictures"),
        ):
            own = summary.row(f"steering, {label}", effect)
            if own is None:
                continue
            claims.append(Claim(f"Steering Lens predicts {words}, {how}", own.estimate))
            if (left := summary.row(f"steering, {label}", effect, GIVEN_BOTH)) is not None:
                claims.append(Claim(f"the same, with norm and layer held fixed ({words}, {how})", left.estimate))
            if (difference := summary.difference(label, effect)) is not None:
                claims.append(
                    Claim(f"Steering Lens does better than Diffusion Lens ({words}, {how})", difference.estimate)
                )
            if (norm := summary.difference(f"{label}{LESS_NORM}", effect)) is not None:
                claims.append(
                    Claim(f"Steering Lens does better than the norm of the write ({words}, {how})", norm.estimate)
                )
    return claims
