"""Where an interval must not be believed to its last digit: percentiles over few draws are too narrow."""

FEW = 8
"""A percentile bootstrap over fewer concepts than this covers clearly less than the 95 % that it claims."""


def caution(count: int, what: str = "concepts") -> str:
    """A warning for figures and pages where fewer than `FEW` of something were drawn anew; empty otherwise."""
    return f"few {what} ({count}): intervals are too narrow" if count < FEW else ""
