"""Tables of the importance study's page that set the lenses beside baselines without a lens."""

from collections.abc import Iterable

from steerlens.studies.importance.results import PARTIALS, POOLED, ImportanceSummary, OracleShare
from steerlens.studies.importance.scored import CEILING
from steerlens.studies.importance.scores import LESS_NORM, PLAIN_KIND, UNDECODED, WEAKER_KIND
from steerlens.studies.shared.candidates import CHOSEN, LENSES, ONE_FACTOR_NAME, readable
from steerlens.studies.shared.effects import Effect
from steerlens.studies.shared.markdown import interval, table
from steerlens.studies.shared.oracle import ORACLES, oracle_name
from steerlens.studies.shared.partial import LAYER, NORM
from steerlens.studies.shared.targets import RECOGNISED, TEXT

_RAW = {"spearman": "raw", POOLED: "pooled", **{name: name for name in PARTIALS}}


def main_table(summary: ImportanceSummary) -> list[str]:
    """Writes the main table: both lenses and the baselines, against four notions of importance."""
    effects = _effects(summary)
    if not effects:
        return []
    rows = [
        [_words(name), *(interval(row.estimate) if (row := summary.row(name, effect)) else "" for effect in effects)]
        for name in _main_rows(summary, effects)
    ]
    return [
        "## Main table\n",
        "Spearman correlations over heads, mean over pictures, with four notions of importance. The Steering Lens "
        "steers with `rho=1`; nothing was tuned in this table.\n",
        table(["score", *map(_short, effects)], rows),
        *_recognised(summary),
    ]


def baseline_tables(summary: ImportanceSummary) -> list[str]:
    """Writes partial and pooled correlations, targets that mean nothing, and the oracle."""
    return [*_partials(summary), *_nulls(summary), *_oracle(summary)]


def _partials(summary: ImportanceSummary) -> Iterable[str]:
    effects = [effect for effect in _effects(summary) if summary.row(NORM, effect, POOLED) is not None]
    if not effects:
        return
    yield "## What is left given size and layer\n"
    yield (
        "*Pooled*: one correlation over all pictures and heads. *Given*: partial rank correlations, with the norm of "
        "the write, the number of the layer, or both held fixed; intervals by the same bootstrap. Where a baseline is "
        "*above both lenses* by point estimate, a lens is not shown to know more of which heads matter.\n"
    )
    for effect in effects:
        yield f"{str(effect).capitalize()}:\n"
        rows = [
            [
                _words(name) + (" (above both lenses)" if _exceeds(summary, name, effect) else ""),
                *(interval(row.estimate) if (row := summary.row(name, effect, kind)) else "" for kind in _RAW),
            ]
            for name in _main_rows(summary, [effect])
        ]
        for label in (f"{PLAIN_KIND}{ending}" for ending in _endings(effect)):
            if summary.difference(label, effect, "given norm") is None:
                continue
            cells = [
                ""
                if kind == POOLED or (row := summary.difference(label, effect, kind)) is None
                else interval(row.estimate)
                for kind in _RAW
            ]
            rows.append([readable(f"Steering minus Diffusion Lens, {label}"), *cells])
            if (less := summary.difference(f"{label}{LESS_NORM}", effect)) is not None:
                rows.append(
                    [
                        readable(f"Steering Lens minus norm of the write, {label}"),
                        interval(less.estimate),
                        "",
                        "",
                        "",
                        "",
                    ]
                )
        yield table(["score", *_RAW.values()], rows)


def _exceeds(summary: ImportanceSummary, name: str, effect: Effect) -> bool:
    """True of a baseline whose correlation exceeds those of all scores of the lenses without tuning."""
    own = summary.row(name, effect)
    lenses = [summary.row(f"{lens}, {PLAIN_KIND}{ending}", effect) for lens in LENSES for ending in _endings(effect)]
    values = [row.estimate.value for row in lenses if row is not None]
    return name in (NORM, LAYER) and own is not None and own.estimate.value > max(values, default=float("inf"))


def _endings(effect: Effect) -> list[str]:
    towards = ["", f", towards {effect.target}"] if effect.target else [""]
    return [f"{to}{view}" for to in towards for view in (f", {UNDECODED}", "")]


