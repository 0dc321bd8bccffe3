"""Bridges: closed forms against plain least squares, cross-validation, the bridged encoder, and what is refused."""

import math
from collections.abc import Generator
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from torch import Tensor

from steerlens.bridges import make as making
from steerlens.bridges.embeddings import embed_both, held_out
from steerlens.bridges.encoder import BridgedEncoder
from steerlens.bridges.fit import FEWEST, Fitted, fit_bridge, measure
from steerlens.bridges.kernel import fit_kernel
from steerlens.bridges.linear import procrustes, ridge
from steerlens.bridges.make import BridgeOptions, NewBridge, make_bridge
from steerlens.bridges.maps import Bridge, Kernel, bridge_from
from steerlens.bridges.store import End, end_of, read_bridge, save_bridge
from steerlens.encoders.clip import CLIPEncoder
from steerlens.encoders.prefix import record_prefix, resume
from steerlens.errors import ModelError, PictureError, UsageError
from steerlens.images import picture_files
from steerlens.interventions import Zero
from steerlens.lenses.attribution import LinearAttribution
from steerlens.lenses.logit import LogitLens
from steerlens.lenses.steering import SteeringLens, steer_and_patch
from steerlens.lenses.strength import Strength
from steerlens.loading import load, load_encoder
from steerlens.progress import Progress, run_to_end
from steerlens.sites import Site
from steerlens.testing.encoder_checks import check_encoder, noise_pictures
from steerlens.testing.tiny import save_tiny_pair, tiny_encoder
from steerlens.testing.tiny_families import MODELS, tiny_family_encoder
from steerlens.zoo import locate_encoder, open_encoder

_Result = TypeVar("_Result")


def finish(events: Generator[Progress, None, _Result]) -> tuple[list[Progress], _Result]:
    told: list[Progress] = []
    result = run_to_end(events, told.append)
    return told, result


def randn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def random_bridge(source: int, target: int, kind: str = "ridge") -> Bridge:
    sizes = {"source_mean": (source,), "target_mean": (target,), "weight": (source, target)}
    if kind == "kernel":
        sizes |= {"centres": (7, source), "weights": (7, target)}
    parts = {name: randn(*shape, seed=number).float() for number, (name, shape) in enumerate(sizes.items())}
    if kind == "kernel":
        parts["scale"] = torch.tensor(0.05)
    return bridge_from(kind, parts)


def save_pictures(folder: Path, count: int, seed: int = 0) -> Path:
    folder.mkdir(parents=True)
    generator = np.random.default_rng(seed)
    for number in range(count):
        # Smooth, so that the pictures differ in more than noise.
        corners = generator.integers(0, 256, (3, 3, 3), dtype=np.uint8)
        Image.fromarray(corners).resize((16, 16), Image.Resampling.BICUBIC).save(folder / f"{number:03d}.png")
    return folder


def test_ridge_is_least_squares_on_stacked_rows() -> None:
    x, y = randn(40, 6), randn(40, 4, seed=1)
    for penalty, weight in zip((1e-3, 0.5), ridge(x, y, (1e-3, 0.5)), strict=True):
        strength = penalty * float(torch.linalg.eigvalsh(x.T @ x).mean())
        rows = torch.cat([x, math.sqrt(strength) * torch.eye(6, dtype=x.dtype)])
        wanted = torch.linalg.lstsq(rows, torch.cat([y, torch.zeros(6, 4, dtype=x.dtype)])).solution
        torch.testing.assert_close(weight, wanted, rtol=1e-9, atol=1e-9)


def test_ridge_stands_fewer_pictures_than_numbers() -> None:
    x, y = randn(5, 20), randn(5, 3, seed=1)
    weight = next(ridge(x, y, (1e-6,)))
    assert float((x @ weight - y).norm() / y.norm()) < 1e-3


def test_procrustes_finds_a_rotation_and_its_scale() -> None:
    x = randn(30, 5)
    rotation = torch.linalg.qr(randn(5, 5, seed=1)).Q
    torch.testing.assert_close(procrustes(x, 2.5 * x @ rotation), 2.5 * rotation)


