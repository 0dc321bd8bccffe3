"""Dashboards of features: activations against plain sums, effects against plain passes, a run and its page."""

import base64
import json
import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from steerlens.cli.main import main
from steerlens.errors import StoreError, UsageError
from steerlens.interventions import Patch
from steerlens.lenses import Strength
from steerlens.profiles.features import (
    FeatureOptions,
    FeatureReader,
    feature_work,
    profile_features,
    write_feature_page,
)
from steerlens.profiles.features.activations import BINS, ActivationMeter
from steerlens.profiles.features.effects import ablation_effects, measured_heads
from steerlens.profiles.measure import native
from steerlens.profiles.pictures import ProfilePictures, folder_pictures
from steerlens.progress import run_to_end
from steerlens.saes import EMBEDDING, JumpReLU, Normalisation, SparseAutoencoder, fidelity
from steerlens.scores import cosine_similarity
from steerlens.sites import Site
from steerlens.training import SaeFigures, write_sae
from steerlens.zoo.pair import Pair

F = 40


def made_sae(pair: Pair, place: Any = None, trained_on: Any = "all", seed: int = 0) -> SparseAutoencoder:
    spec = pair.encoder.spec
    place = Site("resid_post", 1) if place is None else place
    width = spec.embedding_size if place == EMBEDDING else spec.width
    generator = torch.Generator().manual_seed(seed)
    encoder, decoder = torch.randn(width, F, generator=generator), torch.randn(F, width, generator=generator)
    threshold = JumpReLU(torch.full((F,), 0.5))
    return SparseAutoencoder(
        "tiny", place, encoder, decoder, torch.zeros(F), torch.zeros(width), threshold, trained_on=trained_on
    )


def options(pair: Pair, **changes: Any) -> FeatureOptions:
    decode = replace(pair.decoder.spec.defaults, steps=1, guidance=1.0)
    given: dict[str, Any] = {"n_top": 2, "n_texts": 2, "n_decoded": 3, "batch": 2, "chunk": 16}
    return FeatureOptions(decode, Strength("rho", 1.0), **(given | changes))


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photos")
    rng = np.random.default_rng(0)
    for number in range(5):
        Image.fromarray(rng.integers(0, 255, (20, 20, 3), dtype=np.uint8)).save(folder / f"<b>cat {number}.png")
    return folder


@pytest.mark.parametrize("batch", [1, 3, 7])
def test_activations_are_those_of_all_pictures_whatever_the_batch(batch: int) -> None:
    generator = torch.Generator().manual_seed(0)
    every = (torch.randn(7, 5, 30, generator=generator) - 1).relu()
    every[:, :, 4] = 0
    meter = ActivationMeter(30, 5, 3, 2.0)
    for part in every.split(batch):
        meter.add(part)
        meter = ActivationMeter.from_state(meter.state())
    assert torch.equal(meter.active, (every > 0).sum(dim=(0, 1)))
    assert torch.equal(meter.in_pictures, (every > 0).any(dim=1).sum(dim=0))
    torch.testing.assert_close(meter.total, every.double().sum(dim=(0, 1)))
    torch.testing.assert_close(meter.densities(), (every > 0).double().mean(dim=(0, 1)))
    assert torch.equal(meter.histogram.sum(dim=0), meter.active)
    peaks = every.amax(dim=1)
    torch.testing.assert_close(meter.values, peaks.sort(dim=0, descending=True).values[:3])
    for feature in range(30):
        for rank, picture in enumerate(meter.tops[:, feature].tolist()):
            if picture < 0:
                assert meter.values[rank, feature] == 0
                continue
            shares = every[picture, :, feature] / peaks[picture, feature]
            torch.testing.assert_close(meter.heat[rank, feature].float(), (255 * shares).round())
    edges = meter.edges()
    assert len(edges) == BINS + 1 and edges[-1] == pytest.approx(2.0)
    inside = ((every > edges[-2]) | (every == edges[-2])).sum(dim=(0, 1))
    assert torch.equal(meter.histogram[-1], inside)


