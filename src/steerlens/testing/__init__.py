"""For the authors of adapters: tiny random models of every family, and the checks an adapter must pass."""
