"""Readers of sparse autoencoders, one file for each library that writes them."""
