"""`steerlens lens --sae`: what it says first, what it stores, and every way in which it can be wrong."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from commands import steerlens, steerlens_process
from PIL import Image
from safetensors.torch import save_file
from tiny_saes import tiny_sae

from steerlens.runs import load_run
from steerlens.saes import SparseAutoencoder
from steerlens.zoo import Pair


@pytest.fixture(scope="module")
def photo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("pictures") / "photo.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (30, 40, 3), dtype=np.uint8)).save(path)
    return path


def save(sae: SparseAutoencoder, path: Path) -> Path:
    names = ("W_enc", "W_dec", "b_enc", "b_dec")
    save_file({name: getattr(sae, name).contiguous() for name in names}, path)
    return path


@pytest.fixture(scope="module")
def sae_file(pair: Pair, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save(tiny_sae(pair.encoder), tmp_path_factory.mktemp("sae") / "tiny.safetensors")


STATED = ("--sae-site", "blocks.1.hook_resid_post", "--sae-activation", "relu")


def test_the_fit_comes_first_and_the_strongest_features_last(
    pair_folder: Path, photo: Path, sae_file: Path, tmp_path: Path
) -> None:
    common = ("lens", photo, "--model", pair_folder, "--steps", 2, "--sae", f"mine={sae_file}", *STATED)
    done = steerlens_process(*common, "--strongest", 3, "--out", tmp_path / "run")
    assert done.returncode == 0, done.stderr
    fit, decoding = done.stderr.index("mine, on these inputs: "), done.stderr.index("decoding")
    assert fit < decoding and "WARNING: mine FITS THESE INPUTS POORLY" in done.stderr
    assert "most active: mine " in done.stdout and "largest direct effect: mine " in done.stdout
    assert "steered pictures closest to the input itself: mine " in done.stdout
    atlas = load_run(tmp_path / "run")
    assert len(atlas.reading().units) == 5
    assert "mine" in (tmp_path / "run" / "report.html").read_text()


def test_json_has_the_features_and_the_fit(pair_folder: Path, photo: Path, sae_file: Path, tmp_path: Path) -> None:
    common = ("lens", photo, "--model", pair_folder, "--steps", 2, "--sae", sae_file, *STATED, "--json")
    done = steerlens(*common, "--strongest", 2, "--sites", "features,neurons", "--out", tmp_path / "run")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["saes"]["tiny"]["fit"]["is_poor"] is True
    units = found["pictures"][0]["units"]
    kinds = [unit["site"].partition(".")[0] for unit in units]
    assert kinds == ["feature", "feature", "neuron", "neuron", "error", "bias"]
    assert all(unit["effect"] >= 0 for unit in units)
    for unit in units:
        named = [unit[name] for name in ("second_order", "together", "ablated")]
        assert all((value is not None and value >= 0) == (unit["site"].startswith("neuron")) for value in named)


def test_a_dry_run_counts_as_many_features_as_there_can_be(
    pair_folder: Path, photo: Path, sae_file: Path, tmp_path: Path
) -> None:
    common = ("lens", photo, "--model", pair_folder, "--steps", 2, "--sae", sae_file, *STATED, "--dry-run", "--json")
    done = steerlens(*common, "--strongest", 3, "--out", tmp_path / "run")
    assert done.returncode == 0, done.stderr
    planned = json.loads(done.stdout)
    assert planned["cells"]["steering"] == 5 and planned["sites"] == "resid_post,features"
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--sites", "features"), "none was given: --sae FOLDER"),
        (("--sae-site", "resid_post.1"), "give --sae too"),
        (("--sae", "nowhere"), "there is no nowhere"),
        (("--sae", "FILE", "--sae-activation", "relu"), "site"),
        (("--sae", "FILE", *STATED, "--sites", "feature.tiny.99"), "features 0 to 39; there is no feature 99"),
        (("--sae", "FILE", *STATED, "--sites", "feature.other.1"), "no sparse autoencoder is called 'other'"),
        (("--sae", "FILE", *STATED, "--sites", "heads"), "the sparse autoencoder tiny has no effect"),
        (("--sae", "FILE", "--sae", "FILE", *STATED), "two sparse autoencoders are called 'tiny'"),
        (("--sae", "FILE", "--sae-site", "resid_post.7", "--sae-activation", "relu"), "the model has 3 layers"),
        (("--sae", "FILE", "--sae-site", "embedding", "--sae-activation", "relu"), "width 16, and the image embedding"),
        (("--sae", "SILENT", *STATED), "0 active features"),
        (("--strongest", 3), "strongest 3: no effect"),
        (("--sites", "neuron.9"), "layers 0 to 2"),
    ],
)
def test_what_is_wrong_is_said_once(
    arguments: tuple[object, ...],
    message: str,
    pair: Pair,
    pair_folder: Path,
    photo: Path,
    sae_file: Path,
    tmp_path: Path,
) -> None:
    sae = tiny_sae(pair.encoder)
    silent = save(replace(sae, b_enc=torch.full_like(sae.b_enc, -100.0)), tmp_path / "silent.safetensors")
    files = {"FILE": sae_file, "SILENT": silent}
    given = [files.get(str(argument), argument) for argument in arguments]
    done = steerlens("lens", photo, "--model", pair_folder, "--steps", 2, "--out", tmp_path / "run", *given)
    assert done.returncode == 2, done.stderr
    (error,) = [line for line in done.stderr.splitlines() if line.startswith("steerlens: ")]
    assert message in error
    assert not (tmp_path / "run").exists()
