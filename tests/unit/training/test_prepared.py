"""A run goes on with the prepared pictures that it began with, and says which changed."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from steerlens.errors import UsageError
from steerlens.scenes import PictureSet
from steerlens.scenes.pictures import Concept
from steerlens.training import DecoderRecipe, keep_to_pictures, train_decoder


def pictures(**counts: int) -> PictureSet:
    """Random pictures of some sources."""
    count = sum(counts.values())
    style = torch.cat([torch.full((number,), index) for index, number in enumerate(counts.values())])
    drawings = torch.randint(0, 256, (count, 4, 64, 64), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    concepts = tuple(Concept(f"thing {number}", "things", str(number)) for number in range(count))
    split = torch.zeros(count, dtype=torch.int64)
    return PictureSet(drawings, torch.arange(count), style, split, concepts, tuple(counts), (), 0)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        (pictures(flat=3, round=1), "round had 2 pictures, and has 1. "),
        (pictures(flat=3), "round is no longer among them. "),
        (pictures(flat=3, round=2, third=1), "third is new. "),
        (pictures(flat=2, other=3), "flat had 3 pictures, and has 2; round is no longer among them; other is new. "),
    ],
)
def test_a_run_of_other_pictures_is_not_continued(changed: PictureSet, said: str, tmp_path: Path) -> None:
    begun = pictures(flat=3, round=2)
    keep_to_pictures(tmp_path, begun, resume=False)
    keep_to_pictures(tmp_path, begun, resume=True)
    with pytest.raises(UsageError) as refused:
        keep_to_pictures(tmp_path, changed, resume=True)
    assert f"a run of other prepared pictures: {said}" in str(refused.value)
    assert "Prepare those again (steerlens train prepare) to continue it, or give another --out." in str(refused.value)
    keep_to_pictures(tmp_path, begun, resume=True)  # a refusal leaves the record as it was
    keep_to_pictures(tmp_path, changed, resume=False)  # a folder without weights begins anew
    keep_to_pictures(tmp_path, changed, resume=True)


def test_other_pixels_names_or_splits_are_other_pictures(tmp_path: Path) -> None:
    begun = pictures(flat=3)
    keep_to_pictures(tmp_path, begun, resume=False)
    renamed = (Concept("another", "things", "0"), *begun.concepts[1:])
    for changed in (
        replace(begun, pictures=255 - begun.pictures),
        replace(begun, split=1 - begun.split),
        replace(begun, concepts=renamed),
    ):
        with pytest.raises(UsageError, match="as many of every source, but not the same pictures"):
            keep_to_pictures(tmp_path, changed, resume=True)


def test_a_run_of_an_earlier_version_gets_a_record(tmp_path: Path) -> None:
    keep_to_pictures(tmp_path, pictures(flat=3), resume=True)
    with pytest.raises(UsageError, match="flat had 3 pictures"):
        keep_to_pictures(tmp_path, pictures(flat=2), resume=True)


def test_training_a_decoder_checks_its_pictures_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    keep_to_pictures(tmp_path, pictures(flat=3), resume=False)
    monkeypatch.setattr("steerlens.training.decoder.load_prepared", lambda _: pictures(flat=2))
    with pytest.raises(UsageError, match="flat had 3 pictures"):
        next(train_decoder("no encoder", tmp_path, tmp_path, DecoderRecipe(), resume=True))
