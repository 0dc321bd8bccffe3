"""Runs: results on disk, written once and read piece by piece."""
