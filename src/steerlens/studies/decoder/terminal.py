"""Results of the decoder study on the terminal."""

from pathlib import Path

from steerlens.studies.decoder.conclusion import decoder_conclusion
from steerlens.studies.decoder.results import DecoderSummary
from steerlens.studies.shared.folder import read_json
from steerlens.studies.shared.stats import caution
from steerlens.studies.shared.terminal import closing_lines


def decoder_lines(summary: DecoderSummary, folder: Path) -> list[str]:
    """Lines of results: every setting with its time, the ranking without decoding, the fewest steps."""
    timings = read_json(folder / "timings.json") or {}
    reference, width = summary.reference, max(len(row.name) for row in summary.rows)
    lines = [
        f"{summary.n_pictures} pictures, {summary.n_decoded} of {summary.n_heads} heads, {len(summary.seeds)} seeds; "
        f"steered with {summary.strength}, ranked by similarity with {summary.target}",
        f"reference: {reference.name}; correlation of a seed with the others' mean (self-agreement): "
        f"{reference.own.rank_correlation}",
        f"{'setting':{width}} {'rank correlation':22} {'of self-agreement':22} {'agreement':22} seconds per picture",
    ]
    for row in summary.rows:
        seconds = timings.get(row.name, {}).get("seconds")
        cells = (row.own.rank_correlation, row.own.share, row.own.agreement)
        words = " ".join(f"{cell!s:22}" for cell in cells)
        lines.append(f"{row.name:{width}} {words} {'' if seconds is None else f'{seconds:.3f}'}")
    fewest, certain = ("none" if steps is None else steps for steps in (summary.cheapest_steps, summary.certain_steps))
    lines += [
        f"ranking without decoding, correlation with the mean of the reference: {summary.undecoded}; limit without "
        f"noise: {summary.undecoded_ceiling}; share of the limit: {summary.undecoded_share}",
        *(f"without a lens, {name}: {estimate}" for name, estimate in summary.baselines.items()),
        f"invented (1 - agreement over seeds): {summary.invented}; 1 - agreement of different inputs: "
        f"{1 - summary.default.own.unrelated:.2f}",
        f"fewest steps whose share of the self-agreement is {summary.wanted:g}: {fewest} by point estimate, {certain} "
        "by the lower end of the interval",
    ]
    return [*lines, *decoder_conclusion(summary).lines(), *closing_lines(folder, caution(summary.n_concepts))]
