"""steerlens: see what each part of a Vision Transformer writes into its image embedding, as pictures."""

from steerlens._version import __version__

__all__ = ["__version__"]
