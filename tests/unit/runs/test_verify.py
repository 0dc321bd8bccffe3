"""Damage to a run: reported with the name of the file by `verify_run`, and redone without the rest of the run."""

import base64
import hashlib
import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from steerlens.atlas import CardEnd, CardPicture, HeadCard, InputCards
from steerlens.atlas.atlas import Atlas
from steerlens.cli.main import main
from steerlens.errors import StoreError
from steerlens.runs import verify
from steerlens.runs.cards import write_cards
from steerlens.runs.hashes import HASHES, read_hashes
from steerlens.runs.manifest import plan_to_json, spec_to_json
from steerlens.runs.merge import merge_runs
from steerlens.runs.reader import beside, part_files
from steerlens.runs.store import load_run, open_run
from steerlens.runs.summary import run_summary
from steerlens.runs.verify import verify_run
from steerlens.sites import Site
from steerlens.testing.atlases import fake_atlas

BEFORE = Path(__file__).parents[2] / "golden" / "before" / "run"


@pytest.fixture(scope="module")
def atlas() -> Atlas:
    return fake_atlas(sites="head.0.*", controls=0)


def identity(atlas: Atlas, steps: int = 1) -> dict[str, Any]:
    specs = {"encoder": spec_to_json(atlas.encoder), "decoder": spec_to_json(atlas.decoder)}
    inputs = {reading.id: {"name": reading.picture.name} for reading in atlas.readings}
    options = {"options": {"steps": steps}, "target": {"description": "the input itself", "source": ""}}
    return {**specs, "plan": plan_to_json(atlas.plan), "inputs": inputs, "directions": {}, **options}


def write(folder: Path, atlas: Atlas, steps: int = 1) -> int:
    """Writes what a run lacks, two cells a part; returns how many cells that were."""
    with open_run(folder, identity(atlas, steps)) as writer:
        for reading in atlas.readings:
            if reading.id not in writer.read:
                writer.add_reading(reading)
        missing = [result for result in atlas.results if result.cell.key not in writer.finished]
        for start in range(0, len(missing), 2):
            writer.add_cells(missing[start : start + 2])
        writer.finish()
    return len(missing)


def content(folder: Path) -> dict[str, bytes]:
    atlas = load_run(folder)
    return {result.cell.key: result.png + result.conditioning.numpy().tobytes() for result in atlas.results}


def flip(path: Path, place: float) -> None:
    data = bytearray(path.read_bytes())
    data[int(place * (len(data) - 1))] ^= 1
    path.write_bytes(data)


def files_of(folder: Path) -> list[Path]:
    return sorted(path for inside in ("cells", "inputs", "labels", "tensors") for path in (folder / inside).iterdir())


def test_every_file_has_its_hash_as_sha256sum_reads_it(atlas: Atlas, tmp_path: Path) -> None:
    write(tmp_path, atlas)
    hashes = read_hashes(tmp_path)
    assert {tmp_path / name for name in hashes} == set(files_of(tmp_path))
    assert all(hashlib.sha256((tmp_path / name).read_bytes()).hexdigest() == mark for name, mark in hashes.items())
    verification = verify_run(tmp_path)
    assert (verification.files, verification.without_hash, verification.damaged, verification.redo) == (
        len(hashes),
        0,
        (),
        "",
    )
    assert verification.intact_pictures == verification.expected_pictures == len(atlas.results)


@pytest.mark.parametrize("place", [0.0, 0.4, 0.97, 1.0])
def test_a_flipped_bit_in_any_file_is_reported_and_redone(place: float, atlas: Atlas, tmp_path: Path) -> None:
    write(tmp_path / "whole", atlas)
    expected = content(tmp_path / "whole")
    for name in [path.relative_to(tmp_path / "whole") for path in files_of(tmp_path / "whole")][::2]:
        run = tmp_path / "run"
        shutil.copytree(tmp_path / "whole", run)
        flip(run / name, place)
        for use in (load_run, lambda run: write(run, atlas), lambda run: list(merge_runs([run], tmp_path / "merged"))):
            with pytest.raises(StoreError, match=rf"{name.name} cannot be read.*verify"):
                use(run)
        assert [damaged.file for damaged in verify_run(run).damaged] == [name.as_posix()]
        assert "--remove-damaged" in verify_run(run).redo
        moved = verify_run(run, remove_damaged=True)
        assert (run / str(moved.damaged[0].moved)).exists() and "--resume" in moved.redo
        # Only the cells of the damaged part, of which the last one has one, are done again.
        assert write(run, atlas) == (0 if not name.stem.startswith("part-") else 1 if "000002" in name.name else 2)
        assert content(run) == expected
        assert verify_run(run).redo == ""
        shutil.rmtree(run)


