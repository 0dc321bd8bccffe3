"""Pictures unlike any that the bundled pair was trained on."""

import numpy as np
from PIL import Image, ImageFilter


def like_a_photograph(seed: int) -> Image.Image:
    """Detail at every scale and a colour gradient, up to all edges, as in photographs and in no emoji."""
    noise = np.random.default_rng(seed)
    sides = (3, 6, 12, 24, 48, 96, 192)
    layers = [
        np.asarray(
            Image.fromarray(noise.integers(0, 256, (side, side, 3), dtype=np.uint8)).resize((192, 192), Image.BICUBIC)  # type: ignore[attr-defined]
        )
        for side in sides
    ]
    pixels = np.average(np.stack(layers), axis=0, weights=[1 / side**0.5 for side in sides])
    spread = (pixels - pixels.mean()) / pixels.std() * 55 + 118
    return Image.fromarray(spread.clip(0, 255).astype(np.uint8)).filter(ImageFilter.GaussianBlur(0.6))