@pytest.mark.parametrize(("source", "target"), [(5, 5), (4, 7), (7, 4)])
def test_procrustes_is_orthogonal_and_no_other_map_of_its_kind_comes_closer(source: int, target: int) -> None:
    x, y = randn(30, source), randn(30, target, seed=1)
    weight = procrustes(x, y)
    gram = weight @ weight.T if source <= target else weight.T @ weight
    unit = gram / gram[0, 0]
    torch.testing.assert_close(unit, torch.eye(min(source, target), dtype=x.dtype), rtol=0, atol=1e-9)
    reached = float((x @ weight / gram[0, 0].sqrt() * y).sum())
    for seed in range(20):
        tall = torch.linalg.qr(randn(max(source, target), min(source, target), seed=seed + 2)).Q
        assert float((x @ (tall.T if source <= target else tall) * y).sum()) < reached
    # The scale is the best one for this direction.
    wrong = [float((factor * x @ weight - y).square().sum()) for factor in (0.98, 1.0, 1.02)]
    assert min(wrong) == wrong[1]


def test_auto_takes_the_linear_map_where_there_is_one() -> None:
    x = randn(200, 6) + 3
    y = x @ randn(6, 5, seed=1) + randn(5, seed=2) + 0.05 * randn(200, 5, seed=3)
    told, fitted = finish(fit_bridge(x[:150], y[:150]))
    assert fitted.chosen == fitted.bridge.kind == "ridge"
    assert [candidate.kind for candidate in fitted.candidates] == ["ridge", "procrustes", "kernel"]
    assert [event.done for event in told][-1] == told[-1].total
    measured = measure(fitted.bridge, x[150:], y[150:])
    assert measured.cosine > 0.99 and measured.centred > 0.99 and measured.retrieval == 1.0
    assert measured.baseline < 0.95 and (measured.n_pictures, measured.n_retrieved) == (50, 50)


def test_auto_takes_the_rotation_where_pictures_are_few_and_it_is_one() -> None:
    x = randn(60, 40)
    y = x @ torch.linalg.qr(randn(40, 40, seed=1)).Q + 0.3 * randn(60, 40, seed=2)
    _, fitted = finish(fit_bridge(x, y))
    assert fitted.chosen == "procrustes"


def test_auto_takes_the_kernel_where_no_linear_map_does() -> None:
    x = randn(1500, 4)
    y = torch.cat([x.abs(), x], dim=1) - 0.5
    _, fitted = finish(fit_bridge(x[:1200], y[:1200], folds=3))
    by_kind = {candidate.kind: candidate.cosine for candidate in fitted.candidates}
    assert fitted.chosen == "kernel" and by_kind["kernel"] > by_kind["ridge"] + 0.05
    _, linear = finish(fit_bridge(x[:1200], y[:1200], "ridge", folds=3))
    assert measure(fitted.bridge, x[1200:], y[1200:]).cosine > measure(linear.bridge, x[1200:], y[1200:]).cosine


