"""Ablation of every head of a model on one input: what the map *Without it* shows, layer by layer."""

from collections.abc import Iterator

from steerlens.app.answers import Answer, rounded
from steerlens.encoders import Encoder
from steerlens.sweep import TracedPicture, ablation_effects_by_layer


class HeadAblations:
    """Effects of ablating the heads of one input. Layers that were measured once are kept, also of stopped requests."""

    def __init__(self) -> None:
        self._layers: list[list[float | None]] = []

    def answers(self, encoder: Encoder, traced: TracedPicture) -> Iterator[Answer]:
        """Measures the layers that are missing.

        Yields:
            An answer `layer` for each layer, with its number and the `effects` of its heads, `1 - cosine` in [0,2].
        """
        known = list(self._layers)
        for layer, effects in enumerate(known):
            yield _answer(layer, effects)
        for layer, measured in enumerate(ablation_effects_by_layer(encoder, traced, len(known)), len(known)):
            effects = rounded(measured.tolist())
            # Another tab may have measured the same since.
            if layer == len(self._layers):
                self._layers.append(effects)
            yield _answer(layer, effects)


def _answer(layer: int, effects: list[float | None]) -> Answer:
    return Answer("layer", {"layer": layer, "effects": effects})