def _nulls(summary: ImportanceSummary) -> Iterable[str]:
    if not summary.nulls:
        return
    rows = [
        [readable(row.score), str(row.effect), interval(row.own), interval(row.others), interval(row.random)]
        for row in summary.nulls
    ]
    yield "## Does the label matter?\n"
    yield (
        "Score and effect are turned towards other targets together: the labels of other pictures, and random vectors. "
        "If they do as well as the picture's own label, the figure is the angle between direct and total displacement, "
        "and says nothing of the label. The middle column is also the answer for many names instead of one.\n"
    )
    yield table(["score", "effect", "own label", "other pictures' labels", "random vectors"], rows)


def _oracle(summary: ImportanceSummary) -> Iterable[str]:
    if not summary.oracle:
        return
    rows = [
        [
            readable(row.score),
            str(row.effect),
            interval(row.own),
            row.oracle,
            interval(row.undecoded),
            interval(row.most),
            _share(row),
        ]
        for row in summary.oracle
    ]
    yield "## What decoding leaves of the true effect\n"
    yield (
        "The oracle decodes the *true total effect* of each head, amplified. It moves the embedding equally far for "
        "all heads (*same length*, as the lens does), or by one factor for all (*one factor*, which keeps the sizes of "
        "effects; for an unsigned effect it is scored by distance from the input). It is no upper bound: *same length* "
        "removes the sizes of effects, and a lens may exceed it. Lens and oracle have the same decoder seed. No "
        "share is given of an oracle that is not shown to be above 0.\n"
    )
    headings = ["score", "effect", "lens, decoded", "oracle", "oracle, not decoded", "oracle, decoded", "share"]
    yield table(headings, rows)


def _share(row: OracleShare) -> str:
    """Share of an oracle; empty if the oracle itself shows nothing."""
    return interval(row.share) if row.most.above() else ""


def _effects(summary: ImportanceSummary) -> list[Effect]:
    """Effects of the main table, those towards the label last."""
    target = summary.main.target or TEXT
    wanted = [Effect("total", to, name) for to in ("", target) for name in ("zero", "mean")]
    return [effect for effect in wanted if summary.row(NORM, effect) is not None]


def _main_rows(summary: ImportanceSummary, effects: list[Effect]) -> list[str]:
    """Names of the rows, the lenses first, then what needs no lens."""
    target = next((effect.target for effect in effects if effect.target), "")
    towards = ["", f", towards {target}"] if target else [""]
    names = [f"{lens}, {PLAIN_KIND}{to}{view}" for view in (f", {UNDECODED}", "") for to in towards for lens in LENSES]
    names += [f"{lens}, {CHOSEN}{view}" for view in (f", {UNDECODED}", "") for lens in LENSES]
    names += [f"steering, {WEAKER_KIND}, {UNDECODED}", f"{ONE_FACTOR_NAME}, {UNDECODED}", ONE_FACTOR_NAME]
    names += [CEILING, *map(oracle_name, ORACLES), NORM, LAYER, "random"]
    return [name for name in names if any(summary.row(name, effect) is not None for effect in effects)]


_LENS_WORDS = {"steering": "Steering Lens", "diffusion": "Diffusion Lens"}


def _words(name: str) -> str:
    lens, comma, rest = name.partition(", ")
    if lens not in _LENS_WORDS or not comma or not rest.startswith(PLAIN_KIND):
        return readable(name)
    to = "the label" if f"towards {TEXT}" in rest else "the target" if "towards" in rest else "the input"
    return f"{_LENS_WORDS[lens]}, similarity with {to}, {UNDECODED if UNDECODED in rest else 'decoded'}"


def _short(effect: Effect) -> str:
    return f"{'signed' if effect.target else 'unsigned'}, {effect.ablation} ablation"


def _recognised(summary: ImportanceSummary) -> list[str]:
    if summary.n_recognised < 0:
        return []
    count = (
        f"The encoder recognises {summary.n_recognised} of {summary.n_pictures} pictures: the own label is among its "
    )
    count += f"{RECOGNISED} best names. A picture whose label the vocabulary lacks counts as not recognised."
    if summary.n_counted < summary.n_pictures:
        return [f"{count} Only these count for signed effects towards labels.\n"]
    return [f"{count} {'All' if summary.n_counted == summary.n_recognised else 'These are too few, so all'} count.\n"]
