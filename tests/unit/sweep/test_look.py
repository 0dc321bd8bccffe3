"""From pictures to an atlas, in memory and on disk, on a tiny pair with random weights."""

import json
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
import yaml
from PIL import Image
from safetensors.torch import save_file

from steerlens.atlas.atlas import Atlas
from steerlens.errors import ModelError, StoreError, UsageError
from steerlens.images import Picture
from steerlens.interventions import Scale
from steerlens.lenses.components import load_directions
from steerlens.lenses.diffusion import DiffusionLens
from steerlens.lenses.steering import SteeringLens
from steerlens.lenses.strength import Strength
from steerlens.loading import Pair, load
from steerlens.progress import Progress
from steerlens.runs.manifest import fingerprint
from steerlens.runs.store import load_run, open_run
from steerlens.scores import cosine_similarity
from steerlens.sites import Site
from steerlens.storage import files
from steerlens.sweep.look import look, look_in
from steerlens.sweep.options import LookOptions
from steerlens.sweep.prepare import make_job
from steerlens.testing.tiny import save_tiny_pair


def picture(seed: int = 0, name: str = "noise") -> Picture:
    pixels = np.random.default_rng(seed).integers(0, 255, (40, 40, 3), dtype=np.uint8)
    return Picture.from_image(Image.fromarray(pixels), name)


def quick(pair: Pair, **changes: object) -> Atlas:
    options = {"pictures": picture(), "steps": 2, "strength": "rho=0.5", **changes}
    return look(pair, **options)  # type: ignore[arg-type]


def same(a: Atlas, b: Atlas) -> bool:
    pairs = zip(a.results, b.results, strict=True)
    return all(
        one.cell == other.cell
        and np.abs(one.picture.astype(int) - other.picture.astype(int)).max() <= 2
        and torch.allclose(one.conditioning, other.conditioning, atol=1e-5)
        and abs(one.similarity - other.similarity) < 1e-3
        for one, other in pairs
    )


def test_every_planned_cell_is_there_with_true_numbers(pair: Pair) -> None:
    atlas = quick(pair)
    assert [result.cell for result in atlas.results] == list(atlas.plan.cells)
    encoder, own = pair.encoder, atlas.reading().embedding
    for result in atlas.results[::5]:
        again = encoder.embed(encoder.preprocess([result.image]))[0]
        assert torch.allclose(again, result.reencoded, atol=1e-4)
        assert result.similarity == pytest.approx(float(cosine_similarity(again, own)), abs=1e-4)
        assert result.fidelity == pytest.approx(float(cosine_similarity(again, result.conditioning)), abs=1e-4)
        assert result.steered_similarity == pytest.approx(float(cosine_similarity(result.conditioning, own)), abs=1e-5)


def test_half_precision_runs_every_kind_of_site(tmp_path: Path) -> None:
    half = load(save_tiny_pair(tmp_path / "pair"), dtype="bfloat16", device="cpu")
    atlas = quick(half, sites="all,embed,resid_pre,resid_mid", n_seeds=2, folder=tmp_path / "run")
    assert len(atlas.results) == len(atlas.plan)
    assert all(np.isfinite([cell.similarity, cell.fidelity, cell.rho]).all() for cell in atlas.results)
    assert 1e-5 < atlas.reading().decomposition_error < 5e-2


def test_the_clean_cell_holds_the_native_embedding(pair: Pair) -> None:
    atlas = quick(pair, sites="head.0.0")
    (clean,) = atlas.clean()
    assert torch.allclose(clean.conditioning, atlas.reading().embedding, atol=1e-5)
    assert clean.steered_similarity == pytest.approx(1, abs=1e-6)


def test_controls_are_steered_exactly_as_hard_as_their_head(pair: Pair) -> None:
    atlas = quick(pair, strength="s=30")
    for head in atlas.ranked():
        (control,) = atlas.cells("control", head.site)
        assert control.rho == pytest.approx(head.rho)
        (steered,) = atlas.cells("steering", head.site)
        assert not torch.allclose(control.conditioning, steered.conditioning, atol=1e-3)


def test_a_head_beats_its_control_only_if_it_scores_higher(pair: Pair) -> None:
    atlas = quick(pair, controls=2)
    for head in atlas.ranked():
        controls = [result.similarity for result in atlas.cells("control", head.site)]
        assert len(controls) == 2
        assert head.control == pytest.approx(np.mean(controls))
        assert head.beats_control == (head.similarity > np.mean(controls))