@pytest.mark.parametrize(
    ("place", "trained_on"),
    [
        (Site("resid_post", 1), "all"),
        (Site("resid_post", 2), "cls"),
        (Site("resid_mid", 1), "patch"),
        (Site("attn_out", 1), "all"),
        (Site("mlp_out", 0), "all"),
        (EMBEDDING, "unknown"),
    ],
)
def test_ablation_is_a_real_forward_pass_without_the_feature(
    place: Any, trained_on: str, pair: Pair, photos: Path
) -> None:
    encoder, sae = native(pair.encoder), made_sae(pair, place, trained_on)
    reader = FeatureReader(encoder, sae)
    inputs = encoder.preprocess([picture.open() for picture in folder_pictures(photos, 3).pictures])
    values, _ = reader.values(inputs)
    activations = sae.encode(values)
    features, pictures = torch.tensor([3, 8, 8]), torch.tensor([0, 1, 2])
    found = ablation_effects(reader, inputs, features, pictures, activations, torch.ones(*values.shape[:2], 1))
    clean = encoder.embed(inputs)
    for row in range(3):
        changed = activations.clone()
        changed[..., features[row]] = 0
        without = values + sae.decode(changed) - sae.decode(activations)
        if place == EMBEDDING:
            ablated = without[:, 0]
        else:
            ablated = encoder.embed(inputs, [Patch(place, tuple(reader.tokens), value=without)])
        expected = 1 - cosine_similarity(clean, ablated)[pictures[row]]
        assert float(found[row]) == pytest.approx(float(expected), abs=2e-5)
    # The control takes out as much of a random direction, which is the same on every picture.
    given = (features, pictures, activations, torch.ones(*values.shape[:2], 1))
    random = ablation_effects(reader, inputs, *given, control=True)
    direction = torch.randn(values.shape[-1], generator=torch.Generator().manual_seed(8))
    direction *= reader.rows(torch.tensor([8]))[0].norm() / direction.norm()
    without = values - activations[..., 8:9] * direction
    if place == EMBEDDING:
        ablated = without[:, 0]
    else:
        ablated = encoder.embed(inputs, [Patch(place, tuple(reader.tokens), value=without)])
    expected = 1 - cosine_similarity(clean, ablated)
    assert random[1:].tolist() == pytest.approx(expected[1:].tolist(), abs=2e-5)


def test_heads_add_their_write_along_the_encoder(pair: Pair, photos: Path) -> None:
    encoder, sae = native(pair.encoder), made_sae(pair)
    reader = FeatureReader(encoder, sae)
    inputs = encoder.preprocess([picture.open() for picture in folder_pictures(photos, 3).pictures])
    features, pictures, tokens = torch.tensor([3, 8]), torch.tensor([2, 1]), torch.tensor([0, 4])
    found = measured_heads(reader, inputs, features, pictures, tokens, torch.ones(2))
    assert found.shape == (2, 2, encoder.spec.n_heads)  # resid_post.1 comes after two layers
    for layer in range(2):
        for head in range(encoder.spec.n_heads):
            site = Site("head", layer, head)
            written = encoder.record(inputs, [site])[site]
            expected = (written[pictures, tokens] * sae.W_enc[:, features].T).sum(dim=-1)
            torch.testing.assert_close(found[:, layer, head], expected, rtol=1e-4, atol=1e-4)
    assert len(FeatureReader(encoder, made_sae(pair, Site("mlp_out", 1))).head_layers) == 0
    assert list(FeatureReader(encoder, made_sae(pair, Site("attn_out", 1))).head_layers) == [1]
    assert list(FeatureReader(encoder, made_sae(pair, Site("resid_pre", 1))).head_layers) == [0]


