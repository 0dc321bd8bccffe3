"""Identity of a run: everything that decides the numbers changes it, and nothing else does."""

import json
import pickle
import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from steerlens import load_encoder
from steerlens.decoders import NeighboursDecoder, index_pictures
from steerlens.images import Picture
from steerlens.loading import load
from steerlens.progress import run_to_end
from steerlens.runs.manifest import comparable, fingerprint
from steerlens.storage.parameters import weights_state
from steerlens.sweep import LookOptions, make_job
from steerlens.sweep.identity import identity
from steerlens.sweep.look import look
from steerlens.testing.tiny import save_tiny_pair, tiny_encoder, tiny_processor
from steerlens.testing.tiny_vit import tiny_timm_encoder
from steerlens.zoo import Pair
from steerlens.zoo.identity import encoder_identity, models_identity

Change = Callable[[Path], None]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_pair(tmp_path_factory.mktemp("identity") / "pair")


@pytest.fixture(scope="module")
def pair(folder: Path) -> Pair:
    return load(folder, dtype="float32", device="cpu")


def picture(colour: str = "red") -> Picture:
    return Picture.from_image(Image.new("RGB", (20, 20), colour), "picture")


def known(
    pair: Pair,
    pictures: tuple[Picture, ...] = (),
    target: Picture | None = None,
    directions: Any = None,
    **options: Any,
) -> dict[str, Any]:
    given = LookOptions(**{"sites": "L2H1", "steps": 2, **options})
    job = make_job(pair, [*(pictures or (picture(),))], given, target, directions=directions)
    known_by = json.loads(json.dumps(identity(pair, job)))
    return comparable(known_by, known_by)


def in_json(name: str, **values: Any) -> Change:
    def change(folder: Path) -> None:
        file = folder / name
        file.write_text(json.dumps({**json.loads(file.read_text()), **values}))

    return change


def one_weight(part: str) -> Change:
    def change(folder: Path) -> None:
        (file,) = (folder / part).glob("*.safetensors")
        tensors = load_file(file)
        name = sorted(tensors)[0]
        tensors[name] = tensors[name] + 0.25
        save_file(tensors, file, {"format": "pt"})

    return change


def saved_by_a_later_library(folder: Path) -> None:
    """The image processor as one part of a file for all processors, with another mean."""
    file = folder / "image_processor" / "preprocessor_config.json"
    settings = {**json.loads(file.read_text()), "image_mean": [0.1, 0.1, 0.1]}
    file.unlink()
    (file.parent / "processor_config.json").write_text(json.dumps({"image_processor": settings}))


FILES: dict[str, Change] = {
    "a weight of the encoder": one_weight("image_encoder"),
    "a weight of the decoder": one_weight("decoder/unet"),
    "a weight of the decoder's autoencoder": one_weight("decoder/movq"),
    "the encoder's activation": in_json("image_encoder/config.json", hidden_act="gelu"),
    "the encoder's epsilon": in_json("image_encoder/config.json", layer_norm_eps=1e-3),
    "the mean of preprocessing": in_json("image_processor/preprocessor_config.json", image_mean=[0.1, 0.1, 0.1]),
    "the filter of preprocessing": in_json("image_processor/preprocessor_config.json", resample=2),
    "a processor of a later library": saved_by_a_later_library,
    "the scheduler": in_json("decoder/scheduler/scheduler_config.json", beta_end=0.5),
}

OPTIONS: dict[str, dict[str, Any]] = {
    "steps": {"steps": 3},
    "guidance": {"guidance": 2.5},
    "guidance interval": {"guidance_interval": (0.0, 0.5)},
    "seeds": {"n_seeds": 2},
    "first seed": {"seed": 7},
    "sites": {"sites": "L2H0"},
    "lenses": {"lenses": ("steering",)},
    "controls": {"controls": 2},
    "strength": {"strength": "rho=2"},
    "kind of strength": {"strength": "s=2"},
    "labels": {"n_labels": 3},
    "choice of what is decoded": {"decode": "top:1"},
    "target": {"target": picture("blue")},
    "direction": {"directions": {"mine": torch.eye(16)[0]}},
    "pictures": {"pictures": (picture("green"),)},
}


