"""The sweep on Ray: the same plan, carried out by workers."""
