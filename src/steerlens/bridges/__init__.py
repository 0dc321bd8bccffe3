"""Bridges: maps from one encoder's embedding space to another's, so that a decoder of the second shows the first."""
