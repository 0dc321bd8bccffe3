"""Pairs whose decoder reads image tokens, from a picture to a report: the engine, the store and the command line."""

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from steerlens.atlas.atlas import Atlas
from steerlens.cli.main import main
from steerlens.conditioning import Conditioning
from steerlens.decoders.base import clean_conditioning, decode
from steerlens.errors import UsageError
from steerlens.images import Picture
from steerlens.lenses.image_tokens import TokenSteeringLens
from steerlens.lenses.image_tokens_by_hooks import steer_and_patch_tokens
from steerlens.lenses.strength import Strength
from steerlens.lenses.token_trace import source_of, trace_tokens
from steerlens.loading import load
from steerlens.report.html import notebook_view, write_report
from steerlens.runs.store import load_run
from steerlens.scores import cosine_similarity
from steerlens.sites import Site
from steerlens.sweep import engine, steered
from steerlens.sweep.look import look
from steerlens.testing.tiny_decoders import save_tiny_decoder
from steerlens.vocabulary import TextVocabulary
from steerlens.zoo.pair import Pair

FAMILIES = ("rae-dinov2", "ip-adapter-plus-sd15")
PLUS = "ip-adapter-plus-sd15"


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return {family: save_tiny_decoder(family, tmp_path_factory.mktemp(family) / "tiny") for family in FAMILIES}


@pytest.fixture(scope="module")
def pairs(folders: dict[str, Path]) -> dict[str, Pair]:
    return {family: load(folder, dtype="float32", device="cpu") for family, folder in folders.items()}


@pytest.fixture(params=FAMILIES)
def pair(request: Any, pairs: dict[str, Pair]) -> Pair:
    return pairs[request.param]


@pytest.fixture(scope="module")
def photo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("pictures") / "photo.png"
    picture(3).image.save(path)
    return path


def picture(seed: int = 0) -> Picture:
    pixels = np.random.default_rng(seed).integers(0, 255, (40, 40, 3), dtype=np.uint8)
    return Picture.from_image(Image.fromarray(pixels), f"noise {seed}")


def denoises(pair: Pair) -> bool:
    """Decoders of one pass refuse options of denoising, which could not have an effect."""
    return pair.decoder.spec.defaults.scheduler != "none"


def quick(pair: Pair, **changes: Any) -> Atlas:
    few_steps = {"steps": 2} if denoises(pair) else {}
    return look(pair, **{"pictures": picture(), "strength": "rho=0.5", **few_steps, **changes})


def flat_cosine(one: torch.Tensor, other: torch.Tensor) -> float:
    return float(cosine_similarity(one.flatten(), other.flatten()))


def test_every_planned_cell_is_there_with_true_numbers(pair: Pair) -> None:
    atlas = quick(pair)
    assert [result.cell for result in atlas.results] == list(atlas.plan.cells)
    encoder, reading = pair.encoder, atlas.reading()
    inputs = encoder.preprocess([picture().image])
    own = clean_conditioning(encoder, pair.decoder, inputs).values[0]
    lens = TokenSteeringLens(encoder, pair.decoder, Strength.parse("rho=0.5"))
    for result in (result for result in atlas.results if result.cell.lens == "steering"):
        again = encoder.preprocess([result.image])
        embedding, drawn = encoder.embed(again)[0], clean_conditioning(encoder, pair.decoder, again).values[0]
        asked = lens.tokens(trace_tokens(encoder, pair.decoder, inputs, [result.cell.site]), [result.cell.site])[0, 0]
        assert torch.allclose(embedding, result.reencoded, atol=1e-4)
        assert torch.allclose(asked.mean(dim=0), result.conditioning, atol=1e-5)
        assert result.similarity == pytest.approx(float(cosine_similarity(embedding, reading.embedding)), abs=1e-4)
        assert result.fidelity == pytest.approx(flat_cosine(drawn, asked), abs=1e-4)
        assert result.steered_similarity == pytest.approx(flat_cosine(asked, own), abs=1e-5)
        assert result.rho == pytest.approx(0.5)