def test_ranking_is_by_similarity_and_the_map_agrees(pair: Pair) -> None:
    atlas = quick(pair)
    ranked = atlas.ranked("diffusion")
    assert [head.similarity for head in ranked] == sorted((head.similarity for head in ranked), reverse=True)
    scores = atlas.score_map("diffusion")
    assert scores[ranked[0].site.layer, ranked[0].site.head] == np.nanmax(scores)


def test_a_map_of_a_few_heads_says_which_were_not_looked_at(pair: Pair) -> None:
    scores = quick(pair, sites="head.1.0").score_map()
    assert np.isfinite(scores[1, 0])
    assert np.isnan(scores).sum() == scores.size - 1


def test_pictures_do_not_depend_on_what_else_is_decoded(pair: Pair) -> None:
    alone = quick(pair, sites="head.1.1", controls=0)
    among = quick(pair, batch_size=3)
    (one,), (other,) = (atlas.cells("steering", Site("head", 1, 1)) for atlas in (alone, among))
    assert np.abs(one.picture.astype(int) - other.picture.astype(int)).max() <= 2


def test_several_pictures_seeds_and_a_duplicate(pair: Pair) -> None:
    pictures = [picture(0, "one"), picture(1, "two"), picture(0, "one again")]
    atlas = quick(pair, pictures=pictures, sites="head.0.*", n_seeds=2, controls=0)
    assert [reading.picture.name for reading in atlas.readings] == ["one", "two"]
    assert len(atlas.cells("steering", Site("head", 0, 0), "two")) == 2
    assert atlas.score("steering", Site("head", 0, 0), "two").agreement < 1


def test_what_the_encoder_does_not_see_is_said(pair: Pair) -> None:
    wide = Picture.from_image(Image.new("RGB", (60, 30), "red"), "wide")
    assert "30 x 30 of 60 x 30" in quick(pair, pictures=wide, sites="head.0.0").reading().picture.note
    assert quick(pair, sites="head.0.0").reading().picture.note == ""


def test_pictures_of_equal_name_are_told_apart(pair: Pair) -> None:
    atlas = quick(pair, pictures=[picture(0), picture(1)], sites="head.0.0", controls=0)
    assert [reading.picture.name for reading in atlas.readings] == ["noise", "noise-2"]


def test_a_lens_by_hand_gives_what_the_engine_decodes(pair: Pair) -> None:
    atlas = quick(pair, sites="head.0.0", controls=0)
    trace = pair.encoder.trace(pair.encoder.preprocess([picture().image]))
    site = Site("head", 0, 0)
    by_hand = SteeringLens(pair.encoder, Strength("rho", 0.5)).conditioning(trace, [site])
    assert torch.allclose(by_hand.values[0], atlas.cells("steering", site)[0].conditioning, atol=1e-5)
    shown = DiffusionLens(pair.encoder).conditioning(trace, [site])
    assert torch.allclose(shown.values[0], atlas.cells("diffusion", site)[0].conditioning, atol=1e-5)


def test_a_decoder_of_image_tokens_is_refused(pair: Pair) -> None:
    reading_tokens = SimpleNamespace(spec=replace(pair.decoder.spec, consumes="image_tokens"))
    with pytest.raises(ModelError, match="image tokens"):
        quick(replace(pair, decoder=reading_tokens))


def test_a_target_replaces_the_input(pair: Pair) -> None:
    other = picture(5, "other")
    atlas = quick(pair, target=other, sites="head.0.0", controls=0)
    direction = pair.encoder.embed(pair.encoder.preprocess([other.image]))[0]
    (result,) = atlas.cells("steering", Site("head", 0, 0))
    assert result.similarity == pytest.approx(float(cosine_similarity(result.reencoded, direction)), abs=1e-5)
    assert "other" in atlas.reading().target


def test_directions_from_a_file_are_steered_like_a_write(pair: Pair, tmp_path: Path) -> None:
    width = pair.encoder.spec.width
    save_file({"probe": torch.randn(width), "features": torch.randn(2, width)}, tmp_path / "v.safetensors")
    directions = load_directions(tmp_path / "v.safetensors", width)
    assert set(directions) == {"probe", "features.0", "features.1"}
    atlas = quick(pair, directions=directions, sites="", controls=0)
    assert {str(site) for site in atlas.sites("steering")} == {f"vector.{name}" for name in directions}


