"""The decoder study: how much of a picture the decoder invents, and how many steps are enough."""
