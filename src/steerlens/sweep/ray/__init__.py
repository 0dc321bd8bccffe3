"""The sweep on Ray: the same plan, computed by workers."""