def test_the_kernel_is_what_solving_for_every_picture_gives(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("steerlens.bridges.kernel.SHARPNESSES", (0.6,))
    monkeypatch.setattr("steerlens.bridges.kernel.PENALTIES", (0.2,))
    x, y = randn(60, 5), randn(60, 3, seed=1)
    linear = x @ randn(5, 3, seed=2)
    kernel = fit_kernel(x, linear, y, seed=0)
    length = sum(float(row @ row) for row in x) / 60

    def alike(one: Tensor, other: Tensor) -> float:
        return 1 / (1 + 0.6 * float((one - other).square().sum()) / length)

    gram = torch.tensor([[alike(one, other) for other in x] for one in x], dtype=torch.float64)
    added = torch.linalg.inv(gram + 0.2 * torch.eye(60, dtype=torch.float64)) @ (y - linear)
    new = randn(4, 5, seed=3)
    wanted = torch.tensor([[alike(one, other) for other in x] for one in new], dtype=torch.float64) @ added
    torch.testing.assert_close(kernel(new), wanted, rtol=1e-4, atol=1e-4)
    # Far from every picture, the linear map alone is left.
    assert float(kernel(1e5 * new).abs().max()) < 1e-4


def test_settings_are_chosen_on_pictures_that_are_fitted_on_alone() -> None:
    x = randn(100, 5)
    y = x @ randn(5, 3, seed=1) + 0.5 * randn(100, 3, seed=2)
    _, fitted = finish(fit_bridge(x, y, folds=2, seed=4))
    order = torch.randperm(100, generator=torch.Generator().manual_seed(4))
    cosines: dict[str, list[Tensor]] = {"ridge": [], "kernel": []}
    for judged, kept in ((order[:50], order[50:]), (order[50:], order[:50])):
        for kind, rows in cosines.items():
            _, alone = finish(fit_bridge(x[kept.sort().values], y[kept.sort().values], kind, folds=2, seed=4))
            mapped = alone.bridge(x[judged])
            rows.append(torch.nn.functional.cosine_similarity(mapped, y[judged], dim=-1))
    for candidate in fitted.candidates:
        if candidate.kind in cosines:
            assert candidate.cosine == pytest.approx(float(torch.cat(cosines[candidate.kind]).mean()), abs=1e-5)


def test_figures_of_the_folds_are_those_of_pictures_never_fitted_on() -> None:
    x, y = randn(80, 60), randn(80, 10, seed=1)  # nothing to learn, and enough numbers to learn it by heart
    _, fitted = finish(fit_bridge(x, y, "ridge"))
    assert abs(fitted.candidates[0].cosine) < 0.15


def test_retrieval_and_baseline_are_what_a_loop_gives() -> None:
    bridge = random_bridge(6, 4)
    x, y = randn(30, 6, seed=5), randn(30, 4, seed=6)
    measured = measure(bridge, x, y)
    hits, cosines, means = 0, [], []
    for row in range(30):
        mapped = y.new_tensor(bridge.target_mean.tolist()) + (x[row] - bridge.source_mean) @ bridge.weight.double()
        alike = [float(torch.dot(mapped, other) / mapped.norm() / other.norm()) for other in y]
        hits += alike.index(max(alike)) == row
        cosines.append(alike[row])
        mean = bridge.target_mean.double()
        means.append(float(torch.dot(mean, y[row]) / mean.norm() / y[row].norm()))
    assert measured.retrieval == pytest.approx(hits / 30)
    assert measured.cosine == pytest.approx(sum(cosines) / 30)
    assert measured.baseline == pytest.approx(sum(means) / 30)


def test_too_little_and_broken_embeddings_are_refused() -> None:
    x = randn(FEWEST, 3)
    with pytest.raises(UsageError, match=f"{FEWEST - 1} pictures are too few"):
        finish(fit_bridge(x[1:], x[1:]))
    with pytest.raises(UsageError, match="cannot be fitted to"):
        finish(fit_bridge(x, x[1:]))
    with pytest.raises(ModelError, match="finite"):
        finish(fit_bridge(x.clone().index_fill_(0, torch.tensor([0]), math.nan), x))
    with pytest.raises(ModelError, match="one embedding for every picture"):
        finish(fit_bridge(x, torch.ones(FEWEST, 3)))
    with pytest.raises(UsageError, match="two pictures or more"):
        measure(random_bridge(3, 3), x[:1], x[:1])


def test_parts_of_a_bridge_must_fit() -> None:
    good = random_bridge(4, 3, "kernel")
    torch.testing.assert_close(good.to(dtype=torch.float64)(randn(2, 4)).float(), good(randn(2, 4).float()))
    with pytest.raises(ModelError, match="other parts"):
        bridge_from("ridge", good.tensors())
    with pytest.raises(ModelError, match="do not fit each other"):
        replace(good, target_mean=torch.zeros(4))
    with pytest.raises(ModelError, match="not finite"):
        replace(good, weight=torch.full((4, 3), math.inf))
    with pytest.raises(ModelError, match="not known"):
        replace(good, kind="ridge")
    assert isinstance(good.kernel, Kernel)


@pytest.mark.parametrize("kind", ["ridge", "kernel"])
def test_a_bridged_encoder_passes_the_conformance_checks(kind: str) -> None:
    encoder = BridgedEncoder(tiny_encoder(), random_bridge(12, 9, kind), name="bridged")
    report = check_encoder(encoder)
    assert report.passed, str(report)
    assert (encoder.spec.name, encoder.spec.embedding_size, encoder.spec.width) == ("bridged", 9, 16)


@pytest.mark.parametrize("kind", sorted(MODELS))
def test_every_family_goes_through_a_bridge(kind: str) -> None:
    source = tiny_family_encoder(kind)
    bridge = random_bridge(source.spec.embedding_size, 9)
    encoder = BridgedEncoder(source, bridge)
    inputs = noise_pictures(encoder)
    trace = encoder.trace(inputs)
    trace.check()
    torch.testing.assert_close(trace.embedding, bridge(source.embed(inputs)))
    torch.testing.assert_close(encoder.readout(trace.final), trace.embedding, rtol=1e-4, atol=1e-4)
    head = Site("head", source.spec.n_layers - 1, 0)
    closed = SteeringLens(encoder, Strength("s", 10.0)).embeddings(trace, [head])[:, 0]
    torch.testing.assert_close(closed, steer_and_patch(encoder, inputs, head, 10.0), rtol=1e-3, atol=1e-3)
    assert encoder.zero_embedding().shape == (1, 9)


def test_parts_of_an_embedding_add_up_behind_a_linear_bridge_and_not_behind_a_kernel() -> None:
    source = tiny_encoder(dtype=torch.float64)
    encoder = BridgedEncoder(source, random_bridge(12, 9).to(dtype=torch.float64))
    trace = encoder.trace(noise_pictures(encoder))
    attribution = LinearAttribution(encoder)
    total = attribution.constant(trace) + attribution.of(trace, trace.components()).sum(dim=1)
    torch.testing.assert_close(total, trace.embedding, rtol=1e-9, atol=1e-9)
    with pytest.raises(UsageError, match="not known to be linear"):
        LinearAttribution(BridgedEncoder(source, random_bridge(12, 9, "kernel")))
    with pytest.raises(UsageError, match="not known to be linear"):
        LinearAttribution(BridgedEncoder(tiny_family_encoder("SiglipVisionModel"), random_bridge(32, 9)))


def test_a_bridged_encoder_has_the_precision_that_its_source_says() -> None:
    class Mixed(CLIPEncoder):
        """Its first parameter is kept in another precision, as libraries keep norms and positions."""

        dtype = torch.bfloat16

    source = tiny_encoder()
    source.__class__ = Mixed
    assert BridgedEncoder(source, random_bridge(12, 9)).dtype == torch.bfloat16


def test_everything_an_encoder_gives_has_crossed() -> None:
    source, bridge = tiny_encoder(), random_bridge(12, 9)
    encoder = BridgedEncoder(source, bridge)
    inputs, site = noise_pictures(source), Site("head", 1, 1)
    torch.testing.assert_close(encoder.embed(inputs, [Zero(site)]), bridge(source.embed(inputs, [Zero(site)])))
    torch.testing.assert_close(encoder.zero_embedding(), bridge(source.zero_embedding()))
    prefix = record_prefix(encoder, inputs)
    torch.testing.assert_close(resume(encoder, prefix, 1, [0], [Zero(site)]), encoder.embed(inputs, [Zero(site)])[:1])
    pixels = inputs["pixel_values"].clone().requires_grad_()
    encoder.forward(pixels).sum().backward()
    assert pixels.grad is not None and float(pixels.grad.abs().max()) > 0
    assert encoder.embed(pixels).dtype == torch.float32


def test_what_cannot_be_bridged_is_refused() -> None:
    with pytest.raises(ModelError, match="takes embeddings of size 5, the encoder gives 12"):
        BridgedEncoder(tiny_encoder(), random_bridge(5, 9))
    once = BridgedEncoder(tiny_encoder(), random_bridge(12, 12))
    with pytest.raises(ModelError, match="through a bridge already"):
        BridgedEncoder(once, random_bridge(12, 9))


def test_pictures_are_read_once_each_and_named_when_broken(tmp_path: Path) -> None:
    folder = save_pictures(tmp_path / "pictures", 5)
    (folder / "inner").mkdir()
    (folder / "inner" / "again.png").write_bytes((folder / "002.png").read_bytes())
    (folder / "notes.txt").write_text("no picture")
    paths = picture_files(folder)
    first, second = tiny_encoder(0), tiny_encoder(1, embedding_size=8)
    told, seen = finish(embed_both(first, second, paths, batch_size=4))
    assert [(event.done, event.total) for event in told] == [(0, 6), (4, 6), (6, 6)]
    assert (len(seen), seen.doubles) == (5, 1) and seen.paths == tuple(paths[:5])
    for encoder, column in ((first, seen.source), (second, seen.target)):
        alone = [encoder.embed(encoder.preprocess([Image.open(path).convert("RGB")])) for path in seen.paths]
        torch.testing.assert_close(column, torch.cat(alone))
    kept, others = held_out(seen, seed=0)
    assert (len(kept), len(others)) == (4, 1) and not set(kept.sha256) & set(others.sha256)
    (folder / "broken.png").write_bytes(b"not a picture")
    with pytest.raises(PictureError, match=r"broken\.png is not a readable picture"):
        finish(embed_both(first, second, picture_files(folder)))
    with pytest.raises(UsageError, match="is not a folder"):
        picture_files(folder / "002.png")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match="holds no picture"):
        picture_files(tmp_path / "empty")
    with pytest.raises(UsageError, match="at least 1 picture"):
        finish(embed_both(first, second, paths, batch_size=0))


