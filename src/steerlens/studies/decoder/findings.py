"""Findings of the decoder study in words, and its bar; which sentence is printed depends on the figures alone."""

import math

from steerlens.studies.decoder.results import DecoderSummary
from steerlens.studies.shared.markdown import Bar, Finding, at_least, interval


def decoder_findings(summary: DecoderSummary) -> list[Finding]:
    """How many steps are enough, and how much of a picture is invented."""
    return [
        Finding(steps_words(summary), headline=True),
        Finding(
            f"At the default setting the decoder invents at least 1 - agreement over seeds: "
            f"{interval(summary.invented)}; what all seeds invent alike does not show there.",
            headline=True,
        ),
    ]


def steps_words(summary: DecoderSummary) -> str:
    """The rule for the number of steps, its result as a point estimate and with its uncertainty, and advice."""
    wanted, default, rows = summary.wanted, summary.default, summary.by_steps
    fewest, certain = summary.cheapest_steps, summary.certain_steps
    rule = (
        f"The rule: so many steps are enough, all else as by default, if they reach {wanted:g} of the ceiling. Fewest "
        f"as a point estimate: **{'none' if fewest is None else fewest}**"
        f"{'' if fewest is None else ', share ' + interval(rows[fewest].own.share)}. Fewest whose interval's "
        f"lower end reaches {wanted:g} as well: **{'none' if certain is None else certain}**. "
    )
    own = f"the default is {default.steps} steps with a share of {interval(default.own.share)}"
    if fewest is None:
        most = rows[max(rows)]
        words = (
            f"{rule}No number of steps of the sweep reaches it; {own}. The most, {most.steps}, have "
            f"{interval(most.own.share)}"
        )
        if at_least(default.own.share, most.own.share):
            return f"{words}: more steps than by default do not help, and the missing share has another cause."
        return f"{words}."
    if certain is not None:
        return f"{rule}So {certain} steps are enough, by an interval that stands for itself alone; {own}."
    return (
        f"{rule}So nothing is certain: a share below {wanted:g} is left open for every number of steps, the largest "
        f"included. {fewest} steps look enough, but these pictures are too few to tell; {own}. Recommended: no fewer "
        f"than {max(fewest, default.steps)} steps until more pictures (`--count`) narrow the intervals."
    )


def decoder_bars(summary: DecoderSummary) -> list[Bar]:
    """The fewest steps that are enough, on the verdict page."""
    fewest, certain = ("none" if steps is None else steps for steps in (summary.cheapest_steps, summary.certain_steps))
    default = summary.default
    words = f"{fewest} as a point estimate, {certain} by the interval's lower end; the default is {default.steps}"
    if default.name in summary.certain:
        verdict = "enough"
    elif default.name in summary.reaching:
        verdict = "enough as a point estimate"
    else:
        high = default.own.share.high
        verdict = "undecided" if math.isnan(high) or high >= summary.wanted else "TOO FEW"
    what = f"decoder: fewest steps that rank heads with {summary.wanted:g} of the reference's agreement with itself"
    return [Bar(what, words, "reported", verdict)]