@pytest.mark.parametrize("kind", ["constant", "unit_norm", "layer_norm"])
def test_heads_add_to_the_pre_activation_of_a_normalised_value(kind: Any, pair: Pair, photos: Path) -> None:
    """All that is written before the autoencoder adds up to the pre-activation, divided as its input is."""
    encoder = native(pair.encoder)
    sae = replace(made_sae(pair), normalisation=Normalisation(kind, 0.5 if kind == "constant" else 1.0))
    sae = replace(sae, b_enc=sae.b_enc + 20)  # every feature is active, so activations are pre-activations
    events = profile_features(pair, sae, folder_pictures(photos, 3), options(pair, n_decoded=0), photos.parent / kind)
    run_to_end(events)
    inputs = encoder.preprocess([picture.open() for picture in folder_pictures(photos, 3).pictures])
    sites = [Site("head", layer, head) for layer in range(2) for head in range(encoder.spec.n_heads)]
    value = encoder.record(inputs, [Site("resid_post", 1)])[Site("resid_post", 1)]
    heads = encoder.record(inputs, sites)
    for row in rows_of(photos.parent / kind)[::13]:
        feature, picture = row["feature"], row["tops"][0]["picture"]
        token = row["tops"][0]["heat"].index(255)
        divisor = sae.normalisation.affine(value).divisor[picture, token]
        weights = sae.W_enc[:, feature]
        weights = weights - weights.mean() if kind == "layer_norm" else weights
        expected = {site.label: float(heads[site][picture, token] @ weights / divisor) for site in sites}
        for measured in row["heads_measured"]:
            assert measured["value"] == pytest.approx(expected[measured["head"]], rel=2e-3, abs=2e-3)
        assert row["heads_measured"][0]["value"] == pytest.approx(max(expected.values()), rel=2e-3, abs=2e-3)


def rows_of(folder: Path) -> list[dict[str, Any]]:
    return [row for path in sorted((folder / "features").iterdir()) for row in pq.read_table(path).to_pylist()]


@pytest.fixture(scope="module")
def finished(pair: Pair, photos: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, ProfilePictures]:
    folder, shown = tmp_path_factory.mktemp("features") / "out", folder_pictures(photos, 5)
    sae = made_sae(pair)
    profile = run_to_end(profile_features(pair, sae, shown, options(pair), folder))
    write_feature_page(profile, FeatureReader(native(pair.encoder), sae), shown.pictures, folder)
    return folder, shown


def test_the_table_holds_every_feature(pair: Pair, finished: tuple[Path, ProfilePictures]) -> None:
    folder, shown = finished
    rows, sae = rows_of(folder), made_sae(pair)
    assert [row["feature"] for row in rows] == list(range(F))
    inputs = pair.encoder.preprocess([picture.open() for picture in shown.pictures])
    activations = sae.encode(pair.encoder.record(inputs, [Site("resid_post", 1)])[Site("resid_post", 1)])
    for row in rows[::7]:
        own = activations[..., row["feature"]]
        assert row["density"] == pytest.approx(float((own > 0).float().mean()))
        assert row["largest"] == pytest.approx(float(own.max()), rel=1e-4)
        assert row["tops"][0]["picture"] == int(own.amax(dim=1).argmax())
        assert len(row["tops"][0]["heat"]) == pair.encoder.spec.n_tokens
        assert row["effect_control"] > 0
        assert len(row["texts"]) == 2 and len(row["heads_measured"]) == 4
        cosines = torch.nn.functional.cosine_similarity(sae.W_dec, sae.W_dec[row["feature"]][None])
        cosines[row["feature"]] = -1
        assert row["similar"][0]["feature"] == int(cosines.argmax())
    decoded = [row["feature"] for row in rows if row["alone_image"] and row["alone_image"]["bytes"]]
    assert decoded == sorted(activations.sum(dim=(0, 1)).topk(3).indices.tolist())
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["n_features"] == F and summary["pictures"] == 5
    values = pair.encoder.record(inputs, [Site("resid_post", 1)])[Site("resid_post", 1)]
    fit = fidelity(sae, values)
    assert summary["fit"]["explained_variance"] == pytest.approx(fit.explained_variance, rel=1e-4)
    assert summary["fit"]["dead_share"] == fit.dead_share and summary["fit"]["tokens"] == "all tokens"
    assert summary["fit"]["after_readout"] is True and summary["fit"]["is_poor"] is True


