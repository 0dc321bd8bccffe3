"""What the page of results says in words: why a bar was missed, where a ranking is lost, what else was tried.

Every sentence is chosen by the figures of the summaries, and holds no others.
"""

from collections.abc import Mapping, Sequence

from steerlens.studies.markdown import Json, excludes, interval, signed, table


def importance_findings(summary: Json) -> list[str]:
    """What the importance study comes to."""
    found = {row["score"]: row for row in summary["attenuation"]}
    differences, shares = summary["differences"], summary["ceiling_share"]
    lines = [
        _claim(
            "The paper's claim that the Steering Lens tells importance and the Diffusion Lens hardly does, on decoded "
            "pictures",
            differences["chosen; spearman"],
        ),
        _claim(
            "The same of the embeddings asked for, before any decoding", differences["chosen, not decoded; spearman"]
        )
        + f" There the Steering Lens reaches {interval(shares['chosen, not decoded'])} of the ceiling.",
    ]
    return lines + _lost(found["steering, chosen"])


def overlay_findings(summary: Json) -> list[str]:
    """What the overlay study comes to."""
    found = {row["score"]: row for row in summary["attenuation"]}
    areas = {row["name"]: row["area"] for row in summary["orders"]}
    low, high = summary["random_range"]
    area, asked = areas["steering, chosen"], areas["steering, chosen, not decoded"]
    clear = excludes(area) and area["value"] > high
    lines = [
        f"The Steering Lens' pictures order heads {'clear of' if clear else 'no better than'} random orders (area "
        f"{interval(area)}; single random ones {low:+.2f} to {high:+.2f}), "
        + (
            "but far from the reference: the paper's overlap with it is not found here."
            if area["value"] < 0.85
            else "close to the reference."
        ),
        _claim("Steering Lens less Diffusion Lens, decoded", summary["difference"]),
        f"Before decoding the same score reaches an area of {interval(asked)}; the exact direct effect, of which no "
        f"lens of direct contributions can know more, {interval(areas['exact direct effect'])}.",
    ]
    return lines + _lost(found["steering, chosen"])


def _claim(what: str, difference: Json) -> str:
    if not excludes(difference):
        return f"{what}: **not found** ({interval(difference)}, which includes 0)."
    return f"{what}: **{'found' if difference['value'] > 0 else 'the reverse was found'}** ({interval(difference)})."


def _lost(row: Json) -> list[str]:
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
    return [
        f"{words}. More seeds would not mend it: without seed noise the correlation would be {signed(noise)}. It is "
        "the decoder, and not the number of pictures it was given, that bounds what pictures tell here."
    ]


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
        f"Where a ranking is lost (Spearman over heads with {effect}; the product is what decoding would leave if it "
        "only added noise; *without seed noise* divides by the root of the reliability):\n\n" + table(headings, cells)
    )


def candidates_table(choices: Mapping[str, Json], what: str) -> str:
    """All settings that each lens chose from."""
    rows = [
        [lens, name, signed(value)]
        for lens, choice in choices.items()
        for name, value in sorted(choice["candidates"].items(), key=lambda item: -(item[1] if item[1] else 0.0))
    ]
    return table(["lens", "candidate", what], rows)
