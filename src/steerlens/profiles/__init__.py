"""Profiles: what every head does over many pictures."""