def test_files_that_are_cut_or_missing_are_reported(atlas: Atlas, tmp_path: Path) -> None:
    write(tmp_path, atlas)
    table = part_files(tmp_path)[0]
    table.write_bytes(table.read_bytes()[:-20])
    beside(part_files(tmp_path)[1])[-1].unlink()
    verification = verify_run(tmp_path)
    assert {damaged.file for damaged in verification.damaged} == {
        "cells/part-000000.parquet",
        "tensors/part-000001.safetensors",
    }
    assert verification.intact_pictures == verification.expected_pictures - 4


@pytest.mark.parametrize("name", ["cells/part-000000.parquet", "tensors/part-000000.safetensors"])
def test_files_of_a_run_with_other_options_are_not_taken(name: str, atlas: Atlas, tmp_path: Path) -> None:
    write(tmp_path / "run", atlas)
    write(tmp_path / "other", atlas, steps=2)
    results = list(load_run(tmp_path / "other").results)
    with open_run(tmp_path / "third", identity(atlas, 2)) as writer:
        writer.add_cells(results[2:4])
    shutil.copy(tmp_path / "third" / name, tmp_path / "run" / name)
    for use in (load_run, run_summary):
        with pytest.raises(StoreError, match=name):
            use(tmp_path / "run")
    with pytest.raises(StoreError, match=name):
        write(tmp_path / "run", atlas)


def test_a_part_that_the_run_did_not_write_is_not_taken(atlas: Atlas, tmp_path: Path) -> None:
    write(tmp_path, atlas)
    for path in list(tmp_path.glob("*/part-000000.*")):
        shutil.copy(path, path.with_name(path.name.replace("000000", "000777")))
    with pytest.raises(StoreError, match=r"part-000777.*did not write"):
        load_run(tmp_path)
    assert {damaged.reason for damaged in verify_run(tmp_path).damaged} == {"this run did not write it"}


def test_a_damaged_manifest_is_reported(atlas: Atlas, tmp_path: Path) -> None:
    write(tmp_path, atlas)
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    manifest["options"]["steps"] = 3
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    for use in (load_run, verify_run, lambda run: write(run, atlas)):
        with pytest.raises(StoreError, match=r"manifest\.json cannot be read: it was changed"):
            use(tmp_path)


def some_cards(atlas: Atlas) -> InputCards:
    end = CardEnd(CardPicture("gains", 0.5, atlas.results[0].png), (), ())
    return InputCards("fake", "rho=1", "9 pictures of things", None, (HeadCard(Site("head", 0, 1), end, end),))


def test_damaged_and_missing_cards_are_named_moved_aside_and_written_again(atlas: Atlas, tmp_path: Path) -> None:
    write(tmp_path, atlas)
    id, path = atlas.readings[0].id, tmp_path / "cards" / f"{atlas.readings[0].id}.json"
    for key in ("first", "second"):  # the second replaces the first, and its hash
        write_cards(tmp_path, id, some_cards(atlas), key)
    whole = verify_run(tmp_path)
    assert (whole.damaged, whole.lost_cards, whole.redo) == ((), (), "")
    assert whole.files == 1 + len(files_of(tmp_path)) and whole.without_hash == 0
    assert load_run(tmp_path).cards[id] == some_cards(atlas)
    flip(path, 0.4)
    with pytest.raises(StoreError, match=r"its hash differs\. Remove it, and give the `steerlens lens` command"):
        _ = load_run(tmp_path).cards[id]
    damaged = verify_run(tmp_path)
    assert [damage.file for damage in damaged.damaged] == [f"cards/{id}.json"] and damaged.lost_cards == (id,)
    assert damaged.intact_pictures == damaged.expected_pictures
    assert "--remove-damaged, then the command with --bank that made the cards" in damaged.redo
    (moved,) = verify_run(tmp_path, remove_damaged=True).damaged
    assert moved.moved == f"damaged/{id}.json" and not path.exists() and id not in load_run(tmp_path).cards
    write_cards(tmp_path, id, some_cards(atlas), "second")
    assert verify_run(tmp_path).redo == ""
    path.unlink()
    missing = verify_run(tmp_path)
    assert (missing.damaged, missing.lost_cards) == ((), (id,)) and missing.redo.startswith("the command with --bank")


def test_a_link_to_nowhere_is_moved_aside(atlas: Atlas, tmp_path: Path) -> None:
    write(tmp_path, atlas)
    id = atlas.readings[0].id
    write_cards(tmp_path, id, some_cards(atlas), "key")
    card, table = tmp_path / "cards" / f"{id}.json", part_files(tmp_path)[0]
    for path in (card, table):
        path.unlink()
        path.symlink_to("nowhere")
    moved = {damage.file: damage.moved for damage in verify_run(tmp_path, remove_damaged=True).damaged}
    assert moved == {f"cards/{id}.json": f"damaged/{id}.json", f"cells/{table.name}": f"damaged/{table.name}"}
    for path in (card, table):
        assert not path.is_symlink() and (tmp_path / "damaged" / path.name).is_symlink()
    assert verify_run(tmp_path).damaged == ()