@pytest.mark.parametrize(
    ("tensors", "error"),
    [
        ({"short": torch.ones(3)}, UsageError),
        ({"zero": torch.zeros(16)}, ModelError),
        ({"nan": torch.full((16,), torch.nan)}, ModelError),
        ({"a name": torch.ones(16)}, UsageError),
        ({"deep": torch.ones(2, 2, 16)}, UsageError),
        ({"scalar": torch.tensor(1.0)}, UsageError),
        ({"a.0": torch.ones(16), "a": torch.ones(2, 16)}, UsageError),
        ({"a/b": torch.ones(16), "a.b": torch.ones(16)}, UsageError),
        ({}, UsageError),
    ],
)
def test_a_file_of_bad_directions_is_refused(
    tensors: dict[str, torch.Tensor], error: type[Exception], tmp_path: Path
) -> None:
    save_file(tensors, tmp_path / "v.safetensors")
    with pytest.raises(error):
        load_directions(tmp_path / "v.safetensors", 16)


def test_a_file_that_holds_no_directions_is_refused(tmp_path: Path) -> None:
    (tmp_path / "v.safetensors").write_bytes(b"not safetensors")
    with pytest.raises(ModelError, match="not a safetensors file"):
        load_directions(tmp_path / "v.safetensors", 16)
    with pytest.raises(UsageError):
        load_directions(tmp_path / "missing.safetensors", 16)


def test_an_unknown_option_is_refused(pair: Pair) -> None:
    with pytest.raises(UsageError, match="stepz"):
        quick(pair, stepz=3)


def test_a_run_comes_back_from_disk_as_it_was(pair: Pair, tmp_path: Path) -> None:
    stored = quick(pair, folder=tmp_path / "run")
    assert same(stored, quick(pair))
    again = load_run(tmp_path / "run")
    assert again.plan == stored.plan
    assert again.reading().labels == stored.reading().labels
    assert torch.equal(again.reading().write_norms, stored.reading().write_norms)
    assert again.encoder == pair.encoder.spec
    assert again.manifest["complete"] is True
    assert not [
        path.name for path in (tmp_path / "run").rglob("*") if path.name.startswith(".") and path.name != ".lock"
    ]


def test_pictures_are_stored_as_hugging_face_image_columns(pair: Pair, tmp_path: Path) -> None:
    quick(pair, folder=tmp_path / "run", sites="head.0.0")
    table = pq.read_table(next((tmp_path / "run" / "cells").glob("*.parquet")))
    features = json.loads(table.schema.metadata[b"huggingface"])["info"]["features"]
    assert features["image"] == {"_type": "Image"}
    assert features["similarity"] == {"dtype": "float64", "_type": "Value"}
    assert table["image"][0].as_py()["bytes"].startswith(b"\x89PNG")


def test_every_table_of_a_run_is_named_for_the_datasets_library(pair: Pair, tmp_path: Path) -> None:
    quick(pair, folder=tmp_path / "run", sites="head.0.0")
    card = yaml.safe_load((tmp_path / "run" / "README.md").read_text().split("---")[1])
    tables = {entry["config_name"]: set((tmp_path / "run").glob(entry["data_files"])) for entry in card["configs"]}
    assert set().union(*tables.values()) == set((tmp_path / "run").rglob("*.parquet"))
    assert sum(map(len, tables.values())) == len(list((tmp_path / "run").rglob("*.parquet")))
    for files_of_one in tables.values():
        assert len({str(pq.read_schema(path).names) for path in files_of_one}) == 1


def stop_after(pair: Pair, folder: Path, events: int) -> None:
    job = make_job(pair, [picture()], LookOptions(steps=2, strength="rho=0.5", batch_size=4))
    running = look_in(pair, job, folder)
    for _ in range(events):
        next(running)
    running.close()


def test_an_interrupted_run_goes_on_where_it_stopped(pair: Pair, tmp_path: Path) -> None:
    stop_after(pair, tmp_path / "run", 12)
    before = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "run" / "cells").iterdir()}
    assert before
    assert load_run(tmp_path / "run").manifest["complete"] is False
    atlas = quick(pair, folder=tmp_path / "run", batch_size=4)
    after = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "run" / "cells").iterdir()}
    assert {name: after[name] for name in before} == before
    fresh = quick(pair, batch_size=4)
    assert same(atlas, fresh)
    assert atlas.reading().labels == fresh.reading().labels
    assert atlas.manifest["resumed"] is True