def in_memory(pair: Pair) -> dict[str, Pair]:
    """Pairs whose encoder is an object: itself, and with one thing changed in memory."""

    def with_encoder(change: Callable[[Any], Any] = lambda encoder: encoder, **options: Any) -> Pair:
        encoder = tiny_encoder(**options)
        change(encoder)
        return replace(pair, encoder=encoder, provenance=replace(pair.provenance, sha256={}))

    def trained(encoder: Any) -> None:
        with torch.no_grad():
            next(encoder.model.parameters()).add_(0.1)

    def edited(encoder: Any) -> None:
        next(encoder.model.parameters()).data.mul_(1.5)

    def other_mean(encoder: Any) -> None:
        encoder.processor.image_mean = [0.1, 0.1, 0.1]

    def eager(encoder: Any) -> None:
        encoder.model.set_attn_implementation("eager")

    def other_epsilon(encoder: Any) -> None:
        encoder.model.vision_model.post_layernorm.eps = 0.5

    def other_activation(encoder: Any) -> None:
        for block in encoder.model.vision_model.encoder.layers:
            block.mlp.activation_fn = torch.nn.ReLU()

    def other_scale(encoder: Any) -> None:
        encoder.model.vision_model.encoder.layers[1].self_attn.scale *= 2

    def hooked(factor: float) -> Callable[[Any], None]:
        def change(encoder: Any) -> None:
            encoder.model.visual_projection.register_forward_hook(lambda *call: call[-1] * factor)

        return change

    def replaced(encoder: Any) -> None:
        mlp = encoder.model.vision_model.encoder.layers[0].mlp
        mlp.forward = lambda hidden: torch.zeros_like(hidden)

    return {
        "an object": with_encoder(),
        "another epsilon in memory": with_encoder(other_epsilon),
        "another activation in memory": with_encoder(other_activation),
        "another scale in memory": with_encoder(other_scale),
        "a hook": with_encoder(hooked(2.0)),
        "the same hook with another number": with_encoder(hooked(3.0)),
        "another forward": with_encoder(replaced),
        "trained": with_encoder(trained),
        "edited": with_encoder(edited),
        "other weights": with_encoder(seed=1),
        "another mean": with_encoder(other_mean),
        "another attention": with_encoder(eager),
        "another precision": with_encoder(lambda encoder: encoder.model.to(torch.bfloat16)),
    }


def with_decoders(pair: Pair, folder: Path) -> dict[str, Pair]:
    """Pairs whose decoder was changed in memory since it was loaded."""

    def changed(change: Callable[[Any], None]) -> Pair:
        loaded = load(folder, dtype="float32", device="cpu")
        change(loaded.decoder)
        return loaded

    def one_more(decoder: Any) -> None:
        with torch.no_grad():
            next(decoder.network.parameters()).add_(1)

    def other_noise(decoder: Any) -> None:
        decoder.scheduler_config = {**decoder.scheduler_config, "beta_end": 0.25}

    return {"a weight of the decoder in memory": changed(one_more), "noise in memory": changed(other_noise)}


def test_each_thing_that_decides_the_numbers_makes_another_identity(pair: Pair, folder: Path, tmp_path: Path) -> None:
    found = {"nothing": known(pair)}
    for name, change in FILES.items():
        place = Path(shutil.copytree(folder, tmp_path / name))
        change(place)
        found[name] = known(load(place, dtype="float32", device="cpu"))
    found |= {name: known(pair, **values) for name, values in OPTIONS.items()}
    found |= {name: known(changed) for name, changed in in_memory(pair).items()}
    found |= {name: known(changed) for name, changed in with_decoders(pair, folder).items()}
    found["precision"] = known(load(folder, dtype="bfloat16", device="cpu"))
    marks: dict[str, str] = {}
    for name, value in found.items():
        twin = marks.setdefault(fingerprint(value), name)
        assert twin == name, f"{name} and {twin} have one identity"
    assert len(marks) > 25


