"""Encoders: native Vision Transformers, opened up for tracing, steering and intervening."""
