"""The zoo: cards of known models, how they are found and loaded, and the bundled pair."""
