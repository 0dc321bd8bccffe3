"""The page that compares models: claims that hold on all of them, on some, and on none."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib.figure import Figure

from steerlens.studies.shared.conclusion import SENTENCES, Claim, joined
from steerlens.studies.shared.markdown import interval, table
from steerlens.studies.shared.plots import DARK, LIGHT, MIDDLE, STRONG, plain_axes
from steerlens.studies.shared.study import Study

_NAMED = 3
"""Claims that a sentence names; the table lists all."""

_DRAWN = 12
"""Claims in the figure."""

_HEAD = """\
# Does it tell the truth, and on which model?

The same studies on several models. `steerlens study page` writes this page, and one for each model, from their
summaries.
"""


@dataclass(frozen=True, eq=False)
class ComparedModel:
    """A model with its finished studies.

    Attributes:
        name: name of the model.
        page: path of its page.
        results: its studies with their summaries.
    """

    name: str
    page: str
    results: Sequence[tuple[Study[Any, Any], Any]]

    @property
    def claims(self) -> dict[str, Claim]:
        """Its claims, by their words."""
        return {claim.what: claim for study, summary in self.results for claim in study.report.claims(summary)}


def opening_sentences(results: Sequence[tuple[Study[Any, Any], Any]]) -> list[str]:
    """The first plain sentences of each study's conclusion, five at most; the leading study gives the others.

    Sentences of one study stay together, since the later ones refer to the first.
    """
    each = [_sentences(study, summary) for study, summary in results]
    order = [(place, number) for number, own in enumerate(each) for place in range(len(own))]
    chosen = sorted(order)[:SENTENCES]
    return [each[number][place] for place, number in sorted(chosen, key=lambda pair: (pair[1], pair[0]))]


def _sentences(study: Study[Any, Any], summary: Any) -> list[str]:
    conclusion = study.report.conclusion(summary)
    if conclusion is not None:
        return list(conclusion.sentences)
    headlines = [finding.text for finding in study.report.findings(summary) if finding.headline]
    return [text.replace("**", "") for text in headlines[:1]]


def compare_page(models: Sequence[ComparedModel]) -> str:
    """Writes the page that compares models as markdown."""
    links = "\n".join(f"- [{model.name}]({model.page})" for model in models)
    sentences = "\n".join(f"{number}. {text}" for number, text in enumerate(compare_sentences(models), start=1))
    shown = "" if compare_figure(models) is None else "![Claims on each model](images/studies/compared.png)\n"
    rows = [
        [what, *("" if claim is None else _verdict(claim) for claim in claims)]
        for what, claims in _by_claim(models).items()
    ]
    return (
        "\n".join(
            [
                _HEAD,
                sentences + "\n",
                shown,
                "## One page a model\n",
                links + "\n",
                "## Claims\n",
                "A claim *holds* if its whole 95 % interval lies above the level; it is *refuted* if the interval lies "
                "below it. Levels are 0, unless given.\n",
                table(["claim", *(model.name for model in models)], rows),
            ]
        ).rstrip()
        + "\n"
    )


def compare_sentences(models: Sequence[ComparedModel]) -> list[str]:
    """Plain sentences: the leading study's first sentence on each model, and which claims hold where."""
    leading = [sentence for model in models[:2] for sentence in opening_sentences(model.results)[:1]]
    names = [model.name for model in models]
    groups: dict[str, list[str]] = {}
    for what, claims in _common(models).items():
        measured = {name: claim for name, claim in zip(names, claims, strict=True) if claim is not None}
        holding = [name for name, claim in measured.items() if claim.holds]
        where = (
            "every model tested" if len(holding) == len(measured) else joined(holding) if holding else "none of them"
        )
        groups.setdefault(where, []).append(what)
    order = sorted(groups, key=lambda where: (where != "every model tested", where != "none of them"))
    return [*leading, *(f"Holds on {where}: {_some(groups[where])}." for where in order)][:SENTENCES]


def _some(claims: Sequence[str]) -> str:
    rest = len(claims) - _NAMED
    return "; ".join(claims[:_NAMED]) + (f"; and {rest} more below" if rest > 0 else "")


def _common(models: Sequence[ComparedModel]) -> dict[str, list[Claim | None]]:
    """Claims that at least two models were tested on."""
    return {what: claims for what, claims in _by_claim(models).items() if len([1 for own in claims if own]) >= 2}


def _by_claim(models: Sequence[ComparedModel]) -> dict[str, list[Claim | None]]:
    """Each claim on every model, None where it was not measured; in the order of the first model that has it."""
    each = [model.claims for model in models]
    return {what: [claims.get(what) for claims in each] for what in dict.fromkeys(what for own in each for what in own)}


def _verdict(claim: Claim) -> str:
    words = "**holds**" if claim.holds else "refuted" if claim.refuted else "not found"
    level = f" (level {claim.level:g})" if claim.level else ""
    return f"{words} {interval(claim.estimate)}{level}"


def compare_figure(models: Sequence[ComparedModel]) -> Figure | None:
    """Draws the first claims that at least two models were tested on, one marker per model; None without any."""
    common = list(_common(models).items())[:_DRAWN]
    if not common:
        return None
    figure = Figure(figsize=(9.5, 0.5 * len(common) + 1.6), layout="constrained")
    axes = figure.subplots()
    styles = [(DARK, "o"), (MIDDLE, "s"), (STRONG, "^"), (LIGHT, "D")]
    named = set[str]()
    for place, (_, claims) in enumerate(reversed(common)):
        for number, (model, claim) in enumerate(zip(models, claims, strict=True)):
            if claim is None:
                continue
            (colour, marker), at = styles[number % len(styles)], place + 0.12 * ((len(models) - 1) / 2 - number) * 2
            estimate = claim.estimate
            axes.plot([estimate.low - claim.level, estimate.high - claim.level], [at, at], color=colour, linewidth=1.4)
            axes.plot(
                estimate.value - claim.level,
                at,
                marker,
                color=colour,
                label=None if model.name in named else model.name,
                markersize=5,
            )
            named.add(model.name)
    axes.axvline(0, color=DARK, linewidth=0.8)
    axes.set_yticks(range(len(common)), [_broken(what) for what, _ in reversed(common)], fontsize=7.5)
    axes.set_xlabel("right of the line, the claim holds; lines: 95 % intervals", fontsize=9)
    figure.legend(loc="outside upper right", fontsize=8, frameon=False, ncols=4)
    plain_axes(axes, label_size=8)
    axes.tick_params(axis="y", labelsize=7.5)
    return figure


def _broken(words: str, width: int = 62) -> str:
    """Words in lines of some width."""
    return re.sub(rf"(.{{1,{width}}})(?:\s+|$)", r"\1\n", words).strip()