def test_the_page_gives_the_table_to_its_script(finished: tuple[Path, ProfilePictures]) -> None:
    folder, _ = finished
    rows = rows_of(folder)
    page, index = (folder / "features.html").read_text(), (folder / "page" / "index.js").read_text()
    assert "<b>cat" not in page and "<b>cat" not in index  # names of files stay texts
    meta, table = json.loads("[" + re.fullmatch(r"steerlensFeatures\.index\((.*)\);\n", index, re.S)[1] + "]")  # type: ignore[index]
    assert table["pictures"] == [row["pictures"] for row in rows]
    assert meta["chunk"] == 16 and len(meta["concepts"]) == 5
    second = (folder / "page" / "features-00001.js").read_text()
    place, dashboards = json.loads("[" + re.fullmatch(r"steerlensFeatures\.chunk\((.*)\);\n", second, re.S)[1] + "]")  # type: ignore[index]
    assert place == 1 and len(dashboards) == 16
    assert base64.b64decode(dashboards[0]["tops"][0][2]) == rows[16]["tops"][0]["heat"]
    with Image.open(folder / "page" / "pictures-00.webp") as sheet:
        assert sheet.size == (720, 720)


def test_a_damaged_part_is_named(pair: Pair, finished: tuple[Path, ProfilePictures], tmp_path: Path) -> None:
    folder, shown = finished
    out = Path(shutil.copytree(folder, tmp_path / "out"))
    sae = made_sae(pair)
    profile = run_to_end(profile_features(pair, sae, shown, options(pair), out))
    part = next(out.glob("features/*.parquet"))
    part.write_bytes(part.read_bytes()[:-20])
    with pytest.raises(StoreError, match=f"{part.name} is damaged"):
        write_feature_page(profile, FeatureReader(native(pair.encoder), sae), shown.pictures, out)


@pytest.mark.parametrize("place", [Site("resid_post", 1), Site("mlp_out", 0), EMBEDDING])
@pytest.mark.parametrize("ablate", [True, False])
def test_a_dry_run_counts_the_passes_of_a_profile(
    place: Any, ablate: bool, pair: Pair, photos: Path, tmp_path: Path
) -> None:
    shown, chosen, encoder = folder_pictures(photos, 5), options(pair, ablate=ablate, n_decoded=0), native(pair.encoder)
    sae = made_sae(pair, place)
    sae = replace(sae, b_enc=sae.b_enc + 50)  # all features are active
    blocks: list[int] = []
    hooks = [
        layer.block.register_forward_hook(lambda _, args, __: blocks.append(len(args[0]))) for layer in encoder.layers()
    ]
    try:
        events = profile_features(pair, sae, shown, chosen, tmp_path / "out")
        for event in events:
            if event.stage == "features":
                break
        events.close()
    finally:
        for hook in hooks:
            hook.remove()
    stated = feature_work(encoder.spec, sae, 5, chosen).work.encoder_passes
    # A batch without the strongest picture of any feature is left out.
    assert sum(blocks) / encoder.spec.n_layers <= stated + 1e-6
    assert sum(blocks) / encoder.spec.n_layers >= 0.6 * stated


def test_an_interrupted_profile_is_resumed_and_comes_out_the_same(
    pair: Pair, finished: tuple[Path, ProfilePictures], tmp_path: Path
) -> None:
    folder, shown = finished
    sae, out = made_sae(pair), tmp_path / "out"
    for stages in (1, 2, 4):
        events = profile_features(pair, sae, shown, options(pair), out)
        for _ in range(stages):
            next(events)
        events.close()
    run_to_end(profile_features(pair, sae, shown, options(pair), out))
    for again, before in zip(rows_of(out), rows_of(folder), strict=True):
        assert {key: again[key] for key in ("feature", "density", "tops", "histogram", "heads_measured")} == {
            key: before[key] for key in ("feature", "density", "tops", "histogram", "heads_measured")
        }
        assert again["effect"] == pytest.approx(before["effect"], abs=1e-6)
    with pytest.raises(UsageError, match="another sae"):
        run_to_end(profile_features(pair, made_sae(pair, seed=1), shown, options(pair), out))


