"""Saved pipelines of every decoder family open as pairs, and what does not fit is refused in one line."""

import json
import shutil
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from steerlens.cli.environment import command_environment
from steerlens.decoders.base import DecodeOptions, clean_conditioning, decode
from steerlens.errors import ModelError, TermsWarning, UsageError
from steerlens.loading import load
from steerlens.testing.tiny import tiny_encoder
from steerlens.testing.tiny_decoders import save_tiny_decoder
from steerlens.zoo import locate_encoder, open_encoder
from steerlens.zoo.cards import cards
from steerlens.zoo.cost import cost_of
from steerlens.zoo.counting import COUNTERS
from steerlens.zoo.decoder_families import families
from steerlens.zoo.locating import card_files
from steerlens.zoo.provenance import file_hashes

FAMILIES = families()
# Kandinsky 2.1 lies in two repositories.
WHOLE = [family for family in FAMILIES if not family.startswith("kandinsky")]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Any:
    @cache
    def saved(family: str) -> Path:
        folder = tmp_path_factory.mktemp(family)
        if family != "kandinsky-2.1":
            return save_tiny_decoder(family, folder)
        save_tiny_decoder("stable-unclip-2.1", folder / "other")
        prior = folder / "pair" / "kandinsky-2-1-prior"
        shutil.copytree(folder / "other" / "image_encoder", prior / "image_encoder")
        shutil.copytree(folder / "other" / "feature_extractor", prior / "image_processor")
        save_tiny_decoder(family, folder / "pair" / "kandinsky-2-1")
        return folder / "pair"

    return saved


@pytest.mark.parametrize("family", [*WHOLE, "kandinsky-2.1"])
def test_a_saved_pipeline_is_a_pair(family: str, folders: Any) -> None:
    pair = load(folders(family), dtype="float32")
    spec = pair.decoder.spec
    assert spec.family == family and pair.card is None
    inputs = pair.encoder.preprocess_tensor(torch.rand(2, 3, 20, 24))
    few = DecodeOptions(2, 2.0, spec.defaults.scheduler, spec.defaults.size)
    pictures = decode(pair.decoder, clean_conditioning(pair.encoder, pair.decoder, inputs), [0, 1], few)
    assert pictures.shape == (2, 3, *spec.defaults.size)
    json.dumps(pair.provenance.to_json())
    hashed = set(pair.provenance.sha256)
    parts = {name.split("/")[0] for name in hashed}
    wanted = {name for name, part in FAMILIES[family].parts.items() if part.library != "tokenizer"} - {"."}
    assert wanted <= parts and any(name.endswith(".safetensors") for name in hashed)
    assert "adapter/ip-adapter_tiny.safetensors" in hashed or not family.startswith("ip-adapter")


def test_the_cards_defaults_hold_for_a_local_folder(folders: Any) -> None:
    pair = load("karlo", local=folders("karlo"), dtype="float32")
    assert pair.card is cards()["karlo"]
    assert pair.decoder.spec.defaults == pair.card.defaults.options()


def test_an_ip_adapter_s_repositories_may_lie_side_by_side(folders: Any, tmp_path: Path) -> None:
    saved, models = folders("ip-adapter-plus-sd15"), tmp_path / "IP-Adapter" / "models"
    shutil.copytree(saved, tmp_path / "stable-diffusion-v1-5", ignore=shutil.ignore_patterns("image_enc*", "ip-*"))
    shutil.copytree(saved / "image_encoder", models / "image_encoder")
    shutil.copy(saved / "ip-adapter_tiny.safetensors", models / "ip-adapter-plus_sd15.safetensors")
    pair = load("ip-adapter-plus-sd15", local=tmp_path, dtype="float32")
    assert pair.decoder.spec.consumes == "image_tokens" and pair.encoder.spec.name == "ip-adapter-plus-sd15"
    # The repository holds no image processor; what CLIP is used with stands in.
    processor: Any = pair.encoder
    assert processor.processor.crop_size["height"] == 16