def test_progress_of_a_run_that_goes_on_counts_what_is_left(pair: Pair, tmp_path: Path) -> None:
    stop_after(pair, tmp_path / "run", 12)
    left = len(load_run(tmp_path / "run").plan) - len(load_run(tmp_path / "run").results)
    told: list[Progress] = []
    quick(pair, folder=tmp_path / "run", batch_size=4, progress=told.append)
    decoding = [event for event in told if event.stage == "decoding"]
    assert decoding[-1].done == decoding[-1].total == left


def test_a_broken_reading_is_named_and_made_again(pair: Pair, tmp_path: Path) -> None:
    stored = quick(pair, folder=tmp_path / "run", sites="head.0.0")
    tensors = next((tmp_path / "run" / "tensors").glob("????????????.safetensors"))
    tensors.write_bytes(b"broken")
    with pytest.raises(StoreError, match=r"tensors/\w+\.safetensors cannot be read: .*runs verify"):
        load_run(tmp_path / "run")
    for path in (tmp_path / "run" / "inputs").iterdir():
        path.unlink()
    again = quick(pair, folder=tmp_path / "run", sites="head.0.0")
    assert again.reading().labels == stored.reading().labels
    assert torch.allclose(again.reading().write_norms, stored.reading().write_norms)


def test_what_was_decided_about_a_picture_is_kept_in_the_run(pair: Pair, tmp_path: Path) -> None:
    noted = replace(picture(), note="the first of 3 frames")
    assert quick(pair, pictures=noted, folder=tmp_path, sites="head.0.0").reading().picture.note == noted.note


def test_a_finished_run_is_not_computed_again(pair: Pair, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = quick(pair, folder=tmp_path / "run")
    monkeypatch.setattr(type(pair.decoder), "decode_batches", lambda *_: pytest.fail("decoded again"))
    again = quick(pair, folder=tmp_path / "run")
    assert same(again, first)
    assert again.manifest == first.manifest  # how long it took among the rest


def test_another_request_does_not_mix_into_a_run(pair: Pair, tmp_path: Path) -> None:
    quick(pair, folder=tmp_path / "run", sites="head.0.0")
    with pytest.raises(UsageError, match="plan"):
        quick(pair, folder=tmp_path / "run", sites="head.0.1")
    with pytest.raises(UsageError, match="options"):
        quick(pair, folder=tmp_path / "run", sites="head.0.0", guidance=2.0)


def test_directions_and_labels_are_part_of_what_a_run_is(pair: Pair, tmp_path: Path) -> None:
    one, other = torch.eye(pair.encoder.spec.width)[[10, 12]]  # two neurons, alike in their first entries
    quick(pair, folder=tmp_path / "run", sites="", directions={"neuron": one})
    with pytest.raises(UsageError, match="another directions"):
        quick(pair, folder=tmp_path / "run", sites="", directions={"neuron": other})
    with pytest.raises(UsageError, match="another labels"):
        quick(pair, folder=tmp_path / "run", sites="", directions={"neuron": one}, n_labels=2)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"seed": -1}, "seeds are whole numbers"),
        ({"seed": 2**63}, "seeds are whole numbers"),
        ({"n_labels": -1}, "labels cannot be negative"),
        ({"guidance": float("nan")}, "finite"),
        ({"target": "missing.png"}, "no file missing.png"),
        ({"target": "many words " * 100}, "vocabulary"),
    ],
)
def test_numbers_and_targets_that_make_no_sense_are_refused(
    options: dict[str, object], said: str, pair: Pair, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match=said):
        quick(pair, folder=tmp_path / "run", **options)
    assert not (tmp_path / "run").exists()


