"""Lenses: what turns a trace and sites into labels or into image embeddings to decode."""
