"""The domain of a pair: foreign pictures are told from those of the reference, and statistics survive their file."""

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw

from steerlens.domain import LEAST, DomainReference, fit_reference, percentile, reference_from_bytes, reference_to_bytes
from steerlens.errors import ModelError, UsageError


def blob(seed: int) -> Image.Image:
    """A disc on a plain background."""
    noise = np.random.default_rng(seed)
    image = Image.new("RGB", (64, 64), tuple(noise.integers(0, 256, 3).tolist()))
    x, y, r = noise.integers(20, 44), noise.integers(20, 44), noise.integers(8, 16)
    ImageDraw.Draw(image).ellipse((x - r, y - r, x + r, y + r), fill=tuple(noise.integers(0, 256, 3).tolist()))
    return image


def embeddings(count: int, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, 80, generator=generator) @ torch.diag(torch.linspace(3, 0.1, 80))


@pytest.fixture(scope="module")
def reference() -> DomainReference:
    fidelity = torch.linspace(0.4, 0.9, 50)
    views = [blob(seed) for seed in range(400)]
    return fit_reference(views, embeddings(400, 0), "discs", fidelity=fidelity, options={"steps": 2})


def test_pictures_like_the_reference_are_spread_over_its_percentiles(reference: DomainReference) -> None:
    found = [
        reference.percentile(blob(seed), row) for seed, row in zip(range(900, 1100), embeddings(200, 1), strict=True)
    ]
    assert 40 < np.mean(found) < 60
    assert np.mean(np.array(found) >= 99) <= 0.05


def test_pictures_of_another_kind_lie_beyond_it(reference: DomainReference) -> None:
    noise = np.random.default_rng(0)
    rough = Image.fromarray(noise.integers(0, 256, (64, 64, 3), dtype=np.uint8))
    smooth = Image.fromarray(np.linspace(0, 255, 64 * 64 * 3).reshape(64, 64, 3).astype(np.uint8))
    photograph = Image.fromarray(noise.integers(0, 256, (9, 9, 3), dtype=np.uint8)).resize((300, 200))
    for image in (rough, smooth, photograph):
        assert reference.percentile(image, embeddings(1, 2)[0]) >= 99


def test_an_embedding_far_away_counts_even_if_the_picture_is_usual(reference: DomainReference) -> None:
    near, far = embeddings(1, 3)[0], embeddings(1, 3)[0] + 300
    assert reference.percentile(blob(5), far) > max(99, reference.percentile(blob(5), near))


def test_a_reference_survives_its_file_and_a_damaged_file_is_refused(reference: DomainReference) -> None:
    data = reference_to_bytes(reference)
    again = reference_from_bytes(data, 80)
    assert (again.pictures, again.count, again.options) == ("discs", 400, {"steps": 2})
    assert again.fidelity is not None and torch.allclose(again.fidelity, reference.fidelity, atol=1e-6)
    row = embeddings(1, 4)[0]
    assert again.percentile(blob(7), row) == pytest.approx(reference.percentile(blob(7), row), abs=0.5)
    for broken, size in ((data, 81), (data[:-9], 80), (b"", 80), (data[:40], 80), (b"\xff" * 100, 80)):
        with pytest.raises(ModelError, match="reference statistics"):
            reference_from_bytes(broken, size)


def test_too_few_pictures_make_no_reference() -> None:
    with pytest.raises(UsageError, match=str(LEAST)):
        fit_reference([blob(0)] * (LEAST - 1), embeddings(LEAST - 1, 0), "discs")


def test_percentiles_of_quantiles() -> None:
    quantiles = torch.linspace(0, 1, 11)
    assert percentile(-1, quantiles) == 0 and percentile(2, quantiles) == 100
    assert percentile(0.25, quantiles) == pytest.approx(25)