def test_a_folder_with_other_files_is_left_alone(pair: Pair, tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("precious")
    with pytest.raises(UsageError, match="not a run"):
        quick(pair, folder=tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_two_writers_do_not_share_a_run(tmp_path: Path) -> None:
    refused: list[Exception] = []

    def second() -> None:
        try:
            with open_run(tmp_path / "run", {"a": 1}):
                pass
        except StoreError as error:
            refused.append(error)

    with open_run(tmp_path / "run", {"a": 1}):
        thread = threading.Thread(target=second)
        thread.start()
        thread.join()
    assert "another process" in str(refused[0])


def test_a_full_disk_keeps_what_was_finished(
    pair: Pair, tmp_path: Path, full_disk_after: Callable[[int], None]
) -> None:
    full_disk_after(22)  # every file is flushed, and then its folder; hashes of files are flushed too
    with pytest.raises(StoreError, match="no space left"):
        quick(pair, folder=tmp_path / "run", batch_size=4)
    kept = load_run(tmp_path / "run")
    assert 0 < len(kept.results) < len(kept.plan)
    full_disk_after(10_000)
    assert same(quick(pair, folder=tmp_path / "run", batch_size=4), quick(pair, batch_size=4))


@pytest.fixture
def full_disk_after(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Makes the file system refuse to flush after a number of files, as a full disk does."""
    import errno
    import os

    real = os.fsync

    def arm(limit: int) -> None:
        written = iter(range(limit))

        def fsync(descriptor: int) -> None:
            if next(written, None) is None:
                raise OSError(errno.ENOSPC, "No space left on device")
            real(descriptor)

        monkeypatch.setattr(files.os, "fsync", fsync)

    return arm


def test_a_broken_part_is_named(pair: Pair, tmp_path: Path) -> None:
    quick(pair, folder=tmp_path / "run", sites="head.0.0")
    part = next((tmp_path / "run" / "cells").glob("*.parquet"))
    part.write_bytes(part.read_bytes()[:50])
    with pytest.raises(StoreError, match=part.name):
        load_run(tmp_path / "run")


def test_a_folder_without_a_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"manifest\.json"):
        load_run(tmp_path)


def test_no_hook_stays_on_the_model(pair: Pair) -> None:
    quick(pair, sites="head.0.0", controls=0)
    pair.encoder.embed(pair.encoder.preprocess([picture().image]), [Scale(Site("head", 0, 0), factor=2.0)])
    modules = pair.encoder.model.modules()  # type: ignore[attr-defined]
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in modules)


def test_decoded_pictures_that_do_not_fit_into_the_encoder_together_go_through_it_in_halves(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, seen, real = quick(pair, batch_size=8), list[int](), type(pair.encoder).embed

    def tight(self: object, inputs: dict[str, torch.Tensor], *others: object) -> torch.Tensor:
        seen.append(len(inputs["pixel_values"]))
        if seen[-1] > 3:
            raise RuntimeError("MPS backend out of memory")
        return real(self, inputs, *others)  # type: ignore[arg-type]

    monkeypatch.setattr(type(pair.encoder), "embed", tight)
    assert same(quick(pair, batch_size=8), whole)
    assert seen[:3] == [8, 4, 2] and max(seen[3:]) <= 2, "later batches are as small from the start"


def test_a_picture_that_cannot_be_traced_in_this_memory_is_named(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    def tight(*_: object, **__: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory.")

    monkeypatch.setattr(type(pair.encoder), "trace", tight)
    with pytest.raises(ModelError, match="tracing the picture noise does not fit into memory"):
        quick(pair)


def test_a_run_that_an_earlier_version_began_goes_on(pair: Pair, tmp_path: Path) -> None:
    stop_after(pair, tmp_path / "run", 12)
    path = tmp_path / "run" / "manifest.json"
    manifest = json.loads(path.read_text())
    (id,) = manifest["plan"].pop("pictures")
    manifest["plan"]["cells"] = [id + key for key in manifest["plan"]["cells"]]
    manifest["fingerprint"] = fingerprint({**manifest, "cells": "as they were named before"})
    path.write_text(json.dumps(manifest))
    (tmp_path / "run" / "SHA256SUMS").unlink()  # which earlier versions did not write
    kept = len(load_run(tmp_path / "run").results)
    assert 0 < kept < len(load_run(tmp_path / "run").plan)
    told: list[Progress] = []
    atlas = quick(pair, folder=tmp_path / "run", batch_size=4, progress=told.append)
    assert told[-1].done == len(atlas.results) - kept
    assert same(atlas, quick(pair, batch_size=4))
    with pytest.raises(UsageError, match="plan"):
        quick(pair, folder=tmp_path / "run", sites="head.0.0", batch_size=4)