def test_what_does_not_decide_the_numbers_changes_nothing(
    pair: Pair, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = known(pair)
    moved = load(Path(shutil.copytree(folder, tmp_path / "elsewhere")), dtype="float32", device="cpu")
    assert known(moved) == expected
    assert known(pair, batch_size=1) == known(pair, batch_size=7) == expected
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    assert known(pair) == expected
    torch.set_num_threads(threads)
    monkeypatch.setattr("time.time", lambda: 4e9)
    monkeypatch.setenv("TRANSFORMERS_VERBOSITY", "debug")
    assert known(load(folder, dtype="float32", device="cpu")) == expected
    used_pair = pickle.loads(pickle.dumps(load(folder, dtype="float32", device="cpu")))
    used_pair.encoder.embed(used_pair.encoder.preprocess([picture().image]))  # used, and not changed
    look(used_pair, picture(), sites="L2H1", steps=2)
    assert known(used_pair) == expected


def test_weights_that_were_changed_in_memory_are_no_longer_those_of_the_files(folder: Path) -> None:
    pair = load(folder, dtype="float32", device="cpu")
    before = known(pair)
    assert "weights" not in before["models"]["encoder"]
    with torch.no_grad():
        next(pair.encoder.model.parameters()).add_(0.1)  # type: ignore[attr-defined]
    assert not pair.is_as_loaded
    assert known(pair) != before


def test_settings_that_were_changed_in_memory_are_no_longer_those_of_the_files(folder: Path) -> None:
    pair = load(folder, dtype="float32", device="cpu")
    before = known(pair)
    handle = pair.encoder.model.register_forward_hook(lambda *_: None)  # type: ignore[attr-defined]
    assert not pair.is_as_loaded and known(pair) != before
    handle.remove()
    assert pair.is_as_loaded and known(pair) == before
    pair.encoder.model.train()  # type: ignore[attr-defined]  # put into evaluation mode for every pass
    assert pair.is_as_loaded and known(pair) == before


def test_decoders_given_as_objects_are_known_by_what_they_are(folder: Path) -> None:
    def with_noise(beta: float) -> dict[str, Any]:
        decoder: Any = load(folder, device="cpu").decoder
        decoder.scheduler_config = {**decoder.scheduler_config, "beta_end": beta}
        return known(load(folder, decoder=decoder, device="cpu"))

    assert with_noise(0.25) == with_noise(0.25) != with_noise(0.5)
    decoder: Any = load(folder, device="cpu").decoder
    before = decoder.negative_embedding
    decoder.negative_embedding = before + 1
    assert known(load(folder, decoder=decoder, device="cpu")) not in (with_noise(0.25), with_noise(0.5))
    decoder.negative_embedding = before
    unchanged = load(folder, decoder=load(folder, device="cpu").decoder, device="cpu")
    assert known(load(folder, decoder=decoder, device="cpu")) == known(unchanged)


def test_indexes_given_as_objects_are_known_by_their_pictures(pair: Pair, folder: Path, tmp_path: Path) -> None:
    def indexed(place: Path, colours: Sequence[str]) -> dict[str, Any]:
        pictures = place / "pictures"
        pictures.mkdir(parents=True)
        for colour in colours:
            Image.new("RGB", (20, 20), colour).save(pictures / f"{colours.index(colour)}.png")
        run_to_end(index_pictures(pair.encoder, pictures, place / "index"))
        return models_identity(load(folder, decoder=NeighboursDecoder(place / "index"), device="cpu"))

    first = indexed(tmp_path / "a", ["blue", "green"])
    assert indexed(tmp_path / "b", ["blue", "green"]) == first
    assert indexed(tmp_path / "c", ["blue", "yellow"]) != first


@pytest.mark.usefixtures("timm")
def test_functions_that_prepare_pictures_are_known_by_what_they_do() -> None:
    def encoder(factor: float) -> Any:
        whole = tiny_timm_encoder()
        size = whole.spec.image_size[::-1]

        def prepare(image: Image.Image) -> torch.Tensor:
            pixels = np.array(image.resize(size))
            return torch.from_numpy(pixels).permute(2, 0, 1).float() / 255 * factor

        return load_encoder(whole.model, prepare, name="mine")

    assert encoder_identity(encoder(1.0)) == encoder_identity(encoder(1.0)) != encoder_identity(encoder(2.0))


def test_an_encoder_given_as_an_object_is_known_by_its_weights(folder: Path) -> None:
    native = tiny_encoder().model
    encoder = load_encoder(native, tiny_processor(), name="mine")
    before = known(load(folder, encoder=encoder, device="cpu"))
    assert known(load(folder, encoder=encoder, device="cpu")) == before
    with torch.no_grad():
        for parameter in native.parameters():
            parameter.mul_(1.01)
    assert known(load(folder, encoder=encoder, device="cpu")) != before


def test_the_mark_of_weights_notices_changes_of_every_kind() -> None:
    encoder, marks = tiny_encoder(), set[str]()
    parameter = next(encoder.model.parameters())
    with torch.no_grad():
        marks.add(weights_state(encoder))
        parameter.add_(1)
        marks.add(weights_state(encoder))
    parameter.data = parameter.data + 1
    marks.add(weights_state(encoder))
    parameter.data.mul_(2)
    marks.add(weights_state(encoder))
    encoder.model.to(torch.bfloat16)
    marks.add(weights_state(encoder))
    assert len(marks) == 5


def test_runs_of_the_version_before_are_compared_in_what_they_say(pair: Pair) -> None:
    now = known(pair)
    before = json.loads(json.dumps(now))
    for name in ("processor", "attention"):
        del before["models"]["encoder"][name]
    assert comparable(now, before) == comparable(before, now)
    before["models"]["encoder"]["dtype"] = "bfloat16"
    assert comparable(now, before) != comparable(before, now)
