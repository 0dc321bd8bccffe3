"""Results of the importance study on the terminal."""

from pathlib import Path

from steerlens.studies.importance.baselines import TABLE_ABLATIONS
from steerlens.studies.importance.conclusion import importance_conclusion
from steerlens.studies.importance.results import PARTIALS, ImportanceSummary
from steerlens.studies.importance.scores import PLAIN_KIND, UNDECODED, WEAKER_KIND
from steerlens.studies.shared.candidates import LENSES, ONE_FACTOR_NAME
from steerlens.studies.shared.effects import Effect
from steerlens.studies.shared.oracle import ORACLES, oracle_name
from steerlens.studies.shared.partial import LAYER, NORM
from steerlens.studies.shared.remainder import remainder_lines
from steerlens.studies.shared.stats import caution
from steerlens.studies.shared.terminal import closing_lines


def importance_lines(summary: ImportanceSummary, folder: Path) -> list[str]:
    """Lines of results: choices, correlations with the main effect, paired differences."""
    given = f" ({summary.setup.given!r})" if summary.setup.given else ""
    lines = [
        f"{summary.n_pictures} pictures of {summary.n_concepts} concepts, {summary.n_heads} heads; effect: "
        f"{summary.main}{given}",
        *([f"sparse autoencoder {summary.setup.sae}"] if summary.setup.sae else []),
        *remainder_lines(summary.remainders, str(summary.remainder_effect), summary.n_heads, summary.setup.sae),
        *summary.setup.notes,
        *(
            f"  chosen for {lens}: {choice}; not decoded: {summary.choices.undecoded[lens]}"
            for lens, choice in summary.choices.decoded.items()
        ),
        "Spearman correlation over heads, mean over pictures, 95 % interval (with other pictures' effects):",
    ]
    rows = [row for row in summary.rows if row.effect == summary.main and row.statistic == "spearman"]
    lines += [
        f"  {row.score + (' *' if row.by_construction else ''):47} {row.estimate}  ({row.mismatched:+.2f})"
        for row in rows
    ]
    if any(row.by_construction for row in rows):
        lines.append(
            "  * compares the requested embedding with the effect's own target: a check of consistency, no evidence"
        )
    lines.append("steering minus diffusion, paired:")
    for difference in summary.differences:
        if difference.statistic == "spearman":
            effect = "" if difference.effect == summary.main else f"  ({difference.effect})"
            zero = "" if difference.estimate.excludes_zero else "  (includes 0)"
            lines.append(f"  {difference.name:47} {difference.estimate}{zero}{effect}")
    for name, estimate in summary.ceiling_share.items():
        lines.append(f"  {f'share of the exact direct effect, {name}':47} {estimate}")
    conclusion = importance_conclusion(summary)
    words = [] if conclusion is None else conclusion.lines()
    return [*lines, *_plain_lines(summary), *words, *closing_lines(folder, caution(summary.n_concepts))]


def _plain_lines(summary: ImportanceSummary) -> list[str]:
    """The paper's claim with a relative strength: raw, and with norm and layer held fixed."""
    lines: list[str] = []
    for ablation in TABLE_ABLATIONS:
        effect = Effect("total", "", ablation)
        if summary.row(NORM, effect, "pooled") is None:
            continue
        lines.append(f"{effect}: raw; given norm; given layer; given both; pooled")
        names = [f"{lens}, {PLAIN_KIND}{view}" for view in (f", {UNDECODED}", "") for lens in LENSES]
        names += [f"steering, {WEAKER_KIND}, {UNDECODED}", f"{ONE_FACTOR_NAME}, {UNDECODED}", NORM, LAYER]
        for name in [*names, *map(oracle_name, ORACLES)]:
            rows = [summary.row(name, effect, kind) for kind in ("spearman", *PARTIALS, "pooled")]
            if any(rows):
                lines.append(f"  {name:36} " + "  ".join("-" if row is None else str(row.estimate) for row in rows))
        for label in (f"{PLAIN_KIND}, {UNDECODED}", PLAIN_KIND):
            found = [summary.difference(label, effect, kind) for kind in ("spearman", *PARTIALS)]
            if any(found):
                cells = "  ".join("-" if row is None else str(row.estimate) for row in found)
                lines.append(f"  {f'steering minus diffusion, {label}':36} {cells}")
    lines += [
        f"share of the decoded true effect ({row.oracle}): {row.score}, {row.effect}: {row.share} "
        f"(lens {row.own}, oracle {row.most}, not decoded {row.undecoded})"
        for row in summary.oracle
    ]
    lines += [
        f"towards own label {row.own}, other labels {row.others}, random vectors {row.random}: {row.score}, "
        f"{row.effect}"
        for row in summary.nulls
    ]
    if summary.n_recognised >= 0:
        lines.append(f"recognised: {summary.n_recognised} of {summary.n_pictures} pictures")
    return lines
