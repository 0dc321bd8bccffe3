"""Decoders: what turns image embeddings, or image tokens, into pictures."""
