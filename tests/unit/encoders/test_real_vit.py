"""The real pretrained ViT-S/14 of `make real-vit`, on photographs: identities, closed form and hooks at five sizes."""

import json
import os
from pathlib import Path

import pytest

import steerlens as sl
from steerlens.images import load_pictures, picture_files
from steerlens.testing import check_encoder
from steerlens.training.embedder import copy_encoder, resized

FOLDER, PHOTOGRAPHS = os.environ.get("STEERLENS_REAL_VIT", ""), os.environ.get("STEERLENS_PHOTOGRAPHS", "")

pytestmark = pytest.mark.skipif(
    not (FOLDER and PHOTOGRAPHS),
    reason="needs real weights and photographs: run `make real-vit`, then set STEERLENS_REAL_VIT=real-vit/vit-s14 and "
    "STEERLENS_PHOTOGRAPHS to a folder of two or more photographs (scikit-image's wheel has some)",
)


@pytest.mark.slow
@pytest.mark.parametrize("pixels", [28, 56, 112, 168, 224])
def test_a_real_vit_passes_every_check_on_photographs(pixels: int, tmp_path: Path) -> None:
    copy_encoder(FOLDER, tmp_path, pixels)
    processor = json.loads((tmp_path / "preprocessor_config.json").read_text())
    assert processor == resized(processor, pixels)
    encoder = sl.load_encoder(str(tmp_path), device="cpu", dtype="float32")
    assert encoder.spec.image_size == (pixels, pixels)
    photographs = load_pictures(picture_files(Path(PHOTOGRAPHS))[:2])
    report = check_encoder(encoder, encoder.preprocess([photograph.image for photograph in photographs]))
    assert report.passed, str(report)