def test_what_does_not_fit_is_refused(pair: Pair, photos: Path, tmp_path: Path) -> None:
    shown = folder_pictures(photos, 5)
    threshold = JumpReLU(torch.ones(4))
    weights = (torch.ones(3, 4), torch.ones(4, 3), torch.zeros(4), torch.zeros(3))
    narrow = SparseAutoencoder("narrow", Site("resid_post", 1), *weights, threshold)
    beyond = made_sae(pair, Site("resid_post", 7))
    with pytest.raises(UsageError, match="trained on another model"):
        run_to_end(profile_features(pair, narrow, shown, options(pair), tmp_path / "out"))
    with pytest.raises(UsageError, match="3 layers"):
        run_to_end(profile_features(pair, beyond, shown, options(pair), tmp_path / "out"))
    with pytest.raises(UsageError, match="a feature has one direction"):
        options(pair, names="textspan")
    assert not (tmp_path / "out").exists()


def test_the_command(pair: Pair, pair_folder: Path, photos: Path, tmp_path: Path, capsys: Any) -> None:
    figures = SaeFigures(1, 1, 0.5, 1.0, 0.0, 0.5)
    write_sae(made_sae(pair), tmp_path / "tiny", model="tiny", figures=figures, training={})
    command = ["profile", "--model", str(pair_folder), "--images", str(photos), "--out", str(tmp_path / "out")]
    command += ["--sae", str(tmp_path / "tiny"), "--top", "2", "--decode", "2", "--steps", "1", "--names", "omp"]
    assert main([*command, "--dry-run"]) == 0
    said = capsys.readouterr().out
    assert f"features: {F} of tiny, read at resid_post.1" in said and "at most 4 pictures to decode" in said
    assert "disk: about" in said and "memory of features: about" in said and "Nothing was computed" in said
    assert main([*command, "--dry-run", "--json"]) == 0
    counted = json.loads(capsys.readouterr().out)
    assert counted["features"] == F and counted["pictures"] == 5 and counted["seconds"] > 0
    assert not (tmp_path / "out").exists()
    assert main([*command, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["n_features"] == F and Path(told["page"]).is_file() and told["fit"]["n_values"] == 5 * 5
    assert "random texts" in rows_of(tmp_path / "out")[0]["names"]
    assert main([*command, "--dry-run"]) == 0
    assert "only what is missing is computed" in capsys.readouterr().out
    assert main([*command, "--heads", "L1H0"]) == 2
    assert "no effect with --sae" in capsys.readouterr().err
    assert main([*command[:5], "--out", str(tmp_path / "other"), "--decode", "2"]) == 2
    assert "features need --sae" in capsys.readouterr().err


def test_plain_tensors_are_described_with_site_and_activation_from_options(
    pair: Pair, pair_folder: Path, photos: Path, tmp_path: Path, capsys: Any
) -> None:
    sae = made_sae(pair)
    save_file({"W_enc": sae.W_enc, "W_dec": sae.W_dec}, tmp_path / "plain.safetensors")
    command = ["profile", "--model", str(pair_folder), "--images", str(photos), "--sae", str(tmp_path)]
    command += ["--sae-site", "resid_post.1", "--sae-activation", "top_k:5", "--decode", "0", "--ablate", "0"]
    assert main([*command, "--out", str(tmp_path / "out")]) == 0
    told = capsys.readouterr()
    # Said before the dashboards are computed, in words as loud as those of `lens`.
    assert told.err.index("FITS THESE PICTURES POORLY") < told.err.index("features:")
    assert "on the first pictures: explained variance" in told.err and "L0 5.0" in told.err
    for counted in ("fit: 5 of 5 pictures", "activations: 5 of 5", "effects: 5 of 5", f"features: {F} of {F}"):
        assert counted in told.err
