"""Training: pictures, scenes, every stage, resuming, export and evaluation, on a tiny set of coloured shapes."""

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from records import records_of
from shapes import SHAPES, TINY_ENCODER, E, prepare_shapes

from steerlens import scenes
from steerlens.errors import UsageError
from steerlens.training.autoencoder import AutoencoderSettings, fold_scale, make_autoencoder
from steerlens.training.card import write_card
from steerlens.training.checkpoint import load_checkpoint
from steerlens.training.encoder import embed_tokens, load_encoder, make_encoder
from steerlens.training.evaluation import evaluate, ground_of, rank_correlation
from steerlens.training.export import export_pair, write_manifest
from steerlens.training.pipeline import Recipe, train_pair
from steerlens.training.stage import Budget, Optimisation, StageRecord, rate_factor
from steerlens.training.text import TextTable, load_texts
from steerlens.training.unet import UnetSettings

TINY = Recipe(
    steps=2,
    scenes=8,
    part=4,
    encoder=TINY_ENCODER,
    autoencoder=AutoencoderSettings(channels=(32, 32, 32), batch=2),
    unet=UnetSettings(channels=(32, 32, 32), batch=4),
)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return prepare_shapes(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def run(prepared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    records = records_of(train_pair(prepared, folder, TINY))
    assert [record.stage for record in records if record.done] == ["encoder", "autoencoder", "scenes", "unet"]
    return folder


@pytest.fixture(scope="module")
def pair(prepared: Path, run: Path) -> Path:
    export_pair(prepared, run, run / "pair", TINY)
    return run / "pair"


def test_ground_is_read_from_the_frame(prepared: Path) -> None:
    found = scenes.load_prepared(prepared)
    batch = scenes.SceneMaker(found, found.rows(scenes.TRAIN), "cpu").draw(64, torch.Generator().manual_seed(1))
    assert (ground_of(batch.pictures) == batch.background).float().mean() > 0.9


def test_text_targets_are_unit_and_know_their_parts() -> None:
    table = TextTable(torch.randn(5, E), torch.randn(5, E), torch.randn(12, E)).centred()
    targets = table.targets(torch.tensor([2, 2]), torch.tensor([-1, 3]), torch.tensor([0, 0]))
    assert torch.allclose(targets.norm(dim=-1), torch.ones(2), atol=1e-5)
    companion = targets @ table.companions[3]
    assert companion[1] > companion[0]


def test_keeping_all_patches_equals_the_native_forward() -> None:
    torch.manual_seed(0)
    encoder = make_encoder(TINY.encoder, E).eval()
    pixels = torch.randn(2, 3, 64, 64)
    everything = torch.arange(16).expand(2, -1)
    with torch.no_grad():
        assert torch.allclose(embed_tokens(encoder, pixels, everything), embed_tokens(encoder, pixels), atol=1e-5)
        assert not torch.allclose(embed_tokens(encoder, pixels, everything[:, :8]), embed_tokens(encoder, pixels))


def test_folding_the_scale_changes_latents_but_no_picture() -> None:
    torch.manual_seed(0)
    movq = make_autoencoder(TINY.autoencoder).eval().requires_grad_(False)
    pictures = torch.rand(2, 3, 64, 64)
    latents = movq.encode(pictures).latents
    before = movq.decode(latents, force_not_quantize=True).sample
    mean, deviation = latents.mean(dim=(0, 2, 3)), latents.std(dim=(0, 2, 3))
    fold_scale(movq, mean, deviation)
    folded = movq.encode(pictures).latents
    assert torch.allclose(folded.mean(dim=(0, 2, 3)), torch.zeros(4), atol=1e-4)
    assert torch.allclose(folded.std(dim=(0, 2, 3)), torch.ones(4), atol=1e-4)
    assert torch.allclose(movq.decode(folded, force_not_quantize=True).sample, before, atol=1e-4)


def test_rates_warm_up_and_end_at_zero() -> None:
    assert rate_factor(0.0, 0.1) < 0.02
    assert rate_factor(0.1, 0.1) == pytest.approx(1.0)
    assert rate_factor(1.0, 0.1) == pytest.approx(0.0)


def test_resumed_equals_uninterrupted(prepared: Path, run: Path, tmp_path: Path) -> None:
    """The last checkpoint before a kill, and the same steps after it, give the same weights as one go."""
    from steerlens.training.encoder import train_encoder

    pictures, texts = scenes.load_prepared(prepared), load_texts(prepared)
    settings = replace(TINY.encoder, optimisation=Optimisation(average=0.9))
    one, two = tmp_path / "one", tmp_path / "two"
    list(train_encoder(pictures, texts, one, Budget(steps=4), settings))
    for event in train_encoder(pictures, texts, two, Budget(steps=4), settings, checkpoint_seconds=0.0):
        assert isinstance(event.payload, StageRecord) and event.payload.step == 1
        break  # killed: the generator is closed after the first record, and its first checkpoint is one step old
    list(train_encoder(pictures, texts, two, Budget(steps=4), settings, resume=True))
    left, right = (load_checkpoint(folder / "encoder.safetensors")[0] for folder in (one, two))
    assert left.keys() == right.keys()
    for name, tensor in left.items():
        assert torch.equal(tensor, right[name]), name


def test_a_finished_run_is_not_overwritten(prepared: Path, run: Path) -> None:
    with pytest.raises(UsageError, match="--resume"):
        next(train_pair(prepared, run, TINY))
    records = records_of(train_pair(prepared, run, TINY, resume=True))
    assert {record.stage for record in records if record.done} == {"encoder", "autoencoder", "scenes", "unet"}


def test_two_workers_train_together(prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from steerlens.training.encoder import train_encoder
    from steerlens.training.parallel import run_parallel

    # Workers find modules where their parent does; what tests add for timm and open_clip is not theirs.
    monkeypatch.setattr(sys, "path", [path for path in sys.path if Path(path).name != "optional"])
    pictures, texts = scenes.load_prepared(prepared), load_texts(prepared)
    arguments = (pictures, texts, tmp_path, Budget(steps=2), TINY.encoder)
    records = records_of(run_parallel(train_encoder, arguments, 2, tmp_path))
    assert records[-1].done
    assert records[-1].step == 2
    assert load_encoder(tmp_path, E, TINY.encoder) is not None
    assert not list(tmp_path.glob(".rendezvous*"))


def test_a_run_goes_on_from_a_finished_pair(pair: Path, prepared: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file

    still = replace(
        TINY,
        steps=1,
        encoder=replace(TINY.encoder, optimisation=replace(TINY.encoder.optimisation, matrix_rate=0.0, rate=1e-12)),
    )
    list(train_pair(prepared, tmp_path / "on", still, init=pair))
    before = load_file(pair / "image_encoder" / "model.safetensors")
    after = load_encoder(tmp_path / "on", E, TINY.encoder).state_dict()
    for name, tensor in before.items():
        assert torch.allclose(after[name].half(), tensor, atol=1e-4), name
    kept = load_file(tmp_path / "on" / "autoencoder.safetensors")
    given = load_file(pair / "decoder" / "movq" / "diffusion_pytorch_model.safetensors")
    assert all(torch.equal(kept[name].half(), tensor) for name, tensor in given.items())
    with pytest.raises(UsageError, match="of another architecture"):
        larger = replace(TINY, encoder=replace(TINY.encoder, width=2 * TINY.encoder.width))
        list(train_pair(prepared, tmp_path / "larger", larger, init=pair))
    with pytest.raises(UsageError, match="no weights to continue from"):
        list(train_pair(prepared, tmp_path / "none", TINY, init=tmp_path))


def test_a_run_with_a_fresh_encoder_keeps_the_decoder_alone(pair: Path, prepared: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file

    def frozen(settings: Any) -> Any:
        return replace(settings, optimisation=replace(settings.optimisation, matrix_rate=0.0, rate=1e-12))

    deeper = replace(
        TINY, steps=1, encoder=frozen(replace(TINY.encoder, layers=TINY.encoder.layers + 1)), unet=frozen(TINY.unet)
    )
    list(train_pair(prepared, tmp_path / "on", deeper, init=pair, fresh_encoder=True))
    encoder = load_encoder(tmp_path / "on", E, deeper.encoder).state_dict()
    before = load_file(pair / "image_encoder" / "model.safetensors")
    name = "visual_projection.weight"
    assert len(encoder) > len(before)
    assert not torch.allclose(encoder[name].half(), before[name], atol=1e-2)
    kept, _ = load_checkpoint(tmp_path / "on" / "unet.safetensors")
    given = load_file(pair / "decoder" / "unet" / "diffusion_pytorch_model.safetensors")
    for name, tensor in given.items():
        assert torch.allclose(kept[name].half(), tensor, atol=1e-3), name
    with pytest.raises(UsageError, match="add --init"):
        list(train_pair(prepared, tmp_path / "none", TINY, fresh_encoder=True))


def test_a_run_with_a_kept_encoder_trains_the_unet_alone(pair: Path, prepared: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file

    records = records_of(train_pair(prepared, tmp_path / "on", replace(TINY, steps=2), init=pair, kept_encoder=True))
    assert {record.stage for record in records if not record.done} <= {"scenes", "unet"}
    encoder = load_encoder(tmp_path / "on", E, TINY.encoder).state_dict()
    for name, tensor in load_file(pair / "image_encoder" / "model.safetensors").items():
        assert torch.equal(encoder[name].half(), tensor), name
    trained, _ = load_checkpoint(tmp_path / "on" / "unet.safetensors")
    given = load_file(pair / "decoder" / "unet" / "diffusion_pytorch_model.safetensors")
    assert any(not torch.equal(trained[name].half(), tensor) for name, tensor in given.items())
    with pytest.raises(UsageError, match="exclude each other"):
        list(train_pair(prepared, tmp_path / "no", TINY, init=pair, fresh_encoder=True, kept_encoder=True))
    with pytest.raises(UsageError, match="add --init"):
        list(train_pair(prepared, tmp_path / "none", TINY, kept_encoder=True))


def test_export_loads_with_from_pretrained(pair: Path, run: Path) -> None:
    from diffusers import KandinskyV22Pipeline
    from safetensors.torch import load_file
    from transformers import CLIPVisionModelWithProjection

    native = CLIPVisionModelWithProjection.from_pretrained(pair / "image_encoder", dtype=torch.float32)
    trained = load_encoder(run, E, TINY.encoder)
    pixels = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        assert torch.allclose(
            native(pixel_values=pixels).image_embeds, trained(pixel_values=pixels).image_embeds, atol=0.05
        )
    decoder = KandinskyV22Pipeline.from_pretrained(pair / "decoder")
    assert decoder.scheduler.config.prediction_type == "v_prediction"
    assert decoder.unet.config.sample_size * decoder.movq_scale_factor == 64
    table = load_file(pair / "vocabulary.safetensors")
    assert table["text_embeds"].shape == (len(SHAPES), E)
    assert table["text_mean"].shape == (E,)
    assert len(json.loads((pair / "vocabulary.json").read_text())) == len(SHAPES)
    for path in pair.rglob("*.json"):
        assert str(run) not in path.read_text(), "no path of this machine"


def test_evaluation_prints_every_bar_and_the_card_holds_it(prepared: Path, pair: Path) -> None:
    report = evaluate(pair, prepared, quick=True, grid=pair / "decoded.png")
    table = report.table()
    for what in (
        "held-out picture",
        "unseen concept",
        "companion",
        "mean cosine",
        "own source",
        "background",
        "Spearman",
    ):
        assert what in table
    for what in ("heads that matter", "last third", "pictures a second", "last layer = reconstruction"):
        assert what in table
    figures = {figure.name: figure for figure in report.figures}
    assert figures["Diffusion Lens, last layer = reconstruction"].met
    shares = [figure.value for figure in report.figures if figure.name.startswith("share of the final")]
    assert sum(shares) == pytest.approx(1.0, abs=1e-4)
    assert not report.passed, "two steps of training cannot be enough"
    write_card(pair, prepared, TINY, report)
    assert "heads that matter" in (pair / "README.md").read_text()
    assert write_manifest(pair) > 0
    assert "README.md" in json.loads((pair / "manifest.json").read_text())["files"]


def test_rank_correlation_is_spearman() -> None:
    rising = torch.arange(6.0)[None]
    assert rank_correlation(torch.cat([rising, -rising])).tolist() == pytest.approx([1.0, -1.0])
