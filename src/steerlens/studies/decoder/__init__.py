"""The decoder study: what a decoder adds, and how many steps are worth their time."""
