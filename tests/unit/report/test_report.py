"""The report as data and as text: its statements, what it embeds, and hostile names."""

import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from steerlens.report.content import MAX_INPUTS, manifest_rows, picture_data
from steerlens.report.embed import data_uri
from steerlens.report.findings import half_layer, head_counts
from steerlens.report.html import notebook_view, report_page, script_json, short_name, write_report
from steerlens.report.scales import nice_ceiling
from steerlens.report.terms import lens_names, two
from steerlens.testing.atlases import fake_atlas

HOSTILE = "</script><img src=x onerror=alert(1)>&\u2028.png"


class _Page(HTMLParser):
    """Ids, addresses and script blocks of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.ids: list[str] = []
        self.addresses: list[str] = []
        self.tags: list[str] = []
        self.blocks: dict[str, str] = {}
        self._block: str | None = None
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        self.tags.append(tag)
        self.ids += [values["id"] or ""] if "id" in values else []
        self.addresses += [values[name] or "" for name in ("src", "href", "data", "action") if name in values]
        self._block = values.get("id") if tag == "script" else None

    def handle_data(self, data: str) -> None:
        if self._block:
            self.blocks[self._block] = self.blocks.get(self._block, "") + data

    def handle_endtag(self, tag: str) -> None:
        self._block = None


def test_page_refers_to_nothing_outside_and_ids_are_unique() -> None:
    page = _Page(report_page(fake_atlas(("apple", "boat"), sites="all", vectors=("smile",))))
    assert len(page.ids) == len(set(page.ids))
    assert page.addresses
    assert all(address.startswith(("data:", "#")) for address in page.addresses)


def test_hostile_names_stay_text() -> None:
    atlas = fake_atlas((HOSTILE,), target=HOSTILE)
    page = _Page(report_page(atlas))
    assert "img" not in page.tags
    assert json.loads(page.blocks["steerlens-picture-0"])["name"] == HOSTILE
    assert "onerror" not in re.sub(r"&lt;.*?&gt;", "", notebook_view(atlas))


def test_every_picture_has_its_own_block() -> None:
    page = _Page(report_page(fake_atlas(("a", "b", "c"))))
    meta = json.loads(page.blocks["steerlens-meta"])
    names = [json.loads(page.blocks[f"steerlens-picture-{index}"])["name"] for index in range(3)]
    assert names == [one["name"] for one in meta["pictures"]] == ["a", "b", "c"]


def test_numbers_are_those_of_the_atlas() -> None:
    atlas = fake_atlas()
    best = atlas.ranked("steering")[0]
    data = picture_data(atlas, atlas.readings[0])
    shown = data["sites"][data["top"]["steering"][0]]
    assert shown["label"] == best.site.label
    assert shown["steering"]["similarity"] == pytest.approx(best.similarity, abs=1e-4)
    assert shown["steering"]["control"] == pytest.approx(best.control, abs=1e-4)
    assert data["leftOut"] == 0


def test_attention_travels_as_sixteen_bit_shares() -> None:
    import base64

    atlas = fake_atlas(layers=2, heads=2)
    attention = atlas.readings[0].attention
    assert attention is not None
    sent = picture_data(atlas, atlas.readings[0])["attention"]
    shares = np.frombuffer(base64.b64decode(sent), "<u2").reshape(attention.shape) / 65535
    np.testing.assert_allclose(shares, attention.float().numpy(), atol=1e-5)


def test_budget_keeps_the_most_telling_pictures() -> None:
    atlas = fake_atlas(layers=6, heads=4)
    data = picture_data(atlas, atlas.readings[0], budget=25_000)
    assert data["leftOut"] > 0
    assert data["clean"][0]["src"]
    assert data["sites"][data["top"]["steering"][0]]["steering"]["pictures"][0]["src"]


def test_counts_say_what_chance_would_give() -> None:
    atlas = fake_atlas(layers=5, heads=4)
    counts = head_counts(atlas, atlas.readings[0].id)
    scores = atlas.ranked("steering")
    assert counts is not None
    assert counts["beats"] == sum(bool(score.beats_control) for score in scores)
    assert (counts["heads"], counts["chance"], counts["strongChance"]) == (20, 10, 1.0)


def test_controls_of_other_heads_are_not_compared_under_a_factor() -> None:
    atlas = fake_atlas(strength="s=40")
    counts = head_counts(atlas, atlas.readings[0].id)
    assert counts is not None
    assert counts["strong"] is None
    assert "compare a head only with its own control" in " ".join(report_page(atlas).split())


@pytest.mark.parametrize(
    "options",
    [
        {"controls": 0},
        {"vocabulary": False},
        {"attention": False},
        {"lenses": ("diffusion",)},
        {"lenses": ("steering",)},
        {"sites": "resid_post"},
        {"sites": "L1H1"},
        {"sites": "mlp_out", "controls": 0, "vocabulary": False, "attention": False},
        {"seeds": (0, 1, 2), "controls": 2},
        {"target": "the text “boat”"},
        {"size": 200},
        {"names": ()},
    ],
    ids=str,
)
def test_runs_with_missing_parts(options: dict[str, object]) -> None:
    names = options.pop("names", ("apple",))
    if not names:
        with pytest.raises(Exception, match="at least one picture"):
            fake_atlas(())
        return
    atlas = fake_atlas(names, **options)  # type: ignore[arg-type]
    assert _Page(report_page(atlas)).blocks
    assert "figure" in notebook_view(atlas)


def test_an_atlas_of_a_run_just_begun() -> None:
    from dataclasses import replace

    atlas = fake_atlas()
    begun = replace(atlas, results=(), manifest={"complete": False})
    assert "This run is not finished" in report_page(begun)
    assert lens_names(begun) == ()
    assert half_layer(begun, begun.readings[0].id) is None
    assert "empty run" in notebook_view(replace(begun, readings=()))
    assert report_page(replace(begun, readings=()))


def test_targets_other_than_the_input_are_named() -> None:
    page = report_page(fake_atlas(target="the text “boat”"))
    assert "re-encoded decoded picture</em> and the text “boat”" in " ".join(page.split())


def test_two_notebook_views_do_not_clash() -> None:
    atlas = fake_atlas()
    page = _Page(notebook_view(atlas) + notebook_view(atlas))
    assert len(page.ids) == len(set(page.ids)) == 2
    assert "script" not in page.tags
    assert len(notebook_view(fake_atlas(layers=48, heads=16))) < 1_000_000


def test_write_report_leaves_no_temporary_files(tmp_path: Path) -> None:
    page = write_report(fake_atlas(), str(tmp_path / "run"), figures=False)  # a str, as the README gives it
    assert [path.name for path in page.parent.iterdir()] == ["report.html"]


def test_large_pictures_are_made_smaller_and_small_ones_kept_exactly() -> None:
    import base64
    import io

    rng = np.random.default_rng(0)
    small = rng.integers(0, 255, (64, 64, 3), dtype=np.uint8)
    address = data_uri(small)
    assert address.startswith("data:image/png;base64,")
    decoded = Image.open(io.BytesIO(base64.b64decode(address.split(",")[1])))
    np.testing.assert_array_equal(np.asarray(decoded), small)
    large = Image.open(io.BytesIO(base64.b64decode(data_uri(Image.new("RGB", (512, 256))).split(",")[1])))
    assert large.size == (192, 96)


def test_size_of_a_page_of_the_papers_model_stays_reasonable() -> None:
    # 48 x 16 heads x (two lenses and a control) of 512 pixels, judged by one typical picture.
    picture = Image.effect_mandelbrot((512, 512), (-2, -1.5, 1, 1.5), 60).convert("RGB")
    assert len(data_uri(picture)) * 768 * 3 < 20_000_000


def test_script_json_is_inert() -> None:
    text = str(script_json({"a": "<!--</script>&\u2028\u2029"}))
    assert not set("<>&\u2028\u2029") & set(text)
    assert json.loads(text) == {"a": "<!--</script>&\u2028\u2029"}
    with pytest.raises(ValueError, match="Out of range"):
        script_json(float("nan"))


def test_manifest_rows_count_long_lists() -> None:
    rows = dict(manifest_rows({"plan": {"cells": ["x"] * 300}, "seeds": [0, 1], "revision": None, "in": [{"a": 1}]}))
    assert rows == {"plan.cells": "300 entries", "seeds": "0, 1", "revision": "not set", "in.0.a": "1"}


def test_a_page_holds_no_folder_of_this_machine() -> None:
    atlas = fake_atlas()
    name = "/home/ann/secret plans/pair"
    places = {"folder": name, "source": f"local-dir:{name}", "files": [f"{name}/config.json"]}
    manifest = {"provenance": {"encoder": places}, "encoder": {"name": name}}
    page = report_page(replace(atlas, encoder=replace(atlas.encoder, name=name), manifest=manifest))
    assert "/home" not in page and "ann" not in re.findall(r"[a-z]+", page)
    assert "local-dir:pair" in page


def test_small_helpers() -> None:
    assert [nice_ceiling(value) for value in (0.13, 0.2, 4.1, 0, float("inf"))] == [0.2, 0.2, 5.0, 1.0, 1.0]
    assert [two(value) for value in (-0.001, -0.5, 0.456)] == ["0.00", "−0.50", "0.46"]
    assert short_name("/some/where/pair/encoder") == "pair/encoder"
    assert short_name("/home/ann/pair") == "pair"


def test_a_page_of_many_inputs_shows_the_first_ones_and_says_so(tmp_path: Path) -> None:
    names = [f"input {number}" for number in range(MAX_INPUTS + 1)]
    atlas = fake_atlas(names, sites="head.0.0", controls=0)
    page = write_report(atlas, tmp_path / "many", figures=False).read_text()
    assert f"This page shows {MAX_INPUTS} of the {MAX_INPUTS + 1} inputs" in page
    assert "--format report --inputs NAME" in page
    assert names[-2] in page and names[-1] not in page
    for few in (atlas.only(names[:-1]), atlas.only(names[-1:])):
        page = write_report(few, tmp_path / "few", figures=False).read_text()
        assert "This page shows" not in page
    assert names[-1] in page
