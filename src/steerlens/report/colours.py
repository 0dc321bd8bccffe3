"""Colours of scores: a sequential and a diverging ramp, the same on the page, in notebooks and in figures.

Both are from ColorBrewer (YlGnBu and PuOr, Apache-2.0) and safe for colour-blind readers; the first darkens steadily,
so it survives greyscale.

References: Harrower and Brewer, "ColorBrewer.org", The Cartographic Journal 40(1), 2003.
"""

SEQUENTIAL = ("#ffffd9", "#edf8b1", "#c7e9b4", "#7fcdbb", "#41b6c4", "#1d91c0", "#225ea8", "#253494", "#081d58")
DIVERGING = ("#b35806", "#e08214", "#fdb863", "#fee0b6", "#f7f7f7", "#d8daeb", "#b2abd2", "#8073ac", "#542788")


def colour(value: float, low: float, high: float, ramp: tuple[str, ...] = SEQUENTIAL) -> str:
    """Colour `#rrggbb` of a value; values outside low and high take the colour of the nearer end."""
    position = min(max((value - low) / (high - low), 0.0), 1.0) * (len(ramp) - 1)
    index = min(int(position), len(ramp) - 2)
    left, right = (bytes.fromhex(ramp[index + side][1:]) for side in (0, 1))
    mixed = (round(a + (b - a) * (position - index)) for a, b in zip(left, right, strict=True))
    return "#" + "".join(f"{channel:02x}" for channel in mixed)
