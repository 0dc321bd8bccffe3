"""What the page of results says in words: whether a claim holds, where a ranking is lost, what overlays come to.

Which sentence is printed depends on the summaries' figures, and it holds no others.
"""

from collections.abc import Mapping, Sequence

from steerlens.studies.shared.markdown import Json, above, at_least, excludes, interval, signed, table

OVERLAY_AIM = 0.85
"""Of the normalised area of the Steering Lens' order."""


def claim(what: str, difference: Json, own: Json, other: Json, *, alone: bool = False) -> str:
    """Whether the Steering Lens tells something, and more of it than the Diffusion Lens.

    Both are asked for: the paired difference must lie above 0, and so must the Steering Lens' own figure; for the
    reverse, the other way round.

    Args:
        what: the claim.
        difference: Steering Lens minus Diffusion Lens.
        own: the Steering Lens' own figure.
        other: the Diffusion Lens' own figure.
        alone: whether the claim is that the Diffusion Lens tells hardly anything: its figure may not lie above 0.
    """
    sides = f"Steering Lens {interval(own)}, Diffusion Lens {interval(other)}, paired difference {interval(difference)}"
    if not excludes(difference):
        verdict, why = "not found", "the difference includes 0"
    elif not above(difference):
        verdict, why = "the reverse was found", "the Diffusion Lens does better"
        if not above(other):
            verdict, why = "not found", "the difference lies below 0, and neither lens' own figure above it"
    elif not above(own):
        verdict, why = "not found", "the difference lies above 0, but the Steering Lens' own figure does not"
    elif alone and above(other):
        verdict, why = "found in part", "the Steering Lens tells more, but the Diffusion Lens tells it too"
    else:
        verdict, why = "found", "the Steering Lens' own figure and the difference both lie above 0"
    return f"{what}: **{verdict}**; {why} ({sides})."


def overlay_findings(summary: Json) -> list[str]:
    """What the overlay study comes to."""
    found = {row["score"]: row for row in summary["attenuation"]}
    areas = {row["name"]: row["area"] for row in summary["orders"]}
    low, high = summary["random_range"]
    area, asked = areas["steering, chosen"], areas["steering, chosen, not decoded"]
    better = "no better than random orders"
    if above(area):
        better = "clear of random orders" if area["value"] > high else "better than random orders are on average"
    direct = areas["exact direct effect"]
    most = ", of which no lens of direct contributions can know more," if at_least(direct, asked) else ""
    lines = [
        f"The Steering Lens' pictures order heads {better} (area {interval(area)}; single random ones {low:+.2f} to "
        f"{high:+.2f}).",
        _overlap(summary["differences"]["steering, chosen, minus one-shot effect"], areas["one-shot effect"]),
        claim(
            "The Steering Lens' pictures order heads better than the Diffusion Lens' do, each with its chosen setting",
            summary["difference"],
            area,
            areas["diffusion, chosen"],
        ),
        claim(
            "The same before decoding, each with the setting chosen for that",
            summary["differences"]["steering minus diffusion, chosen, not decoded"],
            asked,
            areas["diffusion, chosen, not decoded"],
        ),
        f"Not decoded, the Steering Lens reaches an area of {interval(asked)}; the exact direct effect{most} "
        f"{interval(direct)}.",
    ]
    return lines + lost(found["steering, chosen"], "each head's own effect on the objective")


def _overlap(difference: Json, one_shot: Json) -> str:
    """The paper's claim of an overlap with the order of true single effects, by the paired difference from it."""
    what = (
        "The paper's claim that the Steering Lens' trajectory overlaps with that of the ACDC-like order (heads sorted "
        f"by their true single effects, area {interval(one_shot)}), decoded"
    )
    if not excludes(difference):
        return f"{what}: **not contradicted**; the paired difference of areas includes 0 ({interval(difference)})."
    if difference["value"] > 0:
        return f"{what}: **surpassed**; its area is larger (paired difference {interval(difference)})."
    return f"{what}: **not found**; its area is smaller (paired difference {interval(difference)})."


def lost(row: Json, effect: str, remark: str = "") -> list[str]:
    """What becomes of a ranking in decoding, where the picture says clearly less than what was asked for.

    Args:
        row: of the attenuation table.
        effect: what scores are correlated with, in words.
        remark: what must be known of the undecoded score.
    """
    asked, made = row["asked"], row["made"]
    if not above(asked) or made["high"] is None or asked["low"] <= made["high"]:
        return []
    words = (
        f"What decoding does, by Spearman correlations over heads with {effect}: the ranking is in the embedding asked "
        f"for ({interval(asked)}{remark}) and is {'partly ' if above(made) else ''}lost in the picture "
        f"({interval(made)}). Decoded and undecoded scores agree to {interval(row['passed_on'])}, and pictures come "
        f"back with a fidelity of {interval(row['fidelity'])}. A decoder that only added noise would leave "
        f"{signed(asked['value'])} x {signed(row['passed_on']['value'])} = {signed(row['expected'])}."
    )
    noise = row["without_noise"]
    if noise is None:
        return [words]
    words += f" Without the noise of seeds the picture's correlation would be about {signed(noise)}"
    if noise - made["value"] < asked["value"] - noise:
        return [f"{words}: more seeds would mend the smaller part, the larger is lost by the decoder itself."]
    return [f"{words}: more seeds might mend most of it."]


def attenuation_table(rows: Sequence[Json], effect: str) -> str:
    """What decoding leaves of each lens' score."""
    cells = [
        [
            row["score"],
            interval(row["asked"]),
            interval(row["passed_on"]),
            signed(row["expected"]),
            interval(row["made"]),
            signed(row["without_noise"]),
            interval(row["fidelity"]),
            f"{row['spread_asked']:.3f} / {row['spread_made']:.3f}",
        ]
        for row in rows
    ]
    headings = ["score", "not decoded", "decoded with not decoded", "product", "decoded", "without seed noise"]
    headings += ["fidelity", "spread over heads, not decoded / decoded"]
    return (
        f"Where a ranking is lost (Spearman over heads with {effect}; the same setting before and after decoding; the "
        "product is what decoding would leave if it only added noise; *without seed noise* divides by the root of the "
        "reliability):\n\n" + table(headings, cells)
    )


def candidates_table(choices: Mapping[str, Json], what: str) -> str:
    """All settings that each lens chose from."""
    rows = [
        [lens, name, signed(value)]
        for lens, choice in choices.items()
        for name, value in sorted(choice["candidates"].items(), key=lambda item: 2.0 if item[1] is None else -item[1])
    ]
    return table(["lens", "candidate", what], rows)
