"""Scenes: sets of named pictures, and scenes composed of them."""
