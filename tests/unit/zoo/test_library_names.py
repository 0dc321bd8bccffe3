"""Names of models in the words of open_clip and timm, and messages about what an encoder is."""

from pathlib import Path
from typing import Any

import pytest

from steerlens.errors import ModelError, UsageError
from steerlens.zoo import encoder_locating, locate_encoder
from steerlens.zoo.library_names import hub_source
from steerlens.zoo.sources import has_no_decoder


def test_names_of_open_clip_lead_to_the_hub(open_clip: Any) -> None:
    assert hub_source("open_clip:ViT-B-16/laion2b_s34b_b88k") == "hf-hub:laion/CLIP-ViT-B-16-laion2B-s34B-b88K"
    assert hub_source("open_clip:ViT-B-16-SigLIP/webli") == "hf-hub:timm/ViT-B-16-SigLIP"
    assert hub_source("facebook/dinov2-small") == "facebook/dinov2-small"
    for wrong, answer in (
        ("ViT-B-16", "open_clip:ViT-B-16/TAG"),
        ("ViT-B-16/laion", "one of .*laion2b_s34b_b88k"),
        ("ViTB16/x", "did you mean ViT-B-16"),
    ):
        with pytest.raises(UsageError, match=answer):
            hub_source(f"open_clip:{wrong}")


def test_weights_in_pickled_form_alone_are_refused(open_clip: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(open_clip, "get_pretrained_cfg", lambda *_: {"url": "https://somewhere/weights.pt"})
    with pytest.raises(ModelError, match=r"pickled .*load_encoder\(model, processor\)"):
        hub_source("open_clip:ViT-B-16/laion2b_s34b_b88k")


def test_names_of_timm_lead_to_the_hub(timm: Any) -> None:
    assert hub_source("timm:vit_small_patch14_dinov2.lvd142m") == "timm/vit_small_patch14_dinov2.lvd142m"
    with pytest.raises(UsageError, match=r"did you mean vit_base_patch16_224\."):
        hub_source("timm:vit_base_patch16_224")


def test_the_files_of_a_library_s_model_are_fetched_from_the_hub(
    open_clip: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    fetched: list[Any] = []

    def snapshot(repository: str, revision: str | None, files: tuple[str, ...], **_: Any) -> Path:
        fetched.append((repository, files))
        return tmp_path / ("0" * 40)

    monkeypatch.setattr(encoder_locating, "snapshot", snapshot)
    located = locate_encoder("open_clip:ViT-B-16/laion2b_s34b_b88k")
    assert fetched == [
        ("laion/CLIP-ViT-B-16-laion2B-s34B-b88K", ("open_clip_config.json", "open_clip_model.safetensors"))
    ]
    assert located.library == "open_clip"
    assert located.source == f"hf-hub:laion/CLIP-ViT-B-16-laion2B-s34B-b88K@{'0' * 40}"
    assert has_no_decoder("open_clip:ViT-B-16/laion2b_s34b_b88k") and has_no_decoder("timm:anything")


def test_a_missing_library_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(_: str) -> Any:
        raise ImportError("not there")

    monkeypatch.setattr("steerlens.zoo.library_names.import_module", missing)
    for name, extra in (("open_clip:ViT-B-16/x", "open-clip"), ("timm:x", "timm")):
        with pytest.raises(ModelError, match=rf"pip install 'steerlens\[{extra}\]'"):
            hub_source(name)


@pytest.mark.parametrize(
    ("given", "answer"),
    [
        ("vitb16.pt", r"vitb16\.pt is a file of weights alone.*pickled.*save_pretrained\(FOLDER\)"),
        ("weights/model.safetensors", r"model\.safetensors is a file of weights alone.*load_encoder"),
        ("emojy", r"Did you mean emoji\?"),
        ("a folder of mine", r"hub id \(owner/name"),
    ],
)
def test_what_is_no_encoder_is_answered_with_what_is_one(given: str, answer: str) -> None:
    with pytest.raises(UsageError, match=answer):
        locate_encoder(given)


def test_a_name_without_its_library_is_completed(open_clip: Any, timm: Any) -> None:
    with pytest.raises(UsageError, match="write open_clip:ViT-B-16/"):
        locate_encoder("ViT-B-16")
    with pytest.raises(UsageError, match=r"write timm:vit_base_patch16_224\."):
        locate_encoder("vit_base_patch16_224")
