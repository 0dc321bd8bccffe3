"""Loading pairs: both layouts, every scheduler config, every sampler; and every way in which a folder can be broken."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import pytest
import torch
import transformers
import yaml
from huggingface_hub.errors import HFValidationError
from safetensors.torch import load_file, save_file

from steerlens.conditioning import Conditioning
from steerlens.decoders.base import DecodeOptions, SchedulerName, decode
from steerlens.devices import choose_device, decoder_dtype, encoder_dtype, parse_dtype
from steerlens.errors import ModelError, UsageError
from steerlens.loading import load, load_encoder
from steerlens.storage.weights import file_hash, quiet_libraries
from steerlens.testing.tiny import (
    SCHEDULERS,
    save_tiny_pair,
    tiny_encoder,
    tiny_processor,
    tiny_text_model,
    tiny_vision_model,
)
from steerlens.vocabulary import TextVocabulary
from steerlens.zoo import registry
from steerlens.zoo.cards import cards, parse_card
from steerlens.zoo.cost import cost_of


@pytest.fixture(scope="module")
def pair_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_pair(tmp_path_factory.mktemp("pair"))


@pytest.fixture(scope="module")
def hub_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_pair(tmp_path_factory.mktemp("hub"), layout="hub")


@pytest.fixture
def broken(pair_folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(pair_folder, tmp_path / "broken"))


def test_a_pair_loads_quietly_and_says_where_it_came_from(pair_folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    pair = load(pair_folder, dtype="float32")
    assert capfd.readouterr() == ("", "")
    assert (pair.encoder.spec.embedding_size, pair.encoder.spec.n_layers) == (12, 3)
    assert pair.card is None and pair.vocabulary is not None
    weights = pair_folder / "decoder" / "unet" / "diffusion_pytorch_model.safetensors"
    assert pair.provenance.sha256["unet/diffusion_pytorch_model.safetensors"] == file_hash(weights)
    configs = ("image_encoder/config", "image_processor/preprocessor_config", "unet/config", "movq/config")
    assert {f"{name}.json" for name in (*configs, "scheduler/scheduler_config")} < set(pair.provenance.sha256)
    assert len(pair.provenance.sha256) == 8
    assert pair.provenance.to_json()["encoder"]["preprocessing"] == "CLIPImageProcessorPil"
    assert pair.provenance.versions["torch"] == torch.__version__
    json.dumps(pair.provenance.to_json())


def test_a_config_that_changes_the_numbers_changes_what_identifies_the_pair(broken: Path) -> None:
    before = load(broken, dtype="float32").provenance.sha256
    config = broken / "decoder" / "scheduler" / "scheduler_config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"beta_end": 0.02}))
    after = load(broken, dtype="float32").provenance.sha256
    assert {name for name in before if before[name] != after[name]} == {"scheduler/scheduler_config.json"}


def test_a_folder_with_a_card_runs_as_the_card_says(broken: Path) -> None:
    held = {key: value for key, value in CARD.items() if key != "bundled"}
    held |= {"embedding_size": 12, "layers": 3, "heads": 2, "strength": "s=7"}
    (broken / "card.yaml").write_text(yaml.safe_dump(held))
    pair = load(broken, dtype="float32")
    assert pair.card is not None and (pair.card.title, pair.card.strength) == ("A pair", "s=7")
    assert pair.decoder.spec.defaults == DecodeOptions(3, 2.0, "ddim", (16, 16))
    assert pair.provenance.to_json()["encoder"]["folder"] == str(broken)
    assert cost_of(broken, device="cpu").size == (16, 16)
    for change, words in (
        ({"bundled": "x"}, "bundled has no place"),
        ({"layers": 4}, "card.yaml says 4 layers, and the pair has 3"),
        ({"defaults": None}, "defaults: should be a table"),
        ({"licens": "MIT"}, "unknown: licens"),
    ):
        (broken / "card.yaml").write_text(yaml.safe_dump(held | change))
        with pytest.raises(ModelError, match=words):
            load(broken, dtype="float32")
    (broken / "card.yaml").write_text("a: [")
    with pytest.raises(ModelError, match="cannot be read"):
        load(broken, dtype="float32")


def test_the_weights_that_were_saved_are_the_ones_that_run(pair_folder: Path) -> None:
    pixels = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(1))
    loaded = load_encoder(pair_folder)
    assert torch.equal(loaded.embed(pixels), tiny_encoder().embed(pixels))


def test_the_negative_embedding_is_that_of_all_zero_pixel_values(pair_folder: Path) -> None:
    pair: Any = load(pair_folder, dtype="float32")
    assert torch.equal(pair.decoder.negative_embedding, pair.encoder.embed(torch.zeros(1, 3, 16, 16)))


@pytest.mark.parametrize("scheduler", SCHEDULERS)
def test_hub_layout_decodes_under_every_scheduler_config_and_sampler(scheduler: str, tmp_path: Path) -> None:
    pair = load(save_tiny_pair(tmp_path, layout="hub", scheduler=scheduler), dtype="float32")
    conditioning = Conditioning("image_embedding", torch.randn(1, 12, generator=torch.Generator().manual_seed(0)))
    pictures: dict[str, torch.Tensor] = {}
    for sampler in get_args(SchedulerName):
        options = DecodeOptions(steps=3, guidance=4.0, scheduler=sampler, size=(16, 16))
        pictures[sampler] = decode(pair.decoder, conditioning, [0], options)
        assert pictures[sampler].shape == (1, 3, 16, 16)
        assert bool(torch.isfinite(pictures[sampler]).all())
        assert float(pictures[sampler].min()) >= 0 and float(pictures[sampler].max()) <= 1
    assert not torch.equal(pictures["ddpm"], pictures["ddim"])


def test_the_hub_layout_runs_as_the_card_says(hub_folder: Path) -> None:
    pair = load("kandinsky-2.2", local=hub_folder, dtype="float32")
    assert pair.card is cards()["kandinsky-2.2"]
    defaults = pair.decoder.spec.defaults
    assert (defaults.scheduler, defaults.steps, defaults.size) == ("dpm++", 25, (512, 512))
    # The weights are not the hub's, so their provenance must not name the hub's revision.
    assert pair.provenance.to_json()["encoder"]["folder"] == str(hub_folder / "kandinsky-2-2-prior")
    assert "revision" not in pair.provenance.to_json()["encoder"]


def test_texts_of_the_vocabulary_and_others(pair_folder: Path) -> None:
    pair = load(pair_folder, dtype="float32")
    assert pair.vocabulary is not None
    assert isinstance(pair.vocabulary, TextVocabulary)
    assert torch.equal(pair.text_direction("Red Apple"), pair.vocabulary.directions()[0])
    with pytest.raises(UsageError, match="close to it: sailing boat"):
        pair.text_direction("boat")
    with pytest.raises(UsageError, match="empty text"):
        pair.text_direction(" ")


def test_texts_through_the_pair_s_own_text_encoder(hub_folder: Path) -> None:
    pair = load(hub_folder, dtype="float32")
    first, second = pair.text_direction("a red apple"), pair.text_direction("a cat")
    assert first.shape == (12,) and float(first.norm()) == pytest.approx(1, abs=1e-5)
    assert not torch.allclose(first, second, atol=1e-3)


def test_without_vocabulary_and_text_encoder_no_text_is_known(tmp_path: Path) -> None:
    pair = load(save_tiny_pair(tmp_path, vocabulary=False), dtype="float32")
    with pytest.raises(UsageError, match="neither a vocabulary nor a text encoder"):
        pair.text_direction("cat")


@pytest.mark.parametrize("weights", ["image_encoder/model", "decoder/unet/diffusion_pytorch_model"])
@pytest.mark.parametrize(
    ("damage", "words"),
    [
        ("missing", "lack"),
        ("unexpected", "without a place"),
        ("shape", "has shape"),
        ("nan", "not finite"),
        ("truncated", "truncated"),
        ("empty", "truncated or not a safetensors file"),
        ("pointer", "Git LFS"),
        ("gone", "no weights in safetensors"),
    ],
)
def test_broken_weights_are_refused(broken: Path, weights: str, damage: str, words: str) -> None:
    path = broken / f"{weights}.safetensors"
    tensors = dict(load_file(path))
    name = sorted(name for name in tensors if name.endswith(".bias"))[0]
    if damage == "missing":
        del tensors[name]
    elif damage == "unexpected":
        tensors["stray.weight"] = torch.zeros(2)
    elif damage == "shape":
        tensors[name] = torch.zeros(3)
    elif damage == "nan":
        tensors[name][0] = float("nan")
    if damage == "truncated":
        path.write_bytes(path.read_bytes()[:-100])
    elif damage == "empty":
        path.write_bytes(b"")
    elif damage == "pointer":
        path.write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")
    elif damage == "gone":
        path.rename(path.with_name("pytorch_model.bin"))
    else:
        save_file(tensors, path)
    with pytest.raises(ModelError, match=words) as caught:
        load(broken, dtype="float32")
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith(("image_encoder:", "unet:"))


@pytest.mark.parametrize(
    ("part", "words"),
    [
        ("image_encoder", "an encoder is lacking"),
        ("image_processor", "image_processor is not there"),
        ("decoder/movq", "movq is not there"),
        ("decoder/scheduler", "scheduler is not there"),
        ("decoder", "a decoder is lacking"),
        ("decoder/scheduler/scheduler_config.json", r"there is no .*scheduler_config\.json"),
        ("image_encoder/config.json", r"there is no .*config\.json"),
        ("image_processor/preprocessor_config.json", "cannot be loaded"),
    ],
)
def test_incomplete_folders_are_refused(broken: Path, part: str, words: str) -> None:
    target = broken / part
    if target.is_dir():
        shutil.rmtree(target)
    else:
        target.unlink()
    with pytest.raises(ModelError, match=words):
        load(broken, dtype="float32")


def test_sizes_that_differ_are_refused_before_the_decoder_is_read(tmp_path: Path) -> None:
    folder = save_tiny_pair(tmp_path, decoder_embedding_size=20)
    (folder / "decoder" / "unet" / "diffusion_pytorch_model.safetensors").write_bytes(b"")
    with pytest.raises(ModelError, match="size 20, the encoder gives 12"):
        load(folder, dtype="float32")


def test_a_broken_vocabulary_is_refused(broken: Path) -> None:
    (broken / "vocabulary.json").write_text("[{")
    with pytest.raises(ModelError, match="vocabulary"):
        load(broken, dtype="float32")


def test_another_encoder_takes_the_place_of_the_pair_s_own(pair_folder: Path, tmp_path: Path) -> None:
    other = save_tiny_pair(tmp_path, seed=5)
    pair = load(pair_folder, encoder=str(other), dtype="float32")
    pixels = torch.zeros(1, 3, 16, 16)
    assert torch.equal(pair.encoder.embed(pixels), tiny_encoder(5).embed(pixels))
    assert pair.vocabulary is None  # it was trained with the other encoder
    assert pair.provenance.to_json()["encoder"]["folder"] == str(other)
    weights = other / "image_encoder" / "model.safetensors"
    assert pair.provenance.sha256["image_encoder/model.safetensors"] == file_hash(weights)


def test_a_native_model_is_wrapped(pair_folder: Path) -> None:
    encoder = load_encoder(tiny_vision_model(), tiny_processor(), name="mine")
    assert encoder.spec.name == "mine"
    with pytest.raises(UsageError, match="image processor"):
        load_encoder(tiny_vision_model())
    with pytest.raises(ModelError, match="no encoder adapter takes a Linear"):
        load_encoder(torch.nn.Linear(2, 2), tiny_processor())


def test_the_picture_side_of_a_whole_clip_model_is_read(tmp_path: Path) -> None:
    text, vision = tiny_text_model().config.to_dict(), tiny_vision_model().config.to_dict()
    config = transformers.CLIPConfig(text_config=text, vision_config=vision, projection_dim=12)
    model = transformers.CLIPModel(config)
    with quiet_libraries():
        model.save_pretrained(tmp_path)
        tiny_processor().save_pretrained(tmp_path)
    pixels = torch.randn(1, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        wanted = model.eval().visual_projection(model.vision_model(pixel_values=pixels).pooler_output)
    assert torch.allclose(load_encoder(tmp_path).embed(pixels), wanted, atol=1e-5)


def test_unknown_models_are_named_with_what_comes_close() -> None:
    with pytest.raises(UsageError, match=r"Did you mean kandinsky-2\.2"):
        load("kandinsky")
    with pytest.raises(UsageError, match="there is no folder"):
        load("./not/there")
    with pytest.raises(UsageError, match="An encoder is"):
        load_encoder("nowhere")


@pytest.mark.parametrize("name", ["", " ", "x" * 300, "a/" + "x" * 5000, "zero\0"])
def test_names_that_no_model_can_have_are_refused_in_one_short_line(
    name: str, pair_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(shutil.copytree(pair_folder, tmp_path / "here"))  # an empty name must not mean this folder
    for call in (lambda: load(name), lambda: load_encoder(name), lambda: cost_of(name)):
        with pytest.raises(UsageError) as caught:
            call()
        assert len(str(caught.value)) < 400 and "\n" not in str(caught.value)


@pytest.mark.parametrize("local_files_only", [True, False])
def test_the_hub_out_of_reach_is_one_message_that_helps(
    local_files_only: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(ModelError) as caught:
        load("kandinsky-2.2", local_files_only=local_files_only)
    message = str(caught.value)
    assert ("network is not to be used" if local_files_only else "not reachable") in message
    assert "steerlens doctor kandinsky-2.2" in message and "kandinsky-2-2-decoder/" in message
    assert "\n" not in message


@pytest.mark.parametrize("local_files_only", [True, False])
def test_a_cached_repository_whose_file_was_renamed_is_not_called_absent(
    local_files_only: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    commit, root = "c" * 40, tmp_path / "models--someone--encoder"
    (root / "refs").mkdir(parents=True)
    (root / "refs" / "main").write_text(commit)
    (root / "snapshots" / commit).mkdir(parents=True)
    for name in ("config.json", "preprocessor_config.json", "model.fp16.safetensors"):
        (root / "snapshots" / commit / name).write_text("{}")
    with pytest.raises(ModelError) as caught:
        load_encoder("someone/encoder", local_files_only=local_files_only)
    message = str(caught.value)
    assert "someone/encoder is in the cache without model.safetensors (it holds model.fp16.safetensors)" in message
    assert "encoder is not in the cache" not in message


def test_what_the_hub_answers_is_not_called_unreachable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))

    def answer(*_: Any, **__: Any) -> None:
        raise HFValidationError("429 too many requests")

    monkeypatch.setattr("huggingface_hub.HfApi.model_info", answer)
    with pytest.raises(ModelError, match="does not give out someone/encoder: 429 too many requests"):
        load_encoder("someone/encoder")


@pytest.mark.parametrize("name", ["stable-unclip-2.1", "stable-unclip-2.1-small"])
def test_a_pair_whose_repository_is_gone_names_a_copy_to_choose(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(ModelError) as caught:
        load(name, local_files_only=True)
    mirror = cards()[name].mirror
    assert mirror is not None and f"hf download {mirror} --local-dir FOLDER" in str(caught.value)
    assert "off the hub" in str(caught.value) and "--local FOLDER" in str(caught.value)


def test_the_cache_of_the_hub_is_enough(hub_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "here").mkdir()
    save_file({"text_embeds": torch.randn(1, 12)}, tmp_path / "here" / "vocabulary.safetensors")
    monkeypatch.chdir(tmp_path / "here")  # what lies in the current folder belongs to no pair of the hub
    card = cards()["kandinsky-2.2"]
    for place, inner in ((card.encoder, "kandinsky-2-2-prior"), (card.decoder, "kandinsky-2-2-decoder")):
        assert place is not None
        root = tmp_path / f"models--{place.repository.replace('/', '--')}" / "snapshots" / place.revision
        shutil.copytree(hub_folder / inner, root)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.file_download.HF_HUB_CACHE", str(tmp_path), raising=False)
    pair = load("kandinsky-2.2", local_files_only=True, dtype="float32")
    assert pair.provenance.to_json()["decoder"]["revision"] == card.decoder.revision if card.decoder else None
    assert pair.text_direction("cat").shape == (12,)
    assert pair.vocabulary is None


def test_an_encoder_of_the_hub_is_pinned_by_the_commit_that_was_resolved_and_may_lie_in_shards(
    pair_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit, root = "c" * 40, tmp_path / "models--someone--encoder"
    (root / "refs").mkdir(parents=True)
    (root / "refs" / "main").write_text(commit)
    with quiet_libraries():
        tiny_vision_model(5).save_pretrained(root / "snapshots" / commit, max_shard_size="4KB")
    assert not (root / "snapshots" / commit / "model.safetensors").exists()
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    # A dry run asks for the config alone.
    assert cost_of(pair_folder, encoder="someone/encoder", device="cpu").n_layers == 3
    tiny_processor().save_pretrained(root / "snapshots" / commit)
    pair = load(pair_folder, encoder="someone/encoder", dtype="float32")
    pixels = torch.zeros(1, 3, 16, 16)
    assert torch.equal(pair.encoder.embed(pixels), tiny_encoder(5).embed(pixels))
    assert pair.provenance.to_json()["encoder"]["repository"] == "someone/encoder"
    assert pair.provenance.to_json()["encoder"]["revision"] == commit
    assert any(f"someone/encoder@{commit}" in note for note in pair.notes)
    pinned = load(pair_folder, encoder=f"someone/encoder@{commit}", dtype="float32", local_files_only=True)
    assert pinned.notes == () and pinned.provenance.to_json()["encoder"]["revision"] == commit
    next((root / "snapshots" / commit).glob("model-*.safetensors")).unlink()
    with pytest.raises(ModelError, match="is in the cache without model-0"):
        load(pair_folder, encoder="someone/encoder", local_files_only=True)


def test_devices_and_precisions(monkeypatch: pytest.MonkeyPatch) -> None:
    cpu, cuda = torch.device("cpu"), torch.device("cuda")
    assert encoder_dtype(cpu, 900_000_000, None) is torch.float32
    assert encoder_dtype(cpu, 1_100_000_000, None) is torch.bfloat16
    assert encoder_dtype(cuda, 1_100_000_000, None) is torch.float16
    assert encoder_dtype(cpu, 1_100_000_000, torch.float32) is torch.float32
    assert decoder_dtype(cuda, None) is torch.float16
    for has, wanted in (({"amx_bf16": True}, torch.bfloat16), ({"avx2": True}, torch.float32)):
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda has=has: has)
        assert decoder_dtype(cpu, None) is wanted
    assert parse_dtype("auto") is None and parse_dtype("float16") is torch.float16
    with pytest.raises(UsageError, match="unknown precision 'int8'"):
        parse_dtype("int8")
    with pytest.raises(UsageError, match="cannot be used here"):
        choose_device("toaster")


def test_library_settings_are_as_before(pair_folder: Path) -> None:
    from diffusers.utils import logging as diffusers_logging
    from transformers.utils import logging as transformers_logging

    before = transformers_logging.get_verbosity(), diffusers_logging.get_verbosity()
    bars = transformers_logging.is_progress_bar_enabled()
    with pytest.raises(RuntimeError), quiet_libraries():
        assert not transformers_logging.is_progress_bar_enabled()
        raise RuntimeError
    assert (transformers_logging.get_verbosity(), diffusers_logging.get_verbosity()) == before
    assert transformers_logging.is_progress_bar_enabled() == bars


class _Entry:
    def __init__(self, name: str, value: str) -> None:
        self.name, self.value = name, value


def test_adapters_by_entry_point(monkeypatch: pytest.MonkeyPatch) -> None:
    entries = [_Entry("clip", "steerlens.encoders.clip:CLIPEncoder"), _Entry("mine", "nowhere_at_all:Mine")]
    monkeypatch.setattr(registry, "entry_points", lambda group: entries)
    assert set(registry.registered("steerlens.encoders")) >= {"clip", "mine"}
    with pytest.raises(ModelError, match="'mine' cannot be loaded"):
        registry.adapter("steerlens.encoders", "mine")
    with pytest.raises(ModelError, match="no adapter is called 'theirs'"):
        registry.adapter("steerlens.encoders", "theirs")
    entries.append(_Entry("clip", "elsewhere:Other"))
    with pytest.raises(ModelError, match="registered twice"):
        registry.registered("steerlens.encoders")


CARD: dict[str, Any] = {
    "title": "A pair",
    "domain": "emoji",
    "licence": "MIT",
    "paper": "0000.00000",
    "consumes": "image_embedding",
    "embedding_size": 8,
    "layers": 2,
    "heads": 2,
    "gigabytes": 1,
    "defaults": {"scheduler": "ddim", "steps": 3, "guidance": 2.0, "size": [16, 16]},
    "strength": "rho=1",
    "reencoding_cosine": 0.5,
    "bundled": "somewhere",
}


def test_cards_are_read() -> None:
    assert list(cards()) == sorted(cards()) and {"emoji", "kandinsky-2.2"} < set(cards())
    assert {known.family for known in cards().values()} == set(registry.registered("steerlens.decoders"))
    made = parse_card("one", CARD)
    assert made.defaults.options() == DecodeOptions(3, 2.0, "ddim", (16, 16))
    assert replace(made, name="two").name == "two"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda card: card | {"licens": "MIT"}, "unknown: licens"),
        (lambda card: {key: value for key, value in card.items() if key != "title"}, "missing: title"),
        (lambda card: {key: value for key, value in card.items() if key != "domain"}, "missing: domain"),
        (lambda card: card | {"layers": "two"}, "layers is 'two', which is no int"),
        (lambda card: card | {"layers": True}, "layers is True"),
        (lambda card: card | {"defaults": {"steps": 3}}, "defaults: fields missing"),
        (lambda card: card | {"bundled": None}, "either bundled or"),
        (lambda card: card | {"encoder": {"repository": "a/b", "revision": "main"}}, "pins nothing"),
        (lambda card: card | {"reencoding_cosine": 2.0}, "between 0 and 1"),
    ],
)
def test_wrong_cards_are_refused(change: Callable[[dict[str, Any]], dict[str, Any]], words: str) -> None:
    with pytest.raises(ModelError, match=words):
        parse_card("wrong", change(CARD))