@pytest.mark.parametrize("tokens", ["all", "3", "2,1,9,16"])
def test_a_steered_picture_is_what_the_definition_decodes_to(pair: Pair, tokens: str) -> None:
    (reader, source), site = source_of(pair.decoder), Site("head", 0, 0)
    # The decoder of the DINOv2 pair drops the class token and four registers: its third patch is token 7.
    tokens = "7" if tokens == "3" and source.patches_only else tokens
    atlas = quick(pair, sites=str(site), tokens=tokens, strength="s=6", seed=4 if denoises(pair) else 0, controls=0)
    (result,) = atlas.cells("steering", site)
    spec, inputs = pair.encoder.spec, pair.encoder.preprocess([picture().image])
    if tokens == "all":
        weights = torch.ones(spec.n_tokens)
    elif tokens.isdigit():
        weights = torch.nn.functional.one_hot(torch.tensor(int(tokens)), spec.n_tokens).float()
    else:  # how much of each of 2 x 2 patches of 8 x 8 pixels the box covers
        patches = torch.tensor([6 / 8 * 7 / 8, 1 / 8 * 7 / 8, 6 / 8, 1 / 8])
        weights = torch.cat([torch.zeros(spec.first_patch), patches])
    by_hooks = steer_and_patch_tokens(pair.encoder, inputs, site, 6.0, source, weights)
    options = replace(pair.decoder.spec.defaults, steps=2)  # which a decoder of one pass ignores, as it does the seed
    (wanted,) = decode(pair.decoder, Conditioning("image_tokens", reader.tokens(by_hooks)), [4], options)
    got = torch.from_numpy(result.picture).permute(2, 0, 1) / 255
    assert float((got - wanted).abs().max()) <= 1.1 / 255
    (clean,) = atlas.clean()
    assert np.abs(clean.picture.astype(int) - result.picture.astype(int)).max() > 2


def test_the_clean_cell_is_the_layer_that_the_decoder_reads(pair: Pair) -> None:
    last = source_of(pair.decoder)[1].last_layer(pair.encoder.spec.n_layers)
    atlas = quick(pair, sites="head.0.0")
    (clean,) = atlas.clean()
    assert clean.cell.site == Site("resid_post", last)
    assert clean.steered_similarity == pytest.approx(1, abs=1e-5)
    own = clean_conditioning(pair.encoder, pair.decoder, pair.encoder.preprocess([picture().image]))
    (wanted,) = decode(pair.decoder, own, [0], replace(pair.decoder.spec.defaults, steps=2))
    assert np.abs(clean.picture - 255 * wanted.permute(1, 2, 0).numpy()).max() <= 1.1


def test_layers_that_never_reach_the_decoder_are_left_out_or_refused(pairs: dict[str, Pair]) -> None:
    atlas = quick(pairs[PLUS], sites="all")
    assert {site.layer for lens in ("diffusion", "steering") for site in atlas.sites(lens)} == {0, 1}  # type: ignore[arg-type]
    assert atlas.encoder.n_layers == 3
    for sites in ("head.2.0", "resid_post.2", "resid_post,mlp_out.1-2"):
        with pytest.raises(UsageError, match=r"has no effect on what .* it reads the tokens after layer 1 of 3"):
            quick(pairs[PLUS], sites=sites)


