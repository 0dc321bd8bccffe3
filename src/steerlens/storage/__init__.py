"""Storage: files, locks, manifests and weights on disk."""
