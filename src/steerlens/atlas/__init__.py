"""Atlas: the plan of a sweep and its results, as data."""
