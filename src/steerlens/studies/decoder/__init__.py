"""The decoder study: what a decoder adds, and how many steps are enough."""
