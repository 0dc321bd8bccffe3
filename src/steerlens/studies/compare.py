"""The page that compares models: claims that hold on all of them, on some, on none, and what nobody knows yet."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from steerlens import studies
from steerlens.studies.shared.conclusion import SENTENCES, Claim, joined
from steerlens.studies.shared.markdown import interval, table
from steerlens.studies.shared.plots import DARK, FAINT, LIGHT, MIDDLE, STRONG, plain_axes
from steerlens.studies.shared.study import Study

_NAMED = 6
"""Claims that a sentence names; the table lists all."""

_UNKNOWN = "Nobody knows yet, since the intervals leave it open"

_VERDICTS = ("holds", "open", "refuted", "not measured")
"""Verdicts on a claim, in the order in which a heading names them."""

_ABOUT = {
    "emoji": "the bundled pair: a small CLIP-style ViT, trained from scratch in 132 minutes on drawings of emoji",
    "dinov2-small": "a real pretrained ViT (DINOv2-S), with a small decoder trained for it on drawings",
}
"""Pairs that come with the package, in words."""

_HEAD = """\
# Does it tell the truth, and on which model?

A lens is worth what interventions confirm. The same studies were run on {models}.
`steerlens study page` writes this page, and one for each model, from their summaries.
"""

_WORDS = """\
- *Before decoding*: the embedding that a lens requests is compared, and no picture is made. *In pictures*: it is
  decoded, and the picture is embedded again.
- *Zero* or *mean ablation* replaces a head's write by zero, or by its mean over other pictures, on a real forward pass.
- The *Steering Lens* amplifies a head's write to one share of the residual for all heads (`rho=1`). In claims on
  ablated heads, its score is the similarity with the input, or with the label where a claim names the label. Claims on
  overlays and candidate lenses use the setting that was chosen on other pictures, which each study's page names; an
  *untuned* lens has the default setting.
- The *norm* (size) of a head's write and the number of its *layer* need no lens. A lens whose claim fails once both are
  held fixed is not shown to say more than they do.