@pytest.fixture(scope="module")
def ends(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Path]:
    """Two pairs with different encoders, and pictures."""
    root = tmp_path_factory.mktemp("bridges")
    source = save_tiny_pair(root / "source", seed=1, embedding_size=8, heads=4)
    target = save_tiny_pair(root / "target", seed=2)
    return source, target, save_pictures(root / "pictures", 70)


def made(ends: tuple[Path, Path, Path], **options: Any) -> NewBridge:
    source, target, pictures = ends
    pair = load(target, device="cpu", dtype="float32")
    first = load_encoder(source, device="cpu")
    return finish(
        make_bridge(
            first, pair.encoder, picture_files(pictures), decoder=pair.decoder, options=BridgeOptions(**options)
        )
    )[1]


def saved(ends: tuple[Path, Path, Path], folder: Path) -> Path:
    done = made(ends, choice="ridge")
    found = [locate_encoder(place) for place in ends[:2]]
    first, second = (end_of(one, open_encoder(one, device="cpu")) for one in found)
    save_bridge(folder, done.fitted, done.measured, first, second, {"folder": "p"})
    return folder


def test_a_bridge_is_made_measured_and_decoded(ends: tuple[Path, Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Any] = []
    fit = making.fit_bridge
    monkeypatch.setattr(making, "fit_bridge", lambda x, y, *rest, **more: seen.append(x) or fit(x, y, *rest, **more))
    done = made(ends, choice="ridge", decode=2)
    assert (done.fitted.n_pictures, done.measured.n_pictures, len(seen[0])) == (56, 14, 56)
    assert done.measured.n_decoded == 2 and done.measured.decoded is not None
    assert -1 <= done.measured.decoded <= 1 and done.measured.decoded_own is not None


def test_pictures_held_out_are_none_of_those_fitted_on(ends: tuple[Path, Path, Path]) -> None:
    first, second = load_encoder(ends[0], device="cpu"), load_encoder(ends[1], device="cpu")
    paths = picture_files(ends[2])
    options = BridgeOptions("ridge")
    done = finish(make_bridge(first, second, paths[:60], paths[50:], options=options))[1]
    assert (done.fitted.n_pictures, done.measured.n_pictures, done.doubles) == (60, 10, 10)
    assert any("10 files were left out" in note for note in done.notes)
    with pytest.raises(UsageError, match="fewer than two"):
        finish(make_bridge(first, second, paths[:60], paths[:60], options=options))
    with pytest.raises(UsageError, match="61 pictures are too few for a bridge; give at least 63"):
        finish(make_bridge(first, second, paths[:61], options=options))
    with pytest.raises(UsageError, match="without a decoder"):
        finish(make_bridge(first, second, paths, options=BridgeOptions(decode=1)))


def test_a_bridge_runs_the_lenses_of_its_source_in_the_space_of_its_target(
    ends: tuple[Path, Path, Path], tmp_path: Path
) -> None:
    folder = saved(ends, tmp_path / "bridge")
    pair, target = load(f"bridge:{folder}", device="cpu", dtype="float32"), load(ends[1], device="cpu", dtype="float32")
    assert isinstance(pair.encoder, BridgedEncoder) and pair.encoder.spec.n_heads == 4
    assert pair.encoder.spec.embedding_size == pair.decoder.spec.embedding_size == 12
    # "No condition" is what the decoder was trained with, not what the bridge makes of an empty input.
    decoders: list[Any] = [pair.decoder, target.decoder]
    torch.testing.assert_close(decoders[0].negative_embedding, decoders[1].negative_embedding)
    inputs = noise_pictures(pair.encoder)
    wanted = read_bridge(folder).bridge(load_encoder(ends[0], device="cpu").embed(inputs))
    torch.testing.assert_close(pair.encoder.trace(inputs).embedding, wanted)
    assert pair.vocabulary is not None
    scores = LogitLens(pair.encoder, pair.vocabulary).scores(pair.encoder.trace(inputs), [Site("resid_post", 2)])
    torch.testing.assert_close(scores[:, 0], pair.vocabulary.scores(wanted))
    assert any("over a bridge (ridge)" in note for note in pair.notes)
    hashes = pair.provenance.sha256
    assert "bridge/bridge.safetensors" in hashes and "target/image_encoder/model.safetensors" in hashes
    assert hashes["image_encoder/model.safetensors"] != hashes["target/image_encoder/model.safetensors"]


def test_other_weights_than_a_bridge_was_fitted_with_are_refused(ends: tuple[Path, Path, Path], tmp_path: Path) -> None:
    folder = saved(ends, tmp_path / "bridge")
    other = save_tiny_pair(tmp_path / "other", seed=3, embedding_size=8, heads=4)
    with pytest.raises(ModelError, match=r"other is not the encoder .* image_encoder/model\.safetensors differs"):
        load(f"bridge:{folder}", device="cpu", encoder=other)
    with pytest.raises(ModelError, match=r"is not the encoder .* differ"):
        load(f"bridge:{folder}", device="cpu", local=other)
    with pytest.raises(UsageError, match="belongs to the very weights"):
        load(f"bridge:{folder}", device="cpu", encoder=load_encoder(ends[0], device="cpu"))
    with pytest.raises(UsageError, match=r"holds no bridge .* steerlens bridge fit"):
        load(f"bridge:{tmp_path}", device="cpu")
    # The same files in another place are the same encoder.
    again = save_tiny_pair(tmp_path / "again", seed=1, embedding_size=8, heads=4)
    assert load(f"bridge:{folder}", device="cpu", encoder=again).encoder.spec.n_heads == 4


def test_a_bridge_without_a_decoder_at_its_end_is_refused(ends: tuple[Path, Path, Path], tmp_path: Path) -> None:
    folder = saved(ends, tmp_path / "bridge")
    card = yaml.safe_load((folder / "card.yaml").read_text())
    (tmp_path / "alone").mkdir()
    for part in ("image_encoder", "image_processor"):
        (tmp_path / "alone" / part).symlink_to(ends[1] / part)
    card["target"]["source"] = str(tmp_path / "alone")
    (folder / "card.yaml").write_text(yaml.safe_dump(card))
    with pytest.raises(ModelError, match="decoder"):
        load(f"bridge:{folder}", device="cpu")


def test_broken_bridges_are_refused(ends: tuple[Path, Path, Path], tmp_path: Path) -> None:
    folder = saved(ends, tmp_path / "bridge")
    stored = read_bridge(folder)
    assert stored.bridge.kind == "ridge" and stored.source.embedding_size == 8 and stored.pictures["fitted"] == 56
    text, data = (folder / "card.yaml").read_text(), (folder / "bridge.safetensors").read_bytes()
    card = yaml.safe_load(text)
    for change, words in (
        ({"format": 1}, "another version"),
        ({"sha256": "0" * 64}, r"bridge\.safetensors is damaged, or not the map that"),
        ({"kind": "procrustes2"}, "not known"),
        ({"source": {**card["source"], "embedding_size": 7}}, "the card says embeddings of sizes"),
        ({"measured": {}}, r"cannot be read: card\.yaml: "),
    ):
        (folder / "card.yaml").write_text(yaml.safe_dump({**card, **change}))
        with pytest.raises(ModelError, match=words):
            read_bridge(folder)
    (folder / "card.yaml").write_text(text)
    (folder / "bridge.safetensors").write_bytes(data[:-8])
    with pytest.raises(ModelError, match=r"bridge\.safetensors is damaged, or not the map that"):
        read_bridge(folder)
    (folder / "bridge.safetensors").unlink()
    with pytest.raises(ModelError, match="cannot be read"):
        read_bridge(folder)
    with pytest.raises(UsageError, match="not empty"):
        save_bridge(folder, Fitted(stored.bridge, (), "ridge", 56), stored.measured, stored.source, stored.target, {})


def test_the_end_of_a_bridge_is_named_so_that_it_is_found_again(
    ends: tuple[Path, Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder = load_encoder(ends[0], device="cpu")
    monkeypatch.chdir(ends[0].parent)
    end = end_of(locate_encoder("source"), encoder)
    assert isinstance(end, End) and end.source == str(ends[0].resolve())
    assert set(end.sha256) == {
        "image_encoder/model.safetensors",
        "image_encoder/config.json",
        "image_processor/preprocessor_config.json",
    }
    assert end_of(locate_encoder("emoji"), encoder).source == "emoji"
    with pytest.raises(UsageError, match="emojy"):
        locate_encoder("emojy")
