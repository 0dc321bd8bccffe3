"""Sweeps: what to look at, planned, computed cell by cell, and stored."""
