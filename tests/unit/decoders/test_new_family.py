"""A new decoder family is one folder and one entry point: a toy one loads, decodes, is listed and passes the checks."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from diffusers import DDIMScheduler

from steerlens.cli.main import main
from steerlens.conditioning import Conditioning
from steerlens.decoders import decode
from steerlens.errors import ModelError
from steerlens.loading import load
from steerlens.testing import check_decoder, save_tiny_pair
from steerlens.testing.tiny_parts import tiny_sd_unet, tiny_vae
from steerlens.zoo import cards, locate_encoder

FEW = {"num_train_timesteps": 20}


@pytest.fixture
def registered(tmp_path: Path) -> Iterator[None]:
    """The entry point of the toy family, as an installed package has it."""
    info = tmp_path / "site" / "toy_family-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: toy-family\nVersion: 1.0\n", encoding="utf-8")
    (info / "entry_points.txt").write_text("[steerlens.decoders]\ntoy = toy_family:ToyDecoder\n", encoding="utf-8")
    cards.cache_clear()
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(info.parent))
        yield
    cards.cache_clear()


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = save_tiny_pair(tmp_path_factory.mktemp("toy") / "pair", vocabulary=False)
    shutil.rmtree(folder / "decoder")
    tiny_sd_unet(12).save_pretrained(folder / "decoder" / "unet")
    tiny_vae().save_pretrained(folder / "decoder" / "vae")
    DDIMScheduler(**FEW).save_pretrained(folder / "decoder" / "scheduler")
    (folder / "decoder" / "model_index.json").write_text('{"_class_name": "ToyPipeline"}', encoding="utf-8")
    return folder


def test_without_its_entry_point_the_folder_is_refused_by_name(saved: Path) -> None:
    with pytest.raises(ModelError, match="no adapter is called 'ToyPipeline'"):
        load(saved)


@pytest.mark.usefixtures("registered")
def test_a_folder_of_the_family_is_a_pair(saved: Path, tmp_path: Path) -> None:
    pair = load(saved, device="cpu", dtype="float32")
    assert type(pair.decoder).__name__ == "ToyDecoder"
    embeddings = pair.encoder.embed(pair.encoder.preprocess_tensor(pair_pictures()))
    pictures = decode(pair.decoder, Conditioning("image_embedding", embeddings), [0, 1])
    assert pictures.shape == (2, 3, *pair.decoder.spec.defaults.size)
    assert {"unet/config.json", "vae/config.json", "scheduler/scheduler_config.json"} < set(pair.provenance.sha256)
    broken = shutil.copytree(saved, tmp_path / "broken")
    shutil.rmtree(broken / "decoder" / "vae")
    with pytest.raises(ModelError, match=r"the pair is incomplete: .*vae is not there"):
        load(broken)


@pytest.mark.usefixtures("registered")
def test_the_decoder_passes_the_checks(saved: Path) -> None:
    check_decoder(load(saved, device="cpu", dtype="float32").decoder).require()


@pytest.mark.usefixtures("registered")
def test_its_card_is_listed_and_says_how_it_is_run(saved: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models", "--json"]) == 0
    listed = {row["name"]: row for row in json.loads(capsys.readouterr().out)}
    assert listed["toy"]["decoder"]["repository"] == "someone/toy-decoder" and listed["toy"]["here"] == "no"
    assert load("toy", local=saved, device="cpu").decoder.spec.defaults.steps == 3
    with pytest.raises(ModelError, match="someone/toy-encoder is not in the cache"):
        locate_encoder("toy", local_files_only=True)


def pair_pictures() -> torch.Tensor:
    return torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
