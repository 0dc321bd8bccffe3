"""Pictures with overlays: exact pasting, placing, pairs from folders and scenes, and what the command asks for."""

import random
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from overlaid import CENTRE
from PIL import Image
from studied import picture

from steerlens.errors import UsageError
from steerlens.scenes import HELD_OUT, TRAIN, UNSEEN, Concept, PictureSet
from steerlens.studies.overlay import scenes as overlay_scenes
from steerlens.studies.overlay.arguments import OverlayArguments
from steerlens.studies.overlay.pictures import OverlaySet, Placement, Placing, folder_pairs, n_groups, paste, square
from steerlens.studies.overlay.study import load_overlays
from steerlens.studies.shared.arguments import StudySettings
from steerlens.studies.shared.subjects import image_hash

FIXED = Placing((0.5, 0.5), (0.5, 0.5))


def test_an_overlay_of_fitting_size_is_pasted_pixel_by_pixel() -> None:
    base, overlay = picture(0, 16), picture(1, 8)
    both = np.asarray(paste(base, overlay, CENTRE))
    wanted = np.asarray(base).copy()
    wanted[4:12, 4:12] = np.asarray(overlay)
    assert (both == wanted).all()
    corner = np.asarray(paste(base, overlay, Placement(0.0, 1.0, 0.5)))  # kept inside
    assert (corner[8:, :8] == np.asarray(overlay)).all() and (corner[:8] == np.asarray(base)[:8]).all()


def test_masks_transparency_and_opacity_let_the_base_through() -> None:
    base, overlay = picture(0, 16), picture(1, 8)
    half = np.zeros((8, 8), dtype=np.uint8)
    half[:, 4:] = 255
    ground, top = np.asarray(base)[4:12, 4:12], np.asarray(overlay)
    masked = np.asarray(paste(base, overlay, CENTRE, Image.fromarray(half)))[4:12, 4:12]
    assert (masked[:, :4] == ground[:, :4]).all() and (masked[:, 4:] == top[:, 4:]).all()
    cut = overlay.convert("RGBA")
    cut.putalpha(Image.fromarray(half))
    assert (np.asarray(paste(base, cut, CENTRE))[4:12, 4:12] == masked).all()
    faint = np.asarray(paste(base, overlay, replace(CENTRE, opacity=0.25)))[4:12, 4:12]
    assert np.abs(faint - (0.75 * ground + 0.25 * top)).max() < 2
    with pytest.raises(UsageError, match="does not fit"):
        paste(base, overlay, CENTRE, Image.fromarray(half[:4]))
    with pytest.raises(UsageError, match="inside of its base"):
        replace(CENTRE, opacity=0.0)
    with pytest.raises(UsageError, match="inside of its base"):
        replace(CENTRE, y=1.5)


def test_folders_make_pairs_that_share_no_concept(tmp_path: Path) -> None:
    bases, overlays = tmp_path / "bases", tmp_path / "overlays"
    for number in range(8):
        path = bases / f"thing{number % 4}" / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.asarray(picture(number, 24))[:16]).save(path)  # 24 x 16
    overlays.mkdir()
    for number in range(3):
        cut = Image.fromarray(np.asarray(picture(40 + number, 12, 4))[:8])  # 12 x 8, transparent in part
        cut.save(overlays / f"flower{'abc'[number]}.png")
    found = folder_pairs(bases, overlays, 2, 4, seed=1, n_reference=5)
    assert len(found.selection) == 2 and len(found.reported) == 4 and len(found.reference) == 5
    sides = [
        {concept for pair in side for concept in (pair.base_concept, pair.overlay_concept)}
        for side in (found.selection, found.reported)
    ]
    assert not sides[0] & sides[1]
    everyone = (*found.selection, *found.reported)
    assert len({pair.id for pair in everyone}) == 6
    for pair in everyone:
        # What encoders crop away cannot hold the overlay.
        assert pair.base.size == pair.both.size == (16, 16) and pair.overlay.size == (12, 12)
        changed = (np.asarray(pair.base) != np.asarray(pair.both)).any(axis=-1)
        assert 0 < changed.mean() < 0.3
    assert folder_pairs(bases, overlays, 2, 4, seed=1, n_reference=5).identity() == found.identity()
    assert folder_pairs(bases, overlays, 2, 4, seed=2, n_reference=5).identity() != found.identity()
    fixed = folder_pairs(bases, overlays, 2, 2, placing=FIXED)
    assert {pair.placement for pair in (*fixed.selection, *fixed.reported)} == {CENTRE}
    with pytest.raises(UsageError, match="too few to choose on"):
        folder_pairs(bases, overlays, 4, 6)
    with pytest.raises(UsageError, match="not a folder"):
        folder_pairs(tmp_path / "none", overlays, 1, 1)
    for path in list(overlays.iterdir())[1:]:
        path.unlink()
    with pytest.raises(UsageError, match="fewer than two"):
        folder_pairs(bases, overlays, 1, 1)


def test_photographs_are_cut_to_their_central_square() -> None:
    wide = Image.fromarray(np.asarray(picture(0, 24))[:16])
    assert (np.asarray(square(wide)) == np.asarray(wide)[:, 4:20]).all()


