"""The greys that figures of studies are drawn in: told apart on paper without colours."""

INK, DARK, STRONG, MIDDLE, SOFT, LIGHT, PALE, FAINT = (
    "#000000",
    "#222222",
    "#555555",
    "#888888",
    "#aaaaaa",
    "#bbbbbb",
    "#eeeeee",
    "#f3f3f3",
)
"""From black to nearly white: the first four for lines, the others for what lies behind them."""
