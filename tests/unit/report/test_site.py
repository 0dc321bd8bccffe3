"""Published sites: what they hold, what they say about themselves, and what is refused."""

import json
import re
from html.parser import HTMLParser
from io import BytesIO
from pathlib import Path
from urllib.parse import unquote

import pytest
from PIL import Image

from steerlens.atlas import Atlas
from steerlens.errors import UsageError
from steerlens.progress import run_to_end
from steerlens.report.cards import head_card_data
from steerlens.report.embed import webp_bytes
from steerlens.report.html import plain_json
from steerlens.report.site import Site, publish_site
from steerlens.testing.atlases import fake_atlas, with_cards

HOSTILE = "</title><script>alert(1)</script>& ../../x"


class _Head(HTMLParser):
    """Title, meta elements, and addresses of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.meta: dict[str, str] = {}
        self.links: list[str] = []
        self.inline = 0
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {name: value or "" for name, value in attrs}
        if tag == "meta":
            self.meta[values.get("property") or values.get("name") or values.get("http-equiv", "")] = values.get(
                "content", ""
            )
        self.links += [values[name] for name in ("href", "src") if name in values]
        self.inline += (
            tag == "style"
            or "style" in values
            or (tag == "script" and "src" not in values and values.get("type") != "application/json")
        )


def publish(folder: Path, runs: dict[str, Atlas] | None = None, **options: object) -> Site:
    runs = runs or {"week": fake_atlas(("apple", "boat"), layers=2, heads=2), "other": fake_atlas(layers=2, heads=2)}
    return run_to_end(publish_site(runs, folder, **options))  # type: ignore[arg-type]


def page(path: Path) -> _Head:
    return _Head(path.read_text(encoding="utf-8"))


def test_every_input_has_a_page_and_every_address_a_file(tmp_path: Path) -> None:
    site = publish(tmp_path / "site")
    assert (site.runs, site.inputs, site.pictures) == (2, 3, 3 * 14)
    files = {path.relative_to(site.folder).as_posix() for path in site.folder.rglob("*") if path.is_file()}
    assert {"index.html", "week/apple.html", "week/boat.html", "week/index.html", "other/apple.html"} <= files
    assert (site.files, site.bytes) == (len(files), sum((site.folder / name).stat().st_size for name in files))
    for name in sorted(name for name in files if name.endswith(".html")):
        html = site.folder / name
        for link in page(html).links:
            if not link.startswith(("#", "data:")):
                assert (html.parent / unquote(link.partition("#")[0])).is_file(), f"{link} of {name}"


def test_pages_need_nothing_inline_and_nothing_from_elsewhere(tmp_path: Path) -> None:
    site = publish(tmp_path / "site")
    for path in site.folder.rglob("*.html"):
        head = page(path)
        assert head.inline == 0, path
        assert "unsafe" not in head.meta["Content-Security-Policy"]
        assert "http" not in head.meta["Content-Security-Policy"]


def test_numbers_and_pictures_are_those_of_the_run(tmp_path: Path) -> None:
    atlas = fake_atlas(layers=2, heads=2)
    site = publish(tmp_path / "site", {"run": atlas})
    data = json.loads((site.folder / "run/data/apple.json").read_text())
    best = atlas.ranked("steering")[0]
    shown = data["sites"][str(best.site)]["steering"]
    assert shown["similarity"] == pytest.approx(best.similarity, abs=1e-4)
    with Image.open(site.folder / "run/pictures/apple" / shown["pictures"][0]["src"]) as stored:
        pixels = stored.convert("RGB").tobytes()
    assert pixels == best.image.convert("RGB").tobytes(), "small pictures are kept pixel by pixel"
    assert None not in shown.values()
    attention = (site.folder / "run/data" / data["attention"]).read_bytes()
    assert len(attention) == 2 * 2 * 17 * 2


def test_cards_of_heads_are_files_of_their_own(tmp_path: Path) -> None:
    atlas = with_cards(fake_atlas(("boat / ship", "apple"), layers=2, heads=2), heads=2, side=96)
    site = publish(tmp_path / "site", {"run": atlas})
    text = (site.folder / "run/data/boat-ship.json").read_text(encoding="utf-8")
    assert "data:image" not in text, "pictures of cards would be loaded by everybody"
    listed = json.loads(text)["cards"]
    cards = atlas.cards[atlas.readings[0].id]
    assert listed["bank"] == "20 pictures"
    assert listed["heads"] == {str(card.site): f"{card.site.label}.json" for card in cards.heads}
    for card in cards.heads:
        stored = json.loads((site.folder / f"run/cards/boat-ship/{card.site.label}.json").read_text(encoding="utf-8"))
        assert stored == json.loads(json.dumps(plain_json(head_card_data(cards, card))))
        assert len(stored["ends"][0]["real"]) == 2 and stored["ends"][0]["decoded"]["src"].startswith("data:image")
    files = json.loads((site.folder / "site.json").read_text(encoding="utf-8"))["files"]
    assert sum(name.startswith("run/cards/") for name in files) == 4


def test_open_graph(tmp_path: Path) -> None:
    head = page(publish(tmp_path / "site", url="https://example.org/atlas").folder / "week/boat.html")
    assert head.meta["og:title"] == "boat · fake/encoder"
    assert head.meta["og:image"] == "https://example.org/atlas/week/share/boat.jpg"
    assert head.meta["og:url"] == "https://example.org/atlas/week/boat.html"
    assert head.meta["og:description"].startswith("The decoder redraws")
    with Image.open(tmp_path / "site/week/share/boat.jpg") as picture:
        size = picture.size
    assert size == (int(head.meta["og:image:width"]), int(head.meta["og:image:height"])) == (1200, 630)


def test_the_best_heads_have_pages_with_pictures_of_their_own(tmp_path: Path) -> None:
    atlas = fake_atlas(("boat / ship",), layers=4, heads=3, seeds=(2, 5))
    site = publish(tmp_path / "site", {"week one": atlas}, url="https://example.org/atlas")
    best = atlas.ranked("steering")
    stem = best[0].site.label
    head = page(site.folder / f"week-one/heads/boat-ship/{stem}.html")
    assert head.meta["og:title"] == f"{stem} on boat / ship · fake/encoder"
    assert head.meta["og:image"] == f"https://example.org/atlas/week-one/heads/boat-ship/{stem}.jpg"
    assert head.meta["og:url"] == f"https://example.org/atlas/week-one/heads/boat-ship/{stem}.html"
    assert head.meta["og:description"].startswith(f"Number 1 of {len(best)} heads under the Diffusion Steering Lens")
    assert f"../../boat-ship.html#/head/{stem}?rho=1&seed=2" in head.links
    with Image.open(site.folder / f"week-one/heads/boat-ship/{stem}.jpg") as picture:
        assert picture.size == (1200, 630)
    shared = json.loads((site.folder / "week-one/data/boat-ship.json").read_text())["shared"]
    assert list(shared) == [str(score.site) for score in best[:6]]
    assert all((site.folder / "week-one" / unquote(address)).is_file() for address in shared.values())


def test_hostile_names_stay_text_and_inside(tmp_path: Path) -> None:
    site = publish(tmp_path / "site", {HOSTILE: fake_atlas((HOSTILE, "index", "INDEX"))}, title=HOSTILE)
    assert {path.name for path in tmp_path.iterdir()} == {"site"}
    for path in site.folder.rglob("*.html"):
        assert "<script>alert" not in path.read_text(encoding="utf-8")
        assert page(path).inline == 0
    folder = next(path for path in site.folder.iterdir() if path.is_dir() and path.name != "assets")
    assert len(list(folder.glob("*.html"))) == 4, "an input named index keeps a page of its own"


def test_only_an_earlier_site_is_replaced_and_only_if_wanted(tmp_path: Path) -> None:
    site = publish(tmp_path / "site")
    with pytest.raises(UsageError, match=r"contains a site already.*--force"):
        publish(tmp_path / "site")
    assert publish(tmp_path / "site", force=True).files == site.files
    (tmp_path / "papers").mkdir()
    (tmp_path / "papers/thesis.tex").touch()
    with pytest.raises(UsageError, match=r"is not empty \(it contains thesis.tex\)"):
        publish(tmp_path / "papers", force=True)


def test_an_interrupted_site_leaves_nothing(tmp_path: Path) -> None:
    events = publish_site({"run": fake_atlas()}, tmp_path / "site")
    for _ in range(5):
        next(events)
    events.close()
    assert not (tmp_path / "site").exists()


@pytest.mark.parametrize(
    "url", ["example.org", "javascript:alert(1)", "file:///x", "https://[::1", "https://a b", "https://a/\x1b[31m"]
)
def test_what_is_no_address_of_a_site_is_refused(tmp_path: Path, url: str) -> None:
    with pytest.raises(UsageError, match="is not the address of a site"):
        publish(tmp_path / "site", url=url)


def test_large_pictures_are_scaled_and_small_ones_are_not() -> None:
    large = Image.open(BytesIO(webp_bytes(Image.new("RGB", (512, 300), "red"), side=256)))
    assert large.size == (256, 150)
    assert Image.open(BytesIO(webp_bytes(Image.new("RGB", (64, 20)), side=32))).size == (64, 20)


def test_scripts_and_styles_change_their_names_with_their_content(tmp_path: Path) -> None:
    names = {path.name for path in (publish(tmp_path / "site").folder / "assets").iterdir()}
    assert all(re.fullmatch(r"(page|forward)-[0-9a-f]{10}\.(js|css)", name) for name in names)
    assert len(names) == 3


def test_a_replaced_site_keeps_no_page_of_before_and_every_file_of_others(tmp_path: Path) -> None:
    folder = tmp_path / "site"
    publish(folder)
    (folder / "week" / "mine.txt").write_text("mine")
    (tmp_path / "secret").write_text("secret")
    marker = json.loads((folder / "site.json").read_text(encoding="utf-8"))
    marker["files"] += ["../secret", "week/../../secret", "/etc/hostname", "missing/file", ""]
    (folder / "site.json").write_text(json.dumps(marker), encoding="utf-8")
    publish(folder, {"week": fake_atlas(("apple",), layers=2, heads=2)}, force=True)
    assert (folder / "week" / "apple.html").is_file()
    assert not [path for path in folder.rglob("*") if "boat" in path.name or "other" in path.parts[-2:]]
    assert (folder / "week" / "mine.txt").is_file() and (tmp_path / "secret").is_file()


@pytest.mark.parametrize("marker", [b"", b"[]", b'{"files": 3}', b'{"files": [3, null]}', b"\xff"])
def test_the_marker_of_a_damaged_site_is_replaced(tmp_path: Path, marker: bytes) -> None:
    publish(tmp_path / "site")
    (tmp_path / "site" / "site.json").write_bytes(marker)
    publish(tmp_path / "site", force=True)
    assert json.loads((tmp_path / "site" / "site.json").read_text(encoding="utf-8"))["files"]