@pytest.mark.parametrize(
    ("family", "encoder", "words"),
    [
        ("stable-unclip-2.1", {"embedding_size": 7}, "embeddings of size 12, the encoder gives 7: they do not fit"),
        ("kandinsky-2.1", {"embedding_size": 7}, "size 12, the encoder gives 7"),
        ("ip-adapter-plus-sd15", {"width": 8}, "size 16, the encoder gives 8"),
        ("rae-dinov2", {}, "image tokens of size 64, the encoder gives 16: they do not fit"),
        (
            "rae-dinov2",
            {"width": 64, "image_size": 24},
            "reads 4 image tokens, encoder tiny-0 gives 9: they do not fit",
        ),
    ],
)
def test_encoders_that_do_not_fit_are_refused(family: str, encoder: dict[str, int], words: str, folders: Any) -> None:
    with pytest.raises(ModelError, match=words) as caught:
        load(folders(family), encoder=tiny_encoder(**encoder), dtype="float32")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("part", "words"),
    [
        ("vae", "vae is not there"),
        ("text_encoder/model.safetensors", "text_encoder: .* holds no weights"),
        ("scheduler/scheduler_config.json", "scheduler: there is no"),
        ("tokenizer/tokenizer.json", "tokenizer: .* holds no vocabulary"),
        ("ip-adapter_tiny.safetensors", "should hold one adapter, .* there is none"),
    ],
)
def test_incomplete_pipelines_are_refused(part: str, words: str, folders: Any, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(folders("ip-adapter-sd15"), tmp_path / "broken"))
    target = folder / part
    if target.is_dir():
        shutil.rmtree(target)
    else:
        target.unlink()
    with pytest.raises(ModelError, match=words):
        load(folder, dtype="float32")


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        ({"other.weight": torch.zeros(1)}, "holds other.weight, which no IP-Adapter has"),
        ({"ip_adapter.1.to_k_ip.weight": torch.full((8, 16), torch.nan)}, "not finite in ip_adapter.1.to_k_ip"),
        ({"ip_adapter.1.to_k_ip.weight": torch.zeros(3, 3)}, "do not fit this UNet"),
    ],
)
def test_adapters_that_do_not_belong_are_refused(damage: Any, words: str, folders: Any, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(folders("ip-adapter-sd15"), tmp_path / "broken"))
    file = folder / "ip-adapter_tiny.safetensors"
    save_file({**load_file(file), **damage}, file)
    with pytest.raises(ModelError, match=words):
        load(folder, dtype="float32")


def test_pairs_that_cannot_be_priced_say_so(folders: Any, tmp_path: Path) -> None:
    (tmp_path / "neighbours.json").touch()
    with pytest.raises(UsageError, match="can be priced"):
        cost_of(tmp_path, device="cpu")
    for family in set(FAMILIES) - set(COUNTERS):
        with pytest.raises(UsageError, match="can be priced"):
            cost_of(folders(family), device="cpu")
    for name, known in cards().items():
        if known.family not in COUNTERS:
            with pytest.raises(UsageError, match="can be priced"):
                cost_of(name, device="cpu")


@pytest.mark.parametrize("family", sorted(set(COUNTERS) - {"kandinsky-2.2"}))
def test_a_pair_is_priced_by_the_weights_that_it_has(family: str, folders: Any) -> None:
    cost = cost_of(folders(family), device="cpu", dtype="float32", size=(16, 16))
    pair = load(folders(family), dtype="float32")
    encoder: Any = pair.encoder
    decoder: Any = pair.decoder
    weights = [module for module in vars(decoder).values() if isinstance(module, torch.nn.Module)]
    held = {id(p): p.nbytes for module in (encoder.model, *weights) for p in module.parameters()}
    norm = sum(p.nbytes for p in decoder.norm.parameters()) if family == "flux-redux" else 0  # a copy of the encoder's
    assert cost.bytes == sum(held.values()) - norm
    assert (cost.n_layers, cost.n_heads) == (encoder.spec.n_layers, encoder.spec.n_heads)
    one, many = (cost.picture_flops(DecodeOptions(steps, 2.5, "euler", (16, 16))) for steps in (1, 5))
    # FLUX's guidance is an input of its network; the others take a single pass.
    assert many - one == (4 * cost.unet_flops if family == "flux-redux" else 0)
    assert cost.encoder_flops > 0 and cost.movq_flops > 0


@pytest.mark.parametrize("name", ["rae-dinov2", "raev2-dinov3l-k7"])
def test_cards_are_priced_without_their_files_and_agree_with_the_size_that_they_state(name: str) -> None:
    known, cost = cards()[name], cost_of(name, device="cpu", dtype="float32")
    assert (cost.n_layers, cost.n_heads, cost.size) == (known.layers, known.heads, known.defaults.size)
    assert cost.bytes / 1e9 == pytest.approx(known.gigabytes, abs=0.06)


def test_every_card_says_what_to_fetch_and_pins_nothing_that_is_not_a_commit() -> None:
    for known in cards().values():
        if known.encoder is None:
            continue
        places = card_files(known)
        assert all(files and not any(".bin" in file for file in files) for _, files in places)
        assert (known.adapter is not None) == known.family.startswith(("ip-adapter", "flux"))
        assert known.family in FAMILIES and known.consumes in ("image_embedding", "image_tokens")
        assert known.gigabytes > 0 and known.licence and known.paper


