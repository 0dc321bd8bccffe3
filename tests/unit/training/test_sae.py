"""Training of sparse autoencoders: recovers a planted dictionary, revives dead features, resumes, and is read again."""

import json
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import SafetensorError
from safetensors.torch import load_file

from steerlens.cli.main import main
from steerlens.errors import StoreError, UsageError
from steerlens.progress import run_to_end
from steerlens.saes import EMBEDDING, fidelity, load_sae
from steerlens.sites import Site
from steerlens.training import (
    Budget,
    SaeFigures,
    SaeRecipe,
    StageRecord,
    TrainedSae,
    ValueOptions,
    collect_values,
    finished_sae,
    folder_of_pictures,
    measure_sae,
    train_sae,
    write_sae,
)
from steerlens.training.checkpoint import save_checkpoint
from steerlens.training.sae_run import PictureListing, open_sae_run
from steerlens.zoo.pair import Pair

D, F, K = 24, 48, 3


def planted(count: int = 6000, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Values that are sums of K of F random directions, far from the origin, and the directions."""
    generator = torch.Generator().manual_seed(seed)
    directions = torch.nn.functional.normalize(torch.randn(F, D, generator=generator), dim=1)
    active = torch.rand(count, F, generator=generator).topk(K, dim=1).indices
    amounts = torch.zeros(count, F).scatter(1, active, 1 + torch.rand(count, K, generator=generator))
    return 30 * (amounts @ directions + 2), directions


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[torch.Tensor, TrainedSae]:
    values, _ = planted()
    recipe = SaeRecipe(F, K, batch=256, rate=3e-3, dead_after=5000)
    folder = tmp_path_factory.mktemp("planted")
    return values, run_to_end(train_sae(values, values[:500], recipe, folder, Budget(steps=1200)))


def test_a_planted_dictionary_is_recovered(trained: tuple[torch.Tensor, TrainedSae]) -> None:
    values, model = trained
    sae = finished_sae(model, values, Site("resid_post", 1), "planted", "all")
    _, directions = planted()
    assert float((sae.W_dec @ directions.T).amax(dim=0).median()) > 0.95
    measured = fidelity(sae, values)
    assert measured.explained_variance > 0.9
    assert measured.l0 == pytest.approx(K, abs=0.1)
    assert measured.dead_share < 0.1


def test_the_finished_autoencoder_computes_what_training_did(trained: tuple[torch.Tensor, TrainedSae]) -> None:
    values, model = trained
    sae = finished_sae(model, values, Site("resid_post", 1), "planted", "all")
    mean = values.mean(dim=0)
    factor = (D / (values - mean).square().sum(dim=1).mean()).sqrt()
    with torch.no_grad():
        x = (values[:200] - mean) * factor
        pre = model.pre_activations(x)
        kept = pre * (pre > sae.activation.threshold[0] * factor)  # type: ignore[union-attr]
        rebuilt = (kept @ model.unit_rows + model.b_dec) / factor + mean
    torch.testing.assert_close(sae.encode(values[:200]), kept / factor, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(sae.decode(sae.encode(values[:200])), rebuilt, rtol=1e-3, atol=1e-2)


def test_a_batch_keeps_k_features_on_average() -> None:
    model = TrainedSae(D, SaeRecipe(F, K))
    x = torch.randn(64, D, generator=torch.Generator().manual_seed(1))
    pre = model.pre_activations(x).detach()
    kept = model.batch_top_k(pre)
    assert int((kept > 0).sum()) == K * 64
    assert float(kept[kept > 0].min()) >= float(pre[kept == 0].max())


def test_dead_features_move_towards_what_is_unexplained_and_only_they_do() -> None:
    values, _ = planted(512)
    recipe = SaeRecipe(F, 1, batch=64, dead_after=0)
    model = TrainedSae(D, recipe)
    model.idle[:4] = 10
    x = (values[:64] - values.mean(dim=0)) / values.std()
    pre, rows = model.pre_activations(x), model.unit_rows
    loss = model._revival(pre, torch.randn_like(x), rows)  # pyright: ignore[reportPrivateUsage]
    loss.backward()
    assert model.W_dec.grad is not None and bool(model.W_dec.grad[:4].abs().sum(dim=1).gt(0).all())
    assert not bool(model.W_dec.grad[4:].any())
    assert set(model.losses(x)) == {"unexplained", "loss", "revival"}
    without = TrainedSae(D, SaeRecipe(F, 1, batch=64, dead_after=0, dead_weight=0))
    without.idle[:4] = 10
    assert set(without.losses(x)) == {"unexplained", "loss"}


def test_a_resumed_run_equals_an_uninterrupted_one(tmp_path: Path) -> None:
    values, _ = planted(500)
    recipe = SaeRecipe(F, K, batch=64, dead_after=300)

    def events(folder: Path, *, resume: bool):
        return train_sae(
            values,
            values[:50],
            recipe,
            folder,
            Budget(steps=12),
            resume=resume,
            report_seconds=0,
            checkpoint_seconds=0,
        )

    whole = run_to_end(events(tmp_path / "whole", resume=False))
    begun = events(tmp_path / "broken", resume=False)
    records = [event.payload for event in islice(begun, 5)]
    begun.close()
    assert isinstance(records[-1], StageRecord) and records[-1].step == 5
    resumed = run_to_end(events(tmp_path / "broken", resume=True))
    for name, tensor in whole.state_dict().items():
        torch.testing.assert_close(resumed.state_dict()[name], tensor, rtol=0, atol=0)


def test_values_are_those_of_the_site_and_are_computed_once(pair: Pair, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    images = [Image.fromarray(rng.integers(0, 255, (20, 20, 3), dtype=np.uint8)) for _ in range(5)]
    openers = [lambda image=image: image for image in images]
    site, spec = Site("resid_post", 1), pair.encoder.spec
    expected = pair.encoder.record(pair.encoder.preprocess(images), [site])[site]
    measured = run_to_end(collect_values(pair.encoder, openers, ValueOptions(site), tmp_path / "all", batch=2))
    assert measured.shape == (5 * spec.n_tokens, spec.width)
    torch.testing.assert_close(
        measured.view(5, spec.n_tokens, -1).sort(dim=1).values, expected.sort(dim=1).values, rtol=1e-4, atol=1e-5
    )
    few = run_to_end(collect_values(pair.encoder, openers, ValueOptions(site, per_picture=3), tmp_path / "few"))
    torch.testing.assert_close(few.view(5, 3, -1)[:, 0], expected[:, 0], rtol=1e-4, atol=1e-5)
    read = run_to_end(collect_values(pair.encoder, openers, ValueOptions(site, "cls"), tmp_path / "cls"))
    torch.testing.assert_close(read, expected[:, 0], rtol=1e-4, atol=1e-5)
    embedded = run_to_end(collect_values(pair.encoder, openers, ValueOptions(EMBEDDING), tmp_path / "embedding"))
    torch.testing.assert_close(embedded, pair.encoder.embed(pair.encoder.preprocess(images)), rtol=1e-4, atol=1e-5)

    def never() -> Image.Image:
        raise AssertionError("a stored value was computed again")

    again = run_to_end(collect_values(pair.encoder, [never] * 5, ValueOptions(site), tmp_path / "all"))
    assert torch.equal(again, measured)


@pytest.mark.parametrize("place", [Site("resid_post", 1), Site("head", 1, 0), EMBEDDING])
def test_what_is_written_is_read_again(place: Site, pair: Pair, tmp_path: Path) -> None:
    width = pair.encoder.spec.embedding_size if place == EMBEDDING else pair.encoder.spec.width
    values = torch.randn(300, width, generator=torch.Generator().manual_seed(0))
    sae = finished_sae(TrainedSae(width, SaeRecipe(2 * width, 2)), values, place, "mine", "all")
    picture = Image.new("RGB", (20, 20), (200, 30, 90))
    figures = measure_sae(pair.encoder, sae, [lambda: picture] * 3)
    write_sae(sae, tmp_path / "mine", model="tiny", figures=figures, training={"steps": 0})
    read = load_sae(tmp_path / "mine")
    assert (read.name, read.site, read.trained_on) == ("mine", place, "all")
    torch.testing.assert_close(read.encode(values), sae.encode(values))
    torch.testing.assert_close(read.decode(read.encode(values)), sae.decode(sae.encode(values)))
    assert f"{figures.explained_variance:.3f}" in (tmp_path / "mine" / "README.md").read_text()


def test_a_perfect_autoencoder_leaves_the_embedding_as_it_is(pair: Pair) -> None:
    # One feature for each direction of the residual, and one against it: every value is rebuilt exactly.
    width = pair.encoder.spec.width
    eye = torch.eye(width)
    model = TrainedSae(width, SaeRecipe(2 * width, width))
    with torch.no_grad():
        model.W_enc.copy_(torch.cat([eye, -eye], dim=1))
        model.W_dec.copy_(torch.cat([eye, -eye]))
    values = torch.randn(300, width, generator=torch.Generator().manual_seed(0)) * 100
    sae = finished_sae(model, values, Site("resid_post", 1), "perfect", "all")
    picture = Image.new("RGB", (20, 20), (200, 30, 90))
    figures = measure_sae(pair.encoder, sae, [lambda: picture] * 3)
    assert isinstance(figures, SaeFigures) and figures.pictures == 3
    assert figures.cosine == pytest.approx(1, abs=0.05)


def test_the_command_trains_refuses_and_resumes(
    pair_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    photos, out = tmp_path / "photos", tmp_path / "run"
    photos.mkdir()
    rng = np.random.default_rng(0)
    for number in range(12):
        Image.fromarray(rng.integers(0, 255, (20, 20, 3), dtype=np.uint8)).save(photos / f"{number}.png")
    command = ["train", "sae", "--model", str(pair_folder), "--site", "resid_post.1", "--images", str(photos)]
    command += ["--out", str(out), "--features", "20", "--k", "3", "--batch", "32", "--steps", "5", "--name", "mine"]
    assert main([*command, "--resume"]) == 2
    assert "no run to continue" in capsys.readouterr().err
    assert main(command) == 0
    assert "explained variance" in capsys.readouterr().out
    sae = load_sae(out / "mine")
    assert (sae.n_features, str(sae.site)) == (20, "resid_post.1")
    config = json.loads((out / "mine" / "cfg.json").read_text())
    assert config["metadata"]["training"]["steps"] == 5
    assert set(load_file(out / "mine" / "sae_weights.safetensors")) == {"W_enc", "W_dec", "b_enc", "b_dec", "threshold"}
    assert main(command) == 2
    assert "give --resume" in capsys.readouterr().err
    assert main([*command, "--resume"]) == 0
    assert main([*[part if part != "20" else "24" for part in command], "--resume"]) == 2
    assert "a run with other options: --features was 20, and is 24. Give the same" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"--site": "resid_post.9"}, "3 layers"),
        ({"--site": "somewhere"}, "not a site"),
        ({"--site": "blocks.1.attn.hook_z"}, "head values are not trained on here"),
        ({"--k": "0"}, "keeps 1 to"),
        ({"--steps": "0"}, "above 0"),
        ({"--site": "embedding", "--tokens": "cls"}, "no tokens"),
        ({"--site": "vector.mine"}, "cannot be trained at"),
        ({"--images": "nowhere"}, "not a folder"),
        ({"--batch": "100000"}, "fewer than a batch"),
        ({"--features": "0"}, "an autoencoder of 0 features"),
        ({"--name": ".."}, "cannot be the name of an autoencoder"),
        ({"--name": "values"}, "cannot be the name of an autoencoder"),
        ({"--name": "a/b"}, "cannot name"),
        ({"--rate": "0"}, "--rate must be above 0"),
        ({"--out": __file__}, "is a file; give another --out"),
        ({"--rate": "nan"}, "--rate: nan is not a finite number"),
        ({"--minutes": "inf"}, "--minutes: inf is not a finite number"),
    ],
)
def test_a_wrong_request_is_one_clear_line(
    changed: dict[str, str], said: str, pair_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "photos").mkdir()
    for number in range(3):
        Image.new("RGB", (20, 20), (number, 0, 0)).save(tmp_path / "photos" / f"{number}.png")
    given = {"--model": str(pair_folder), "--site": "resid_post.1", "--images": str(tmp_path / "photos")}
    given |= {"--out": str(tmp_path / "run"), "--features": "20", "--steps": "2", **changed}
    assert main(["train", "sae", *(part for option in given.items() for part in option)]) == 2
    message = capsys.readouterr().err
    assert said in message


def test_a_recipe_makes_sense() -> None:
    with pytest.raises(UsageError, match="keeps 1 to 4"):
        SaeRecipe(4, 5)


def small_run(folder: Path, pair_folder: Path, *, colour: int = 0) -> list[str]:
    """Makes pictures; returns the command of a short training on them."""
    (folder / "photos").mkdir(exist_ok=True)
    for number in range(6):
        Image.effect_noise((20 + colour, 20), 90).convert("RGB").save(folder / "photos" / f"{number}.png")
    command = ["train", "sae", "--model", str(pair_folder), "--site", "resid_post.1", "--out", str(folder / "run")]
    command += ["--images", str(folder / "photos"), "--features", "20", "--k", "3", "--batch", "16", "--steps", "2"]
    return command


def test_a_run_is_not_continued_with_other_pictures_or_another_model(
    pair_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = small_run(tmp_path, pair_folder)
    assert main(command) == 0
    small_run(tmp_path, pair_folder, colour=7)  # as many pictures in a folder of the same name
    assert main([*command, "--resume"]) == 2
    message = capsys.readouterr().err
    assert "a run with other pictures: " in message and " and 3 more are of another size. " in message
    assert "Restore those to continue the run, or give another --out" in message
    record = tmp_path / "run" / "run.json"
    recorded = json.loads(record.read_text())
    record.write_text(json.dumps({**recorded, "model": {**recorded["model"], "weights": "0" * 64}}))
    assert main([*command, "--resume"]) == 2
    assert "a run with another model: the hash of its weights was 000" in capsys.readouterr().err
    # Runs of before recorded neither, and go on.
    older = {key: value for key, value in recorded.items() if key not in ("model", "pictures_hash")}
    record.write_text(json.dumps(older))
    assert main([*command, "--resume"]) == 0


@pytest.mark.parametrize(
    ("before", "now", "count", "said"),
    [
        ({"a": 1, "b": 2}, {"b": 2, "c": 3}, (9, 9), "a is no longer there. "),
        ({"a": 1, "b": 2}, {"a": 1, "b": 3}, (9, 9), "b is of another size. "),
        ({"a": 1, "b": 2}, {"a": 1, "b": 2, "c": 3}, (9, 9), "the folder contained 2 pictures, and contains 3. "),
        ({"a": 1, "b": 2, "c": 3}, {"a": 1, "b": 2, "c": 3}, (3, 2), "3 pictures were chosen, and 2 are now (see --c"),
        (None, None, (5, 4), "--count was 5, and is 4. "),
        (None, None, (5, 5), "the prepared pictures of --data changed since it began. "),
    ],
)
def test_the_message_says_which_pictures_changed(
    before: dict[str, int] | None, now: dict[str, int] | None, count: tuple[int, int], said: str, tmp_path: Path
) -> None:
    def opened(sizes: dict[str, int] | None, number: int, *, resume: bool) -> None:
        for name, size in (sizes or {}).items():
            (tmp_path / name).write_bytes(b"x" * size)
        chosen_sizes = dict(islice((sizes or {}).items(), number))
        listing = None if sizes is None else PictureListing(tmp_path, frozenset(sizes), chosen_sizes)
        chosen = [number - 1, 1, "scenes" if sizes is None else "folder photos"]
        identity = {"place": "embed", "pictures": chosen, "pictures_hash": str(sizes) + str(resume)}
        open_sae_run(tmp_path / "run", identity, listing, resume=resume)

    opened(before, count[0], resume=False)
    with pytest.raises(UsageError) as refused:
        opened(now, count[1], resume=True)
    assert f"a run with other pictures: {said}" in str(refused.value)


def test_sizes_are_read_of_chosen_pictures_alone(tmp_path: Path) -> None:
    for number in range(9):
        (tmp_path / f"{number}.png").write_bytes(b"x" * number)
    listing = folder_of_pictures(tmp_path, 4).listing
    assert listing is not None and len(listing.sizes) == 4
    assert listing.to_json() == {"in_folder": 9, "sizes": {name: int(name[0]) for name in listing.sizes}}
    other = next(name for name in listing.names if name not in listing.sizes)
    (tmp_path / other).write_bytes(b"x" * 100)
    assert listing.size(other) == 100 and listing.size("gone.png") is None


@pytest.mark.parametrize("damaged", ["values/values-00000.safetensors", "sae.checkpoint.safetensors", "run.json"])
def test_a_damaged_file_of_a_run_is_named(
    damaged: str, pair_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = small_run(tmp_path, pair_folder)
    assert main(command) == 0
    path = tmp_path / "run" / damaged
    path.write_bytes(path.read_bytes()[:-9] if path.suffix == ".json" else path.read_bytes()[:50])
    capsys.readouterr()
    assert main([*command, "--resume"]) == 1
    message = capsys.readouterr().err
    assert path.name in message and "unexpected" not in message and message.count("steerlens: ") == 1
    path.unlink()
    if damaged != "run.json":
        assert main([*command, "--resume"]) == 0, "its content is computed again"


def test_a_full_disk_is_reported_and_leaves_nothing_half_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        (tmp_path / "a.safetensors.tmp").write_bytes(b"half")
        raise SafetensorError("I/O error: No space left on device (os error 28)")

    monkeypatch.setattr("steerlens.training.checkpoint.save_file", full)
    with pytest.raises(StoreError, match="No space left on device"):
        save_checkpoint(tmp_path / "a.safetensors", {"x": torch.zeros(2)}, {})
    assert not list(tmp_path.iterdir())
