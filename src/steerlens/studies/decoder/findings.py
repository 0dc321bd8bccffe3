"""Findings of the decoder study in words, and its bar; the figures alone decide which sentence is printed."""

import math

from steerlens.studies.decoder.results import DecoderSummary
from steerlens.studies.shared.markdown import Bar, Finding, at_least, interval, on, signed


def decoder_findings(summary: DecoderSummary) -> list[Finding]:
    """Number of steps that is enough, and share of a picture that the decoder invents."""
    return [
        Finding(steps_words(summary), headline=True),
        Finding(
            on(
                summary.model,
                f"at the default setting, 1 minus the agreement over seeds is {interval(summary.invented)}. ",
            )
            + f"Between pictures of different inputs it is {_apart(summary)}. The decoder invents what differs "
            "between seeds, at least: inventions that all seeds share are not counted.",
            headline=True,
        ),
    ]


def _apart(summary: DecoderSummary) -> str:
    """1 minus the agreement of pictures of different inputs."""
    return signed(1 - summary.default.own.unrelated) or "undefined"


def steps_words(summary: DecoderSummary) -> str:
    """Sentences on the rule for the number of steps, its result with and without uncertainty, and advice."""
    wanted, default, rows = summary.wanted, summary.default, summary.by_steps
    fewest, certain = summary.cheapest_steps, summary.certain_steps
    rule = on(
        summary.model,
        f"a number of steps is enough, with all else as by default, if it reaches {wanted:g} of the reference's "
        f"self-agreement. Fewest steps as a point estimate: **{'none' if fewest is None else fewest}**"
        f"{'' if fewest is None else ', share ' + interval(rows[fewest].own.share)}. Fewest steps for which the "
        f"interval's lower end reaches {wanted:g} too: **{'none' if certain is None else certain}**. ",
    )
    own = f"the default, {default.steps} steps, has a share of {interval(default.own.share)}"
    if fewest is None:
        most = rows[max(rows)]
        words = (
            f"{rule}No number of steps of the sweep reaches it; {own}. The largest number, {most.steps}, has "
            f"{interval(most.own.share)}"
        )
        if at_least(default.own.share, most.own.share):
            return f"{words}: more steps than the default are not shown to help."
        return f"{words}."
    if certain is not None:
        return f"{rule}So {certain} steps are enough (the interval is not corrected for the search); {own}."
    return (
        f"{rule}No number of steps is certain to be enough: all intervals, that of the largest number included, extend "
        f"below {wanted:g}. {fewest} steps look enough, but the pictures are too few to decide; {own}. Recommended: no "
        f"fewer than {max(fewest, default.steps)} steps until more pictures (`--count`) narrow the intervals."
    )


def decoder_bars(summary: DecoderSummary) -> list[Bar]:
    """Fewest steps that are enough, on the verdict page."""
    fewest, certain = ("none" if steps is None else steps for steps in (summary.cheapest_steps, summary.certain_steps))
    default = summary.default
    words = f"{fewest} by point estimate, {certain} by the interval's lower end; the default is {default.steps}"
    if default.name in summary.certain:
        verdict = "enough"
    elif default.name in summary.reaching:
        verdict = "enough by point estimate"
    else:
        high = default.own.share.high
        verdict = "undecided" if math.isnan(high) or high >= summary.wanted else "TOO FEW"
    what = f"decoder: fewest steps whose ranking of heads reaches {summary.wanted:g} of the reference's self-agreement"
    return [Bar(what, words, "reported", verdict)]