def test_the_hub_that_cannot_be_reached_is_told_in_one_line() -> None:
    with pytest.raises(ModelError, match="karlo-v1-alpha-image-variations is not in the cache") as caught:
        load("karlo", local_files_only=True)
    assert "\n" not in str(caught.value)


def test_a_known_reason_is_told_before_anything_is_fetched(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("steerlens.zoo.locating.unbuildable", lambda family: "decoder: cannot be built here.")
    monkeypatch.setattr("steerlens.zoo.locating.snapshot", lambda *_, **__: pytest.fail("something was fetched"))
    for call in (lambda: load("rae-siglip2"), lambda: locate_encoder("rae-siglip2")):
        with pytest.raises(ModelError, match="cannot be built here"):
            call()


def test_terms_are_shown_before_a_download_and_only_then(
    folders: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    steps: list[str] = []

    def snapshot(*_: Any, **__: Any) -> Path:
        steps.append("fetched")
        return folders("rae-mae")

    monkeypatch.setattr("steerlens.zoo.locating.snapshot", snapshot)
    terms = cards()["rae-mae"].terms
    assert "commercially" in terms
    with pytest.warns(TermsWarning, match=r"rae-mae .* may not be used commercially") as caught:
        load("rae-mae", dtype="float32")
    assert steps == ["fetched"] and len(caught) == 1
    load("rae-mae", dtype="float32", local_files_only=True)  # nothing is fetched, so nothing is warned of
    monkeypatch.setattr("steerlens.zoo.locating.cached_snapshot", lambda *_: folders("rae-mae"))
    load("rae-mae", dtype="float32")
    with command_environment():
        monkeypatch.setattr("steerlens.zoo.locating.cached_snapshot", lambda *_: None)
        load("rae-mae", dtype="float32")
    assert capsys.readouterr().err == f"rae-mae ({cards()['rae-mae'].licence}): {terms}\n"


def test_every_card_says_what_its_decoder_was_trained_on(folders: Any) -> None:
    assert all(known.domain for known in cards().values())
    assert load("emoji").provenance.to_json()["domain"] == cards()["emoji"].domain
    assert "domain" not in load(folders("rae-mae"), dtype="float32").provenance.to_json()  # a folder without a card


def test_the_encoder_of_every_pair_is_opened_without_its_decoder(folders: Any, tmp_path: Path) -> None:
    for family in ("rae-mae", "ip-adapter-sd15", "kandinsky-2.1"):
        folder = Path(shutil.copytree(folders(family), tmp_path / family))
        wanted = load(folder, dtype="float32").encoder
        if family == "ip-adapter-sd15":  # as on the hub, where it is saved without an image processor
            shutil.rmtree(folder / "feature_extractor")
        found = locate_encoder(folder)
        encoder: Any = open_encoder(found, dtype="float32")
        assert found.source == str(folder.resolve()) and encoder.spec.family == wanted.spec.family
        inputs = wanted.preprocess_tensor(torch.rand(1, 3, 16, 16))
        torch.testing.assert_close(encoder.embed(inputs), wanted.embed(inputs))
        assert any(name.startswith("image_encoder/") for name in file_hashes(found.files))


def test_another_decoder_may_stand_beside_the_encoder_of_one_joint_model(folders: Any) -> None:
    given = load(folders("rae-mae"), dtype="float32").decoder
    pair = load(folders("rae-mae"), dtype="float32", decoder=given)
    assert pair.decoder is given and pair.encoder.spec.family == "vit_mae"
    assert any(name.startswith("image_encoder/") for name in pair.provenance.sha256)


def test_the_encoder_of_a_card_is_fetched_alone(folders: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, tuple[str, ...]]] = []

    def snapshot(repository: str, revision: str | None, patterns: Any, **_: Any) -> Path:
        asked.append((repository, tuple(patterns)))
        return folders("ip-adapter-sd15")

    for module in ("encoder_locating", "locating"):
        monkeypatch.setattr(f"steerlens.zoo.{module}.snapshot", snapshot)
    known = cards()["ip-adapter-sd15"]
    assert known.encoder is not None
    locate_encoder("ip-adapter-sd15")
    locate_encoder("ip-adapter-sd15", config_only=True)
    inside = f"{known.encoder.path}/image_encoder"
    assert asked == [
        (known.encoder.repository, (f"{inside}/config.json", f"{inside}/model.safetensors")),
        (known.encoder.repository, (f"{inside}/config.json",)),
    ]
