"""Findings of the importance study in words, and its bars; the figures alone decide which sentence is printed."""

import math
from collections.abc import Iterator, Sequence

from steerlens.errors import StoreError
from steerlens.studies.importance.results import ImportanceSummary, Row
from steerlens.studies.importance.scores import CENTRED_KIND, PLAIN_KIND, UNDECODED
from steerlens.studies.shared.candidates import CHOSEN, ONE_FACTOR, ONE_FACTOR_NAME, readable
from steerlens.studies.shared.effects import Effect
from steerlens.studies.shared.markdown import Bar, Finding, aim, claim, interval, lost, met, on, percent
from steerlens.studies.shared.partial import GIVEN_BOTH
from steerlens.studies.shared.stats import Estimate
from steerlens.studies.shared.targets import INPUT, OTHER

CEILING_AIM = 0.8
"""Aim for the Steering Lens' share of the exact direct effect's correlation."""

ORACLE_AIM = 0.6
"""Aim for the Steering Lens' share of the decoded true effect's correlation."""

CONSISTENCY = (
    "compares the requested embedding with the effect's own target. It predicts direct effects nearly by construction, "
    "and total effects contain the direct ones: a check of consistency, and no evidence about pictures"
)

_CHOSEN_UNDECODED = f"{CHOSEN}, {UNDECODED}"


def importance_findings(summary: ImportanceSummary) -> list[Finding]:
    """Findings of the importance study; headlines are repeated on the verdict page."""
    published, main = summary.published, summary.main
    paper = (
        "The paper's claim: the Steering Lens shows the importance of heads, the Diffusion Lens hardly does. Tested "
        "with a relative strength (rho=1), by the similarity with the input and the distance that ablation moves the "
        f"embedding ({published})"
    )
    factor = f"The same with one factor for all heads ({ONE_FACTOR.strength}; the paper's constant is not known)"
    before = "The same before decoding"
    if summary.difference(ONE_FACTOR_NAME, published) is None:
        before = f"{factor}, before decoding{' (pictures need `--extras`)' if summary.setup.decoding else ''}"
    findings = [
        *_claim(
            summary, f"{paper}, before decoding", f"{PLAIN_KIND}, {UNDECODED}", published, headline=True, alone=True
        ),
        *_claim(summary, f"{paper}, in pictures", PLAIN_KIND, published, headline=True, alone=True),
        *_claim(summary, factor, ONE_FACTOR_NAME, published, alone=True),
        *_claim(summary, before, f"{ONE_FACTOR_NAME}, {UNDECODED}", published, alone=True),
        *_claim(
            summary,
            "The same with pictures embedded by the outside judge",
            f"{ONE_FACTOR_NAME}, judged with {INPUT}",
            published,
            alone=True,
        ),
        *_claim(
            summary,
            f"With the setting chosen for each lens, decoded, pictures of the Steering Lens predict the main effect "
            f"({main}) better than those of the Diffusion Lens",
            CHOSEN,
            main,
            headline=True,
        ),
        *(
            finding
            for compare, words in ((INPUT, "the input"), (OTHER, "another picture of the concept"))
            for viewer, how in (("encoder itself", "compared with"), ("outside judge", "judged with"))
            for finding in _claim(
                summary,
                f"The same pictures, compared with {words} by the {viewer}",
                f"{CHOSEN}, {how} {compare}",
                main,
            )
        ),
        *_undecoded(summary),
    ]
    findings += _like_with_like(summary)
    rows = {row.score: row for row in summary.attenuation}
    chosen = summary.choices.decoded.get("steering")
    towards = chosen is not None and chosen.compare == main.target
    remark = " (a check of consistency, since it is compared with the effect's own target)" if towards else ""
    if (row := rows.get(summary.leading)) is not None:
        findings += [Finding(text, headline=True) for text in lost(row, "the main effect", remark)]
    return findings + [_best(summary, effect) for effect in dict.fromkeys((main, published))]


def _claim(
    summary: ImportanceSummary, what: str, name: str, effect: Effect, *, headline: bool = False, alone: bool = False
) -> Iterator[Finding]:
    """Verdict on a claim, if its scores were measured; `alone` as in `claim`."""
    difference = summary.difference(name, effect)
    if difference is not None:
        own, other = (_estimate(summary, score, effect) for score in (difference.first, difference.second))
        words = claim(what, difference.estimate, own, other, alone=alone, model=summary.setup.model)
        yield Finding(words + _given_both(summary, difference.first, name, effect), headline)


def _given_both(summary: ImportanceSummary, score: str, name: str, effect: Effect) -> str:
    """The same with the norm of the write and the layer held fixed, as a sentence; empty if it was not measured."""
    own, difference = summary.row(score, effect, GIVEN_BOTH), summary.difference(name, effect, GIVEN_BOTH)
    parts = [
        f"the Steering Lens' figure is {interval(own.estimate)}" if own is not None else "",
        f"the difference {interval(difference.estimate)}" if difference is not None else "",
    ]
    words = ", ".join(filter(None, parts))
    return f" With the norm of the write and the layer held fixed, {words}." if words else ""


def _estimate(summary: ImportanceSummary, score: str, effect: Effect) -> Estimate:
    row = summary.row(score, effect)
    if row is None:
        raise StoreError(f"the summary of the importance study holds no correlation of {score!r} with {effect}.")
    return row.estimate


