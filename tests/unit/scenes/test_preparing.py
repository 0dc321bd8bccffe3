"""Prepared pictures: names, near-duplicates, splits; and archives of every layout, read from small ones made here."""

import io
import json
import shutil
import subprocess
import tarfile
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from PIL import Image
from shapes import SHAPES, draw_shape, embed_names, prepare_shapes

from steerlens import scenes
from steerlens.errors import SteerlensError, UsageError
from steerlens.scenes.preparing import extend_split
from steerlens.scenes.readers import file_concept_name, trimmed

EMOJI = [(f"1f60{number}", name) for number, name in enumerate(SHAPES)]


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return prepare_shapes(tmp_path_factory.mktemp("data"))


def png(name: str, colour: tuple[int, int, int]) -> bytes:
    buffer = io.BytesIO()
    draw_shape(name, colour).save(buffer, "PNG")
    return buffer.getvalue()


def npm_archive(source: scenes.Source, folder: Path, files: Mapping[str, bytes]) -> None:
    path = folder / f"{source.package.lstrip('@').replace('/', '-')}-{source.version}.tgz"
    with tarfile.open(path, "w:gz") as archive:
        for name, content in files.items():
            entry = tarfile.TarInfo(f"package/{name}")
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))


@pytest.fixture(scope="module")
def archives(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder with small archives of the three bundled styles and of one that comes as SVG."""
    folder = tmp_path_factory.mktemp("archives")
    noto, twemoji, fluent = scenes.EMOJI
    table = [
        {"name": name, "short_names": [name], "category": "Objects", "unified": code, "sort_order": order}
        for order, (code, name) in enumerate(EMOJI)
    ]
    table.append({**table[0], "name": "a flag", "short_names": [], "category": "Flags", "unified": "1f1e6"})
    google = {f"img/google/64/{code}.png": png(name, (220, 40, 40)) for code, name in EMOJI}
    npm_archive(noto, folder, {"emoji.json": json.dumps(table).encode(), **google})
    npm_archive(twemoji, folder, {f"img/twitter/64/{code}.png": png(name, (40, 60, 220)) for code, name in EMOJI})
    npm_archive(fluent, folder, {f"assets/{code}.png": png(name, (40, 160, 60)) for code, name in EMOJI})
    svg = {
        name: {"body": f'<circle cx="8" cy="8" r="{3 + order / 2}" fill="#c80"/>'} for order, name in enumerate(SHAPES)
    }
    svg["disc-2"] = {"body": '<rect x="2" y="2" width="5" height="9" fill="#08c"/>'}
    svg["nothing-known"] = svg["disc"]
    icons = {"icons": svg, "width": 16, "height": 16}
    files = {"icons.json": json.dumps(icons).encode(), "chars.json": b"{}"}
    (streamline,) = (source for source in scenes.SOURCES if source.style == "streamline")
    (openmoji,) = (source for source in scenes.SOURCES if source.style == "openmoji")
    npm_archive(streamline, folder, files)
    npm_archive(openmoji, folder, {**files, "icons.json": json.dumps({**icons, "width": 20}).encode()})
    return folder


def prepare(folder: Path, out: Path, *names: str) -> tuple[scenes.PictureSet, tuple[scenes.StyleCount, ...]]:
    chosen = scenes.choose_sources(names)
    return scenes.prepare(folder, out, embed_names, sources=chosen, held_share=0.4, unseen=1, seed=3)


def test_prepare_cleans_names_and_holds_out(prepared: Path) -> None:
    found = scenes.load_prepared(prepared)
    assert {concept.name for concept in found.concepts} == {f"{name} shape" for name in SHAPES}
    assert found.pictures.dtype == torch.uint8
    assert found.pictures.shape == (2 * len(SHAPES), 4, 64, 64)
    unseen = found.rows(scenes.UNSEEN)
    assert len(found.concept[unseen].unique()) == 1
    assert len(unseen) == 2, "an unseen concept is held out in every style"
    held = found.rows(scenes.HELD_OUT)
    assert len(held) > 0
    trained = set(found.concept[found.rows(scenes.TRAIN)].tolist())
    assert set(found.concept[held].tolist()) <= trained, "a held-out picture's concept is seen in another style"
    assert set(found.style[held].tolist()) == {1}


def test_near_duplicates_are_found_by_picture_and_by_name() -> None:
    pictures = torch.zeros(4, 4, 64, 64, dtype=torch.uint8)
    pictures[0, :, :32] = 255
    pictures[1, :, :32] = 250
    pictures[2, :, :, :32] = 255
    pictures[3, :, 20:40, 20:40] = 255
    names = torch.eye(4)
    twin = scenes.near_duplicates(pictures, torch.arange(4), torch.zeros(4, dtype=torch.long), names)
    assert twin.tolist() == [True, True, False, False]
    names[3] = names[2]
    twin = scenes.near_duplicates(pictures, torch.arange(4), torch.zeros(4, dtype=torch.long), names)
    assert twin.tolist() == [True, True, True, True]


def test_prepare_refuses_an_empty_folder(tmp_path: Path) -> None:
    with pytest.raises(SteerlensError, match="holds no picture"):
        scenes.prepare(tmp_path, tmp_path / "out", embed_names, pictures=tmp_path)
    with pytest.raises(SteerlensError, match="train prepare"):
        scenes.load_prepared(tmp_path)


def test_missing_archive_is_named(tmp_path: Path) -> None:
    with pytest.raises(SteerlensError, match="emoji-datasource-google"):
        scenes.prepare(tmp_path, tmp_path / "out", embed_names)


def test_transparent_edges_keep_their_colour() -> None:
    picture = scenes.to_tensor(draw_shape("disc", (220, 40, 40)))
    visible = picture[3] > 8
    assert visible.any()
    assert picture[0][visible].min() > 200


def test_added_sources_leave_the_split_of_the_bundled_styles_as_it_was(archives: Path, tmp_path: Path) -> None:
    base, _ = prepare(archives, tmp_path / "base", "emoji")
    wide, counts = prepare(archives, tmp_path / "wide", "emoji", "streamline", "openmoji")
    known = len(base.pictures)
    assert wide.styles == ("noto", "twemoji", "fluent", "streamline", "openmoji")
    assert wide.held_style == base.held_style == 2
    assert wide.concepts == base.concepts, "emoji of all packages share their concepts"
    assert torch.equal(wide.pictures[:known], base.pictures)
    assert torch.equal(wide.split[:known], base.split)
    assert (base.split == scenes.HELD_OUT).any() and (base.split == scenes.UNSEEN).any()
    unseen = set(base.concept[base.rows(scenes.UNSEEN)].tolist())
    trained = wide.rows(scenes.TRAIN)
    assert (wide.style[trained] == 3).any()
    assert not unseen & set(wide.concept[trained].tolist())
    assert set(wide.split[wide.style == 4].tolist()) == {scenes.OUTSIDE}
    assert [count.read for count in counts] == [8, 8, 8, 9, 9]
    assert "| streamline | 9 |" in scenes.count_table(counts)
    assert {source["use"] for source in wide.sources} == {"training", "outside test"}
    again = scenes.load_pictures(tmp_path / "wide")
    assert torch.equal(again.split, wide.split) and again.held_style == 2


def test_a_folder_of_the_version_before_holds_its_last_style_out(archives: Path, tmp_path: Path) -> None:
    prepare(archives, tmp_path, "emoji")
    facts = json.loads((tmp_path / "pictures.json").read_text())
    del facts["held_style"]
    (tmp_path / "pictures.json").write_text(json.dumps(facts))
    assert scenes.load_pictures(tmp_path).held_style == 2


def test_added_pictures_that_repeat_or_give_away_others_are_removed() -> None:
    pictures = torch.zeros(6, 4, 64, 64, dtype=torch.uint8)
    pictures[:, 3] = 255
    pictures[0, 0, :32] = 255  # held out
    pictures[1, 1, :, :32] = 255  # trained
    pictures[2, 0, :31] = 255  # as good as the held-out one
    pictures[3, 1, :, :32] = 255  # repeats the trained one
    pictures[4, 2, 20:40] = 255
    pictures[5, 2, :, 8:30] = 255  # named like an unseen concept
    names = torch.eye(6)
    names[5] = names[4]
    split = torch.tensor([scenes.HELD_OUT, scenes.TRAIN])
    outside = torch.zeros(6, dtype=torch.bool)
    concept = torch.arange(6)
    assert extend_split(pictures, concept, names, split, outside).tolist() == [1, 0, -2, -1, 0, 0]
    split = torch.tensor([scenes.HELD_OUT, scenes.TRAIN, scenes.TRAIN, scenes.TRAIN, scenes.UNSEEN])
    assert extend_split(pictures, concept, names, split, outside).tolist()[5] == -2
    outside[5] = True
    assert extend_split(pictures, concept, names, split, outside).tolist()[5] == scenes.OUTSIDE


@pytest.mark.parametrize(
    ("stem", "name"),
    [
        ("rana_architetto_francesc_01", "rana"),
        ("sun_flower_ganson", "sun flower"),
        ("turkey_platter_01", "turkey platter"),
        ("aiga_stairs", "aiga stairs"),
        ("smiley002", "smiley"),
        ("corn_cob_bw", "corn cob"),
    ],
)
def test_clip_art_is_named_without_its_author(stem: str, name: str) -> None:
    assert file_concept_name(stem) == name


def test_transparent_margins_are_cut_off() -> None:
    image = Image.new("RGBA", (40, 30), (0, 0, 0, 0))
    image.paste((200, 0, 0, 255), (10, 5, 20, 25))
    assert trimmed(image).size == (10, 20)
    blank = Image.new("RGBA", (8, 8), (0, 0, 0, 0))
    assert trimmed(blank).size == (8, 8)


@pytest.mark.skipif(shutil.which("dpkg-deb") is None, reason="needs dpkg-deb: install dpkg")
def test_clip_art_is_read_from_a_debian_package(archives: Path, tmp_path: Path) -> None:
    """Names come from files; folders of buttons and the like are left out; an emoji's name shares its concept."""
    root = tmp_path / "root"
    art = root / "usr" / "share" / "openclipart" / "png"
    for folder, name in (("animals", "lizard_ganson_01"), ("animals", "disc"), ("buttons", "play"), ("tools", "7")):
        (art / folder).mkdir(parents=True, exist_ok=True)
        (art / folder / f"{name}.png").write_bytes(png("cross" if name == "disc" else "ring", (90, 90, 10)))
    (art / "tools" / "broken_tool.png").write_bytes(b"no picture")
    (root / "DEBIAN").mkdir()
    control = "Package: openclipart-png\nVersion: 1.0\nArchitecture: all\nMaintainer: nobody\nDescription: art\n"
    (root / "DEBIAN" / "control").write_text(control)
    data = tmp_path / "data"
    shutil.copytree(archives, data)
    package = data / "openclipart-png_1%3a1.0_all.deb"
    subprocess.run(["dpkg-deb", "--build", root, package], check=True, capture_output=True)
    found, counts = prepare(data, tmp_path / "out", "emoji", "clipart")
    names = [found.concepts[index].name for index in found.concept[found.style == 3].tolist()]
    assert names == ["disc", "lizard"]
    assert counts[-1].read == 2
    assert found.sources[-1]["version"] == "1:1.0"
    assert found.concepts[-1] == scenes.Concept("lizard", "animals", "lizard")


def test_unknown_and_useless_sources_are_refused() -> None:
    with pytest.raises(UsageError, match="unknown source nothing"):
        scenes.choose_sources(["nothing"])
    with pytest.raises(UsageError, match="kept for tests"):
        scenes.choose_sources(["stamps"])
    with pytest.raises(UsageError, match="add noto"):
        scenes.choose_sources(["fxemoji"])
    assert scenes.choose_sources(["all"]) == scenes.SOURCES
    assert all(source.trained for source in scenes.choose_sources(["emoji", "clipart"]))


def test_copyleft_art_is_never_trained_on() -> None:
    copyleft = [source for source in scenes.SOURCES if "SA" in source.licence or "GPL" in source.licence]
    assert len(copyleft) == 2 and not any(source.trained for source in copyleft)


def test_damaged_pictures_are_told_with_what_to_do(archives: Path, tmp_path: Path) -> None:
    prepare(archives, tmp_path, "emoji")
    facts, table = (tmp_path / name for name in ("pictures.json", "pictures.safetensors"))
    whole = {path: path.read_bytes() for path in (facts, table)}
    short = json.loads(whole[facts])
    short["concepts"] = short["concepts"][:1]
    for path, data in (
        (table, whole[table][:-50]),
        (table, b""),
        (facts, b"{"),
        (facts, b"[]"),
        (facts, b'{"concepts": 3}'),
        (facts, json.dumps(short).encode()),
    ):
        path.write_bytes(data)
        with pytest.raises(SteerlensError, match="holds damaged pictures"):
            scenes.load_pictures(tmp_path)
        path.write_bytes(whole[path])
    assert len(scenes.load_pictures(tmp_path).pictures)