"""


@dataclass(frozen=True, eq=False)
class ComparedModel:
    """A model with its finished studies.

    Attributes:
        name: name of the model and of its pictures, if it was studied on several kinds.
        page: path of its page.
        results: its studies with their summaries.
        model: name of the model alone; empty if it is the name.
    """

    name: str
    page: str
    results: Sequence[tuple[Study[Any, Any], Any]]
    model: str = ""

    @property
    def claims(self) -> dict[str, Claim]:
        """Its claims, by their words."""
        return {claim.words: claim for study, summary in self.results for claim in study.report.claims(summary)}


def opening_sentences(results: Sequence[tuple[Study[Any, Any], Any]]) -> list[str]:
    """The first plain sentences of each study's conclusion, five at most; the leading study gives the others.

    Sentences of one study stay together, since the later ones refer to the first. Studies of settings come last.
    """
    each = [_sentences(study, summary) for study, summary in results]
    order = sorted(
        (0 if place < together else place, results[number][0].of_settings, number, place)
        for number, (own, together) in enumerate(each)
        for place in range(len(own))
    )
    chosen = [(number, place) for _, _, number, place in order[:SENTENCES]]
    return [each[number][0][place] for number, place in sorted(chosen)]


def _sentences(study: Study[Any, Any], summary: Any) -> tuple[list[str], int]:
    """Plain sentences of a study, and how many of the first ones belong together."""
    conclusion = study.report.conclusion(summary)
    if conclusion is not None:
        return list(conclusion.sentences), conclusion.together
    headlines = [finding.text for finding in study.report.findings(summary) if finding.headline]
    return [text.replace("**", "") for text in headlines[:1]], 1


def compare_page(models: Sequence[ComparedModel]) -> str:
    """Writes the page that compares models as markdown."""
    links = "\n".join(f"- [{model.name}]({model.page}){_about(model)}" for model in models)
    sentences = "\n".join(f"{number}. {text}" for number, text in enumerate(compare_sentences(models), start=1))
    shown = "" if compare_figure(models) is None else "![Leading claims on each model](images/studies/compared.png)\n"
    rows = [
        [what, *("" if claim is None else _cell(claim) for claim in claims)]
        for what, claims in _by_claim(models).items()
    ]
    return (
        "\n".join(
            [
                _HEAD.format(models=joined(_names(models))),
                sentences + "\n",
                shown,
                "## One page a model\n",
                links + "\n",
                "## Words\n",
                _WORDS,
                "## All claims\n",
                "A claim *holds* if its whole 95 % interval lies above the level; it is *refuted* if the interval lies "
                "below it, and *open* if it includes it. Where a row names nulls (other labels, random vectors), the "
                "claim is *open* unless its interval lies above theirs, and so are claims that rest on it. Levels are "
                "0, unless given. Claims whose intervals are known to be too narrow (few concepts) are *open*, and "
                "count in the sentences above only where there is no larger run. An empty cell was not measured. Each "
                "interval stands for itself: none is corrected for the number of claims.\n",
                table(["claim", *(model.name for model in models)], rows),
            ]
        ).rstrip()
        + "\n"
    )


def _about(model: ComparedModel) -> str:
    words = _ABOUT.get(model.name)
    return f": {words}" if words else ""


def _names(models: Sequence[ComparedModel]) -> list[str]:
    """Names of the models, each once."""
    return list(dict.fromkeys(model.model or model.name for model in models))


@dataclass(frozen=True)
class _Answer:
    """Verdicts on a claim, by model.

    Attributes:
        verdicts: for each model on which the claim was measured, its verdicts: `holds`, `open`, `refuted`; several if
            runs on different pictures disagree.
    """

    verdicts: Mapping[str, tuple[str, ...]]

    @property
    def holding(self) -> tuple[str, ...]:
        """Models on which the claim holds in every run."""
        return tuple(name for name, own in self.verdicts.items() if own == ("holds",))

    @property
    def unknown(self) -> bool:
        """True if every interval on every model leaves the claim open."""
        return all(own == ("open",) for own in self.verdicts.values())

    def words(self, names: Sequence[str]) -> str:
        """Heading of the claims with this answer."""
        if self.unknown:
            return _UNKNOWN
        groups: dict[tuple[str, ...], list[str]] = {}
        for name in names:
            groups.setdefault(self.verdicts.get(name, ("not measured",)), []).append(name)
        ordered = sorted(groups.items(), key=lambda group: _VERDICTS.index(group[0][0]))
        parts: list[str] = []
        for verdicts, own in ordered:
            where = joined(own)
            if len(ordered) == 1 and len(own) > 1:
                where = "both" if len(own) == 2 else "all of them"
            parts.append(
                f"{' or '.join(verdicts)} on {where}{', depending on the pictures' if len(verdicts) > 1 else ''}"
            )
        text = ("; " if any(len(own) > 1 for own in groups) else ", ").join(parts)
        return f"{text[0].upper()}{text[1:]}"


def _answer(models: Sequence[ComparedModel], claims: Sequence[Claim | None]) -> _Answer:
    """Verdicts by model; a run whose intervals are too narrow counts only if its model has no other."""
    runs: dict[str, list[Claim]] = {}
    for model, claim in zip(models, claims, strict=True):
        if claim is not None:
            runs.setdefault(model.model or model.name, []).append(claim)
    measured = {
        name: {_verdict(claim) for claim in [claim for claim in own if not claim.narrow] or own}
        for name, own in runs.items()
    }
    return _Answer({name: tuple(sorted(own, key=_VERDICTS.index)) for name, own in measured.items()})


def compare_sentences(models: Sequence[ComparedModel]) -> list[str]:
    """Plain sentences: which of the leading claims hold where, which are refuted, and what nobody knows yet.

    Claims that hold on the same models share a sentence, whatever was found on the others.
    """
    names = _names(models)
    unknown: list[Claim] = []
    groups: dict[tuple[str, ...], dict[str, tuple[_Answer, list[Claim]]]] = {}
    for claims in _by_claim(models).values():
        first = next(claim for claim in claims if claim is not None)
        if not first.leading:
            continue
        answer = _answer(models, claims)
        if answer.unknown:
            unknown.append(first)
        else:
            groups.setdefault(answer.holding, {}).setdefault(answer.words(names), (answer, []))[1].append(first)
    sentences = [
        " ".join(f"**{words}:** {_named(own)}." for words, (_, own) in sorted(group.items(), key=_disagreement))
        for _, group in sorted(groups.items(), key=lambda item: -len(item[0]))
    ]
    last = [text for text in (_unknown(unknown), _not_run(models)) if text]
    kept = max(SENTENCES - bool(last), 0)
    if () in groups and len(sentences) > kept:
        sentences = [*sentences[: kept - 1], sentences[-1]]
    return [*sentences[:kept], *([" ".join(last)] if last else [])]


def _disagreement(group: tuple[str, tuple[_Answer, list[Claim]]]) -> tuple[bool, int]:
    """Sorts groups of claims: first those measured on all models, and of these, those on which models agree."""
    words, (answer, _) = group
    return _VERDICTS[-1] in words, len(set(answer.verdicts.values()))


def _unknown(claims: Sequence[Claim]) -> str:
    """Claims that no interval decides on any model."""
    return f"**{_UNKNOWN}:** whether {_named(claims)}." if claims else ""


def _not_run(models: Sequence[ComparedModel]) -> str:
    """Studies that were not run on some model."""
    run: dict[str, set[str]] = {}
    for model in models:
        run.setdefault(model.model or model.name, set()).update(study.name for study, _ in model.results)
    missing: dict[tuple[str, ...], list[str]] = {}
    for study in studies.STUDIES.values():
        if without := tuple(name for name, own in run.items() if study.name not in own):
            missing.setdefault(without, []).append(study.title.lower())
    not_run = "; ".join(f"{joined(titles)} on {joined(without)}" for without, titles in missing.items())
    return f"**Not run yet:** {not_run}." if missing else ""


def _named(claims: Sequence[Claim]) -> str:
    """Claims in words; those that differ in what was measured alone are named once."""
    merged: dict[str, list[str]] = {}
    for claim in claims:
        merged.setdefault(claim.what, []).append(claim.how)
    words = [
        f"{what[0].lower()}{what[1:]}" + (f" ({joined(how)})" if (how := [each for each in hows if each]) else "")
        for what, hows in merged.items()
    ]
    rest = len(words) - _NAMED
    return "; ".join(words[:_NAMED]) + (f"; and {rest} more below" if rest > 0 else "")


def _by_claim(models: Sequence[ComparedModel]) -> dict[str, list[Claim | None]]:
    """Each claim on every model, None where it was not measured; in the order of the first model that has it."""
    each = [model.claims for model in models]
    return {what: [claims.get(what) for claims in each] for what in dict.fromkeys(what for own in each for what in own)}


def _verdict(claim: Claim) -> str:
    return "holds" if claim.holds else "refuted" if claim.refuted else "open"


def _cell(claim: Claim) -> str:
    """Verdict on a claim with its figure, its nulls and its caution."""
    words = "**holds**" if claim.holds else _verdict(claim)
    level = f" (level {claim.level:g})" if claim.level else ""
    nulls = joined([f"{name} {interval(null)}" for name, null in claim.nulls]) if claim.nulls else ""
    note = "; ".join(filter(None, (nulls, claim.note)))
    return f"{words} {interval(claim.estimate)}{level}{f' ({note})' if note else ''}"


def compare_figure(models: Sequence[ComparedModel]) -> Figure | None:
    """Draws the leading claims, one line per model and view, its marker filled if the claim holds; None without any."""
    names = _names(models)
    rows: dict[str, dict[tuple[str, str], Claim]] = {}
    for claims in _by_claim(models).values():
        for model, claim in zip(models, claims, strict=True):
            if claim is not None and claim.leading:
                rows.setdefault(claim.what, {}).setdefault((claim.how, model.model or model.name), claim)
    if not rows:
        return None
    styles = dict(zip(names, [(DARK, "o"), (MIDDLE, "s"), (STRONG, "^"), (LIGHT, "D")] * len(names), strict=False))
    most = max(len(own) for own in rows.values())
    figure = Figure(figsize=(10, (0.16 * most + 0.12) * len(rows) + 1.4), layout="constrained")
    axes = figure.subplots()
    for place, own in enumerate(reversed(rows.values())):
        if place % 2:
            axes.axhspan(place - 0.5, place + 0.5, color=FAINT, zorder=0)
        for line, ((how, name), claim) in enumerate(own.items()):
            at = place + 0.8 * ((len(own) - 1) / 2 - line) / max(most, 2)
            _draw_claim(axes, claim, at, *styles[name], dashed=how == "in pictures")
    for name, (colour, marker) in styles.items():
        axes.plot([], [], marker, color=colour, label=name, markersize=5)
    axes.plot([], [], "o", color=STRONG, markerfacecolor="white", label="hollow: does not hold", markersize=5)
    axes.plot([], [], "-", color=STRONG, label="before decoding")
    axes.plot([], [], ":", color=STRONG, label="in pictures")
    axes.axvline(0, color=DARK, linewidth=0.8)
    axes.set_ylim(-0.5, len(rows) - 0.5)
    axes.set_yticks(range(len(rows)), [_broken(words) for words in reversed(rows)], fontsize=8)
    axes.set_xlabel(
        "a claim holds if its whole line, the 95 % interval less the level that it must exceed, lies right of 0",
        fontsize=9,
    )
    figure.legend(loc="outside upper right", fontsize=8, frameon=False, ncols=len(names) + 3)
    plain_axes(axes, label_size=8)
    return figure


def _draw_claim(axes: Axes, claim: Claim, place: float, colour: str, marker: str, *, dashed: bool) -> None:
    estimate, fill = claim.estimate, colour if claim.holds else "white"
    ends = [estimate.low - claim.level, estimate.high - claim.level]
    axes.plot(ends, [place, place], color=colour, linewidth=1.4, linestyle=":" if dashed else "-")
    axes.plot(estimate.value - claim.level, place, marker, color=colour, markerfacecolor=fill, markersize=5)


def _broken(words: str, width: int = 62) -> str:
    """Words in lines of some width."""
    return re.sub(rf"(.{{1,{width}}})(?:\s+|$)", r"\1\n", words).strip()