def _undecoded(summary: ImportanceSummary) -> Iterator[Finding]:
    """Verdict on settings chosen by undecoded scores, with the share of the ceiling and a caveat."""
    what = "The same before decoding, with the setting that undecoded scores choose for each lens"
    for finding in _claim(summary, what, _CHOSEN_UNDECODED, summary.main):
        text = finding.text
        if (share := summary.ceiling_share.get(_CHOSEN_UNDECODED)) is not None:
            text += f" The Steering Lens reaches {interval(share)} of the exact direct effect's correlation."
        scores = [summary.row(f"{lens}, {_CHOSEN_UNDECODED}", summary.main) for lens in ("steering", "diffusion")]
        if any(row is not None and row.by_construction for row in scores):
            text += f" This score {CONSISTENCY}."
        yield Finding(text, headline=True)


def _like_with_like(summary: ImportanceSummary) -> Iterator[Finding]:
    """Undecoded comparison of both lenses on the same kind of write, since centring does not belong to a lens."""
    main = summary.main
    names = [f"{kind}, towards {main.target}, {UNDECODED}" for kind in (PLAIN_KIND, CENTRED_KIND)]
    rows = [row for name in names if main.target and (row := summary.difference(name, main)) is not None]
    if not rows:
        return
    words = "; ".join(f"both {readable(row.name)}: {interval(row.estimate)}" for row in rows)
    better = sum(row.estimate.above() for row in rows)
    since = " (mean ablation removes exactly the centred write, which favours a lens that steers with it)"
    yield Finding(
        f"Like with like{since if main.ablation == 'mean' else ''}: Steering Lens minus Diffusion Lens, {words}. "
        f"{on(summary.setup.model, 'the Steering Lens')} does better in {better} of {len(rows)}. These are checks of "
        "consistency too."
    )


def _best(summary: ImportanceSummary, effect: Effect) -> Finding:
    """The scores that predict an effect best, of all scores and of decoded pictures, without checks of consistency."""
    rows = [row for row in summary.rows if row.effect == effect and row.predicts]
    best, decoded = _largest(rows), [row for row in rows if row.score in summary.reliability]
    words = f"Best predictor of the effect ({effect}){_on(summary)}, by point estimate: {_named(summary, best)}"
    if decoded:
        words += f"; best among scores of decoded pictures: {_named(summary, _largest(decoded))}"
    return Finding(f"{words}.")


def _on(summary: ImportanceSummary) -> str:
    return f" on {summary.setup.model}" if summary.setup.model else ""


def _named(summary: ImportanceSummary, row: Row) -> str:
    left = summary.row(row.score, row.effect, GIVEN_BOTH)
    given = "" if left is None else f"; {GIVEN_BOTH} {interval(left.estimate)}"
    return f"{readable(row.score)} ({interval(row.estimate)}{given})"


def _largest(rows: Sequence[Row]) -> Row:
    return max(rows, key=lambda row: -1.0 if math.isnan(row.estimate.value) else row.estimate.value)


def _plain_bars(summary: ImportanceSummary) -> Iterator[Bar]:
    """Bars of the paper's claim with a relative strength, and of the oracle."""
    for name in ("zero", "mean"):
        effect = Effect("total", "", name)
        for label, how in ((f"{PLAIN_KIND}, {UNDECODED}", "not decoded"), (PLAIN_KIND, "decoded")):
            if (row := summary.difference(label, effect)) is None:
                continue
            given = summary.difference(label, effect, GIVEN_BOTH)
            value = interval(row.estimate)
            if given is not None:
                value += f"; given norm and layer {interval(given.estimate)}"
            yield Bar(
                "importance: Steering minus Diffusion Lens, rho=1, similarity with the input against the "
                "distance that "
                f"{name} ablation moves the embedding, {how}",
                value,
                "interval above 0",
                met(row.estimate.above()),
            )
    score = f"steering, {PLAIN_KIND}"
    for effect in dict.fromkeys(share.effect for share in summary.oracle):
        own = [share for share in summary.oracle if share.effect == effect and share.score.startswith(score)]
        # Of two oracles, the one that decodes better is the harder bar.
        if (share := max(own, key=lambda share: share.most.value, default=None)) is not None:
            yield Bar(
                f"importance: Steering Lens, decoded, as a share of the {share.oracle} ({share.effect})",
                interval(share.share),
                f"aim: {ORACLE_AIM:g}",
                aim(share.share, ORACLE_AIM),
            )


def importance_bars(summary: ImportanceSummary) -> list[Bar]:
    """Figures of the study on the verdict page, with their bars."""
    main = summary.main
    difference, beats = summary.difference(CHOSEN, main), summary.beats_control
    bars = list(_plain_bars(summary))
    if not summary.setup.decoding:
        return bars
    own = _estimate(summary, summary.leading, main)
    if difference is not None:
        bars.append(
            Bar(
                f"importance: Steering minus Diffusion Lens, correlation with the main effect ({main}), decoded",
                interval(difference.estimate),
                "interval above 0",
                met(difference.estimate.above()),
            )
        )
    bars.append(
        Bar(
            f"importance: Steering Lens, correlation with the main effect ({main}), decoded",
            interval(own),
            "interval above 0",
            met(own.above()),
        )
    )
    if (share := summary.ceiling_share.get(CHOSEN)) is not None:
        bars.append(
            Bar(
                "importance: Steering Lens, share of the exact direct effect's correlation, decoded",
                interval(share),
                f"aim: {CEILING_AIM:g}",
                aim(share, CEILING_AIM),
            )
        )
    layers = " ".join(f"{value:.0%}" for value in summary.beats_by_layer)
    low, high = (0.0 if math.isnan(end) else end for end in (beats.low, beats.high))
    bars.append(
        Bar(
            "importance: share of heads whose picture is closer to the input than that of a random direction, steered "
            "as strongly (one per head, the same for all pictures); by layer",
            f"{percent(beats)} [{low:.0%}, {high:.0%}]; {layers}",
            "reported; chance is 50%",
            "above chance" if beats.above(0.5) else "not above chance",
        )
    )
    return bars