def prepared() -> PictureSet:
    """12 training pictures, 10 held out, 4 concepts never seen in either of two styles; all of different concepts."""
    splits = [TRAIN] * 12 + [HELD_OUT] * 10 + [UNSEEN] * 8
    concept = [*range(22), *(22 + number // 2 for number in range(8))]
    style = [number % 2 for number in range(30)]
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (30, 4, 64, 64), generator=generator, dtype=torch.uint8)
    concepts = tuple(Concept(f"thing {number}", "made", str(number)) for number in range(26))
    return PictureSet(
        pixels, torch.tensor(concept), torch.tensor(style), torch.tensor(splits), concepts, ("a", "b"), (), 1
    )


def test_scenes_never_show_what_was_trained_or_chosen_on(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(overlay_scenes, "open_pictures", lambda data: prepared())
    found = overlay_scenes.scene_pairs(tmp_path, 2, 8, n_reference=3)
    sides = [
        {concept for pair in side for concept in (pair.base_concept, pair.overlay_concept)}
        for side in (found.selection, found.reported)
    ]
    assert len(found.selection) == 2 and len(found.reported) == 8 and len(found.reference) == 3
    assert not sides[0] & sides[1]
    assert sides[0] | sides[1] <= {f"thing {number}" for number in range(12, 26)}
    for pair in (*found.selection, *found.reported):
        assert pair.base_concept != pair.overlay_concept
        changed = (np.asarray(pair.base) != np.asarray(pair.both)).any(axis=-1)
        assert 0.05 < changed.mean() < 0.3
    assert len({pair.base_concept for pair in found.reported}) == 8
    assert overlay_scenes.scene_pairs(tmp_path, 2, 8, n_reference=3).identity() == found.identity()
    fixed = overlay_scenes.scene_pairs(tmp_path, 2, 2, n_reference=3, placing=FIXED)
    assert {pair.placement for pair in (*fixed.selection, *fixed.reported)} == {CENTRE}
    with pytest.raises(UsageError, match="too few"):
        overlay_scenes.scene_pairs(tmp_path, 2, 10)


def test_random_placements_are_seeded_and_inside() -> None:
    drawn = [Placing().draw(random.Random(seed)) for seed in range(20)]
    assert drawn == [Placing().draw(random.Random(seed)) for seed in range(20)]
    assert len({(place.x < 0.5, place.y < 0.5) for place in drawn}) == 4
    for place in drawn:
        assert place.size / 2 <= place.x <= 1 - place.size / 2 and place.opacity == 1


def test_place_size_and_opacity_are_each_given_or_drawn() -> None:
    def draw(placing: Placing) -> list[Placement]:
        return [placing.draw(random.Random(seed)) for seed in range(20)]

    faint = draw(Placing(opacity=(0.2, 0.6)))
    assert len({place.opacity for place in faint}) == 20 and all(0.2 <= place.opacity <= 0.6 for place in faint)
    # What is not concerned stays as it was drawn.
    assert [replace(place, opacity=1.0) for place in faint] == draw(Placing())
    placed = draw(Placing(centre=(0.3, 0.7)))
    assert {(place.x, place.y) for place in placed} == {(0.3, 0.7)}
    assert [place.size for place in placed] == [place.size for place in faint]
    sized = draw(Placing(size=(0.25, 0.25)))
    assert {place.size for place in sized} == {0.25} and len({(place.x, place.y) for place in sized}) == 4
    with pytest.raises(UsageError, match=r"opacity of overlays lies between 0\.6 and 0\.2"):
        Placing(opacity=(0.6, 0.2))
    with pytest.raises(UsageError, match="be visible"):
        Placing(opacity=(0.0, 0.5))


def test_references_are_bases_that_are_not_studied_where_there_are_enough(tmp_path: Path) -> None:
    bases, overlays = tmp_path / "bases", tmp_path / "overlays"
    for number in range(28):
        path = bases / f"thing{number}" / "0.png"
        path.parent.mkdir(parents=True)
        picture(number).save(path)
    overlays.mkdir()
    for number in range(4):
        picture(40 + number).save(overlays / f"flower{'abcd'[number]}.png")

    def split(n_chosen: int, n_reported: int) -> tuple[OverlaySet, list[set[str]]]:
        found = folder_pairs(bases, overlays, n_chosen, n_reported)
        sides = [{image_hash(pair.base) for pair in side} for side in (found.selection, found.reported)]
        return found, [*sides, {image_hash(image) for image in found.reference}]

    found, (chosen, reported, reference) = split(4, 8)
    assert len(reference) == 16 and not reference & (chosen | reported) and not found.note
    # With too few others, first those to choose on; those to report on only as far as means need them.
    found, (chosen, reported, reference) = split(4, 12)
    assert len(reference) == 16 and chosen < reference and not reference & reported
    assert found.note.startswith("4 of the 16 reference pictures") and "bases holds too few others" in found.note
    found, (chosen, reported, reference) = split(4, 24)
    assert len(reference) == 16 and len(reference & reported) == 12 and "16 of the 16" in found.note


def test_the_options_say_what_pictures_to_give(tmp_path: Path) -> None:
    def message(**options: object) -> str:
        with pytest.raises(UsageError) as told:
            load_overlays(OverlayArguments(tmp_path / "out", **options))  # type: ignore[arg-type]
        return str(told.value)

    both = {"bases": tmp_path, "overlays": tmp_path}
    assert "go together" in message(bases=tmp_path)
    assert "be visible" in message(size=(2.0,), **both)
    assert "--opacity takes one number, or the two ends" in message(opacity=(0.1, 0.2, 0.3), **both)
    assert "at least 2 pairs" in message(count=1)
    assert "--bases" in message() and "not --images" in message(settings=StudySettings(images=tmp_path))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("pairs", "groups"),
    [
        ([("a", "b"), ("c", "d")], 2),
        ([("a", "b"), ("b", "c"), ("d", "e")], 2),
        ([("a", "b"), ("c", "d"), ("b", "c")], 1),  # by way of a third pair
        ([("a", "b"), ("b", "a")], 1),
        ([], 0),
    ],
)
def test_pairs_with_a_common_concept_are_one_group(pairs: list[tuple[str, str]], groups: int) -> None:
    assert n_groups(pairs) == groups
