"""What the page of results says in words: whether a claim holds, where a ranking is lost, what overlays come to.

Every sentence is chosen by the figures of the summaries, and holds no others.
"""

from collections.abc import Mapping, Sequence

from steerlens.studies.markdown import Json, excludes, interval, signed, table

OVERLAY_AIM = 0.85
"""Of the normalised area of the Steering Lens' order."""


def claim(what: str, difference: Json, own: Json, other: Json) -> str:
    """Whether the Steering Lens tells something, and more of it than the Diffusion Lens.

    Both are asked for: the paired difference must lie above 0, and so must the Steering Lens' own figure.

    Args:
        what: the claim.
        difference: Steering Lens minus Diffusion Lens.
        own: the Steering Lens' own figure.
        other: the Diffusion Lens' own figure.
    """
    sides = f"Steering Lens {interval(own)}, Diffusion Lens {interval(other)}, paired difference {interval(difference)}"
    if not excludes(difference):
        verdict, why = "not found", "the difference includes 0"
    elif difference["value"] < 0:
        verdict, why = "the reverse was found", "the Diffusion Lens does better"
    elif not (excludes(own) and own["value"] > 0):
        verdict, why = "not found", "the difference lies above 0, but the Steering Lens' own figure does not"
    else:
        verdict, why = "found", "the Steering Lens' own figure and the difference both lie above 0"
    return f"{what}: **{verdict}**; {why} ({sides})."


def overlay_findings(summary: Json) -> list[str]:
    """What the overlay study comes to."""
    found = {row["score"]: row for row in summary["attenuation"]}
    areas = {row["name"]: row["area"] for row in summary["orders"]}
    low, high = summary["random_range"]
    area, asked = areas["steering, chosen"], areas["steering, chosen, not decoded"]
    clear = excludes(area) and area["value"] > high
    lines = [
        f"The Steering Lens' pictures order heads {'clear of' if clear else 'no better than'} random orders (area "
        f"{interval(area)}; single random ones {low:+.2f} to {high:+.2f}).",
        _overlap(summary["differences"]["steering, chosen, minus one-shot effect"], areas["one-shot effect"]),
        claim(
            "The Steering Lens' pictures order heads better than the Diffusion Lens' do, each with its chosen setting",
            summary["difference"],
            area,
            areas["diffusion, chosen"],
        ),
        f"Not decoded, the Steering Lens reaches an area of {interval(asked)}; the exact direct effect, of which no "
        f"lens of direct contributions can know more, {interval(areas['exact direct effect'])}.",
    ]
    return lines + lost(found["steering, chosen"])


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


def lost(row: Json) -> list[str]:
    """The decoder's part in a missed bar: a finding where the picture says clearly less than what was asked for."""
    asked, made = row["asked"], row["made"]
    if asked["low"] is None or made["high"] is None or asked["low"] <= made["high"]:
        return []
    words = (
        f"Why: the ranking is in the embedding ({interval(asked)}) and is lost in decoding ({interval(made)}). Decoded "
        f"and undecoded scores agree to {interval(row['passed_on'])} over heads, and pictures come back with a "
        f"fidelity of {interval(row['fidelity'])}. A decoder that only added noise would leave "
        f"{signed(row['asked']['value'])} x {signed(row['passed_on']['value'])} = {signed(row['expected'])}"
    )
    noise = row["without_noise"]
    if noise is None:
        return [f"{words}."]
    if noise < asked["low"]:
        return [
            f"{words}. More seeds would not mend it: without seed noise the correlation would be {signed(noise)}. It "
            "is the decoder, and not the number of pictures it was given, that bounds what pictures tell here."
        ]
    return [f"{words}. More seeds might mend it: without seed noise the correlation would be {signed(noise)}."]


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
        for name, value in sorted(choice["candidates"].items(), key=lambda item: -(item[1] if item[1] else 0.0))
    ]
    return table(["lens", "candidate", what], rows)
