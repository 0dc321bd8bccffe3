"""How a small encoder-decoder pair is made: data, scenes, three training stages, evaluation, export.

Nothing here is imported by the rest of the package, so that looking through a lens never needs what training needs.
"""