@pytest.mark.parametrize("chunk", [1, 3])
def test_how_many_sites_are_held_at_once_changes_nothing(
    pair: Pair, chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = quick(pair, pictures=[picture(), picture(1)])
    monkeypatch.setattr(steered, "_SITES", chunk)
    parts = quick(pair, pictures=[picture(), picture(1)], batch_size=3)
    for one, other in zip(whole.results, parts.results, strict=True):
        assert one.cell == other.cell
        assert torch.allclose(one.conditioning, other.conditioning, atol=1e-5)
        assert one.fidelity == pytest.approx(other.fidelity, abs=5e-3)


def test_controls_are_steered_exactly_as_hard_as_their_head(pair: Pair) -> None:
    atlas = quick(pair, strength="s=30")
    for head in atlas.ranked():
        (control,), (steered,) = atlas.cells("control", head.site), atlas.cells("steering", head.site)
        assert control.rho == pytest.approx(head.rho)
        assert not torch.allclose(control.conditioning, steered.conditioning, atol=1e-3)


def test_a_run_is_stored_small_and_comes_back_and_goes_on(
    pair: Pair, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    atlas = quick(pair, folder=tmp_path / "run", tokens="outside=cls")
    again = load_run(tmp_path / "run")
    assert again.decoder == pair.decoder.spec
    assert again.manifest["tokens"] == "outside.cls"
    assert [result.cell for result in again.results] == list(atlas.plan.cells)
    held = [load_file(part) for part in (tmp_path / "run" / "tensors").glob("part-*.safetensors")]
    assert {part["conditioning"].shape[1:] for part in held} == {(pair.encoder.spec.width,)}
    assert {part["reencoded"].shape[1:] for part in held} == {(pair.encoder.spec.embedding_size,)}
    monkeypatch.setattr(engine, "decode_cells", lambda *_: pytest.fail("decoded again"))
    quick(pair, folder=tmp_path / "run", tokens="outside=cls")
    with pytest.raises(UsageError, match="contains a run with another tokens"):
        quick(pair, folder=tmp_path / "run")


def test_a_picture_as_target_is_compared_in_both_spaces_and_a_text_in_one(pair: Pair, tmp_path: Path) -> None:
    other = picture(5)
    inputs = pair.encoder.preprocess([other.image])
    atlas = quick(pair, target=other, sites="head.0.0", controls=0)
    (clean,) = atlas.clean()
    theirs = clean_conditioning(pair.encoder, pair.decoder, inputs).values[0]
    own = clean_conditioning(pair.encoder, pair.decoder, pair.encoder.preprocess([picture().image])).values[0]
    assert clean.steered_similarity == pytest.approx(flat_cosine(own, theirs), abs=1e-5)
    assert clean.similarity == pytest.approx(flat_cosine(clean.reencoded, pair.encoder.embed(inputs)), abs=1e-5)
    texts = TextVocabulary(("a cat", "a dog"), torch.randn(2, pair.encoder.spec.embedding_size))
    named = quick(replace(pair, vocabulary=texts), target="a cat", folder=tmp_path / "run")
    assert all(np.isnan(result.steered_similarity) for result in named.results)
    assert np.isfinite([result.similarity for result in named.results]).all()
    page = write_report(named, tmp_path / "run").read_text()
    (data, *_) = tables = re.findall(r'<script type="application/json"[^>]*>(.*?)</script>', page, re.DOTALL)
    assert data and not any("NaN" in table for table in tables)
    assert "not decoded –" in notebook_view(named)


def test_half_precision_runs_every_kind_of_site(folders: dict[str, Path]) -> None:
    for folder in folders.values():
        half = load(folder, dtype="bfloat16", device="cpu")
        atlas = quick(half, sites="all,embed,resid_pre,resid_mid", controls=2, tokens="0,0,9,9")
        assert all(np.isfinite([cell.similarity, cell.fidelity, cell.rho]).all() for cell in atlas.results)


def test_tokens_mean_nothing_to_a_decoder_of_embeddings(emoji: Any) -> None:
    with pytest.raises(UsageError, match="reads one image embedding"):
        look(emoji, picture(), tokens="17", steps=1)


def test_tokens_that_the_decoder_drops_are_refused_before_any_work(pairs: dict[str, Pair]) -> None:
    with pytest.raises(UsageError, match="drops the class token and registers"):
        quick(pairs["rae-dinov2"], tokens="cls")
    with pytest.raises(UsageError, match="tokens 0 to 8"):
        quick(pairs["rae-dinov2"], tokens="9")


@pytest.mark.parametrize("family", FAMILIES)
def test_the_command_writes_a_run_with_a_report(
    family: str, folders: dict[str, Path], photo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, width = tmp_path / "out", 64 if family.startswith("rae") else 16
    save_file({"probe": torch.randn(width)}, tmp_path / "probe.safetensors")
    arguments = ["lens", photo, "--model", folders[family], "--out", out, "--device", "cpu"]
    arguments += [] if family.startswith("rae") else ["--steps", 2]
    arguments += ["--tokens", "0,0,9,16", "--vector", tmp_path / "probe.safetensors", "--region", "L0H0:8,0,16,16"]
    arguments += ["--group", "first=head.0.*,mlp_out.0"]
    assert main(list(map(str, arguments))) == 0
    told = capsys.readouterr()
    assert "beat their control" in told.out
    assert ("later layers are left out" in told.err) == (family == PLUS)
    page = (out / "report.html").read_text()
    assert "writes into its image tokens" in page
    assert "the tokens 0-0-9-16" in page
    assert {path.suffix for path in (out / "figures").iterdir()} == {".png", ".svg"}
    manifest = json.loads((out / "manifest.json").read_text())
    assert manifest["complete"] is True
    assert manifest["tokens"] == "0-0-9-16"
    atlas = load_run(out)
    assert {"vector.probe", "group.first", "region.L0H0.8-0-16-16"} <= set(map(str, atlas.sites("steering")))
    assert atlas.reading().attention is not None


def test_a_late_site_is_one_clear_message_on_the_command_line(
    folders: dict[str, Path], photo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["lens", photo, "--model", folders[PLUS], "--out", tmp_path / "out", "--sites", "L2H0"]
    assert main(list(map(str, arguments))) == 2
    assert "head.2.0 has no effect on what" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