def test_cards_without_a_hash_are_checked_by_reading(atlas: Atlas, tmp_path: Path) -> None:
    write(tmp_path, atlas)
    id = atlas.readings[0].id
    write_cards(tmp_path, id, some_cards(atlas), "key")
    hashes = tmp_path / HASHES
    hashes.write_text("".join(line for line in hashes.read_text().splitlines(True) if "cards/" not in line))
    assert (verify_run(tmp_path).without_hash, verify_run(tmp_path).damaged) == (1, ())
    path = tmp_path / "cards" / f"{id}.json"
    path.rename(path.with_name("another.json"))
    (foreign,) = verify_run(tmp_path).damaged
    assert foreign.reason == "it belongs to no input of this run"
    path.with_name("another.json").rename(path)
    whole = path.read_text()
    png = base64.b64encode(atlas.results[0].png).decode()
    for damaged in (whole.replace(png, png[:200]), whole.replace('"value": 0.5', '"value": NaN'), whole[:90]):
        assert damaged != whole
        path.write_text(damaged)
        assert [damage.file for damage in verify_run(tmp_path).damaged] == [f"cards/{id}.json"]


@pytest.mark.parametrize("reader", ["stored_reading", "part_cells", "read_cards_file"])
def test_a_lack_of_memory_is_no_damage(
    reader: str, atlas: Atlas, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: Path) -> None:
        raise MemoryError

    write(tmp_path, atlas)
    write_cards(tmp_path, atlas.readings[0].id, some_cards(atlas), "key")
    monkeypatch.setattr(verify, reader, fail)
    with pytest.raises(MemoryError):
        verify_run(tmp_path, remove_damaged=True)
    assert not (tmp_path / "damaged").exists()
    (tmp_path / HASHES).unlink()  # so that nothing says that the files are whole: a damaged one may ask for any memory
    assert verify_run(tmp_path).damaged[0].reason.startswith("MemoryError")


def test_half_a_line_of_hashes_is_no_damage(atlas: Atlas, tmp_path: Path) -> None:
    write(tmp_path, atlas)
    whole = (tmp_path / HASHES).read_text()
    (tmp_path / HASHES).write_text(f"{whole}0123456789abcdef")
    assert verify_run(tmp_path).redo == ""
    write(tmp_path, atlas)
    assert (tmp_path / HASHES).read_text() == whole


def test_a_run_of_the_version_before_is_checked_by_reading(tmp_path: Path) -> None:
    shutil.copytree(BEFORE, tmp_path / "run")
    verification = verify_run(tmp_path / "run")
    assert verification.without_hash == verification.files > 0 and not verification.damaged and not verification.redo
    table = part_files(tmp_path / "run")[0]
    data = bytearray(table.read_bytes())
    data[data.find(b"IDAT") + 6] ^= 1
    table.write_bytes(data)
    (damaged,) = verify_run(tmp_path / "run").damaged
    assert damaged.file == f"cells/{table.name}"


def test_the_command_says_it_in_words_and_as_json(
    atlas: Atlas, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(tmp_path / "run", atlas)
    assert main(["runs", "verify", str(tmp_path / "run")]) == 0
    assert "all intact" in capsys.readouterr().out
    flip(part_files(tmp_path / "run")[0], 0.5)
    assert main(["runs", "verify", str(tmp_path / "run"), "--json"]) == 1
    verification = json.loads(capsys.readouterr().out)
    assert verification["damaged"][0]["file"] == "cells/part-000000.parquet"
    assert main(["runs", "verify", str(tmp_path / "run"), "--remove-damaged"]) == 0
    assert "--resume" in capsys.readouterr().out
    assert main(["runs", "verify", str(tmp_path / "nothing")]) == 2


@pytest.mark.parametrize("name", ["cells/*.parquet", "tensors/part-*.safetensors", "labels/*.parquet"])
def test_a_pipe_in_place_of_a_file_is_refused_and_not_waited_for(name: str, atlas: Atlas, tmp_path: Path) -> None:
    write(tmp_path / "run", atlas)
    path = next((tmp_path / "run").glob(name))
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(StoreError, match=f"{path.name} cannot be read: it is not a regular file"):
        load_run(tmp_path / "run")
    with pytest.raises(StoreError, match=f"{path.name} cannot be read: it is not a regular file"):
        write(tmp_path / "run", atlas)
    verification = verify_run(tmp_path / "run")
    assert [damage.file for damage in verification.damaged] == [path.relative_to(tmp_path / "run").as_posix()]
