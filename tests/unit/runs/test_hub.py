"""Uploads to the hub, against a local stand-in: what is listed is what arrives, and nothing before it is wanted."""

from pathlib import Path

import pytest
from fake_hub import FakeHub, fake_hub
from huggingface_hub import HfApi

from steerlens.errors import StoreError, UsageError
from steerlens.progress import run_to_end
from steerlens.report.site import publish_site
from steerlens.runs.hub import HubTarget, Upload, prepared_upload
from steerlens.testing.atlases import fake_atlas


@pytest.fixture
def online(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets the client speak to the stand-in on this machine."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr("huggingface_hub.hf_api.is_xet_available", lambda: False)


def prepared(folder: Path) -> Upload:
    runs = {"week": fake_atlas(("apple", "boat"), layers=2, heads=2), "cat's": fake_atlas(layers=2, heads=2)}
    site = run_to_end(publish_site(runs, folder / "site"))
    return run_to_end(prepared_upload(runs, site, HubTarget.parse("hub:ada/atlas"), title="An atlas"))


def api(hub: FakeHub, token: str = "secret") -> HfApi:
    return HfApi(endpoint=hub.endpoint, token=token)


@pytest.mark.usefixtures("online")
def test_what_is_listed_is_what_arrives(tmp_path: Path) -> None:
    with fake_hub() as hub, prepared(tmp_path) as upload:
        listed = upload.listing()
        assert (hub.created, hub.files) == ({}, {}), "nothing is sent before it is wanted"
        run_to_end(upload.send(private=True, api=api(hub)))
        assert set(hub.created) == {"space/ada/atlas", "dataset/ada/atlas"}
        assert hub.created["space/ada/atlas"]["sdk"] == "static"
        # Older clients say `private`, newer ones `visibility`.
        assert all(created.get("private") or created["visibility"] == "private" for created in hub.created.values())
        for kind in ("space", "dataset"):
            arrived = hub.files[f"{kind}/ada/atlas"]
            assert {name: len(data) for name, data in arrived.items()} == listed[kind]
        assert {"index.html", "README.md", "week/apple.html"} <= set(hub.files["space/ada/atlas"])
        assert hub.files["space/ada/atlas"]["README.md"].startswith(b'---\ntitle: "An atlas"\nsdk: static\n')
        assert set(hub.files["dataset/ada/atlas"]) == {"README.md", "data/week.parquet", "data/cat-s.parquet"}
    assert not any(folder.exists() for folder in upload.folders.values()), "temporary files are gone"
    assert not (tmp_path / "site" / "README.md").exists(), "the card is for the Space alone"


@pytest.mark.usefixtures("online")
def test_a_refused_login_is_told_and_leaves_the_site(tmp_path: Path) -> None:
    with fake_hub() as hub, prepared(tmp_path) as upload:
        with pytest.raises(StoreError, match=r"was not uploaded.*hf auth login"):
            run_to_end(upload.send(api=api(hub, token="wrong")))
        assert (hub.created, hub.files) == ({}, {})
    assert (tmp_path / "site" / "index.html").is_file()


@pytest.mark.parametrize("text", ["ada/atlas", "hub:ada", "hub:ada/", "hub:a/b/c", "hub:../x", "hub:a da/x", "s3:a/b"])
def test_other_places_are_refused(text: str) -> None:
    with pytest.raises(UsageError, match="hub:USER/NAME"):
        HubTarget.parse(text)


def test_addresses_of_a_place() -> None:
    target = HubTarget.parse("hub:Ada/head_atlas.2")
    assert target.site_url == "https://ada-head-atlas-2.static.hf.space"
    assert target.dataset_page.endswith("/datasets/Ada/head_atlas.2")


def test_the_data_set_declares_its_tables(tmp_path: Path) -> None:
    import pyarrow.parquet as pq
    import yaml

    with prepared(tmp_path) as upload:
        folder = upload.folders["dataset"]
        card = yaml.safe_load((folder / "README.md").read_text(encoding="utf-8").split("---")[1])
        tables = [pq.read_table(folder / config["data_files"]) for config in card["configs"]]
        assert [config.get("default", False) for config in card["configs"]] == [True, False]
        assert {"image", "input_image", "similarity"} <= set(tables[0].column_names)


def test_only_what_was_published_is_uploaded(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("secret")
    runs = {"week": fake_atlas(layers=2, heads=2)}
    site = run_to_end(publish_site(runs, tmp_path / "site"))
    (site.folder / "notes.txt").write_text("not for others")
    (site.folder / "link").symlink_to(tmp_path / "secret")
    with run_to_end(prepared_upload(runs, site, HubTarget.parse("hub:ada/atlas"))) as upload:
        listed = set(upload.listing()["space"])
    assert {"index.html", "site.json", ".nojekyll"} <= listed
    assert not {"notes.txt", "link"} & listed
    assert len(listed) == site.files + 1, "all files of the site, and the card"


@pytest.mark.parametrize("title", ['a "b" c', "two\nsdk: docker", "a \\ b", "# - :"])
def test_a_title_is_a_title_whatever_it_holds(tmp_path: Path, title: str) -> None:
    import yaml

    runs = {"week": fake_atlas(layers=2, heads=2)}
    site = run_to_end(publish_site(runs, tmp_path / "site"))
    with run_to_end(prepared_upload(runs, site, HubTarget.parse("hub:ada/atlas"), title=title)) as upload:
        card = yaml.safe_load((upload.folders["space"] / "README.md").read_text(encoding="utf-8").split("---")[1])
    assert (card["title"], card["sdk"]) == (title, "static")
