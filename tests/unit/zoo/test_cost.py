"""Manifests and costs are counted from configs alone, and agree with what others counted on the real weights."""

from dataclasses import replace
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
import torch

from steerlens.decoders.base import DecodeOptions
from steerlens.errors import ModelError, UsageError
from steerlens.testing.tiny import save_tiny_pair, tiny_encoder
from steerlens.testing.tiny_decoders import save_tiny_decoder
from steerlens.zoo.architecture import on_meta, package_configs
from steerlens.zoo.cards import card
from steerlens.zoo.cost import Cost, cost_of, estimate_seconds, probe_flops
from steerlens.zoo.manifest import build_manifest, differences, read_manifest, shapes_of, write_manifest


def test_the_manifest_is_what_the_configs_give() -> None:
    shipped = (files("steerlens.zoo") / "manifests" / "kandinsky-2.2.json.gz").read_bytes()
    assert build_manifest(package_configs(card("kandinsky-2.2"))) == read_manifest("kandinsky-2.2")
    assert write_manifest(read_manifest("kandinsky-2.2")) == shipped
    assert len(shipped) < 150_000


def test_the_full_size_kandinsky_is_the_published_one() -> None:
    cost = cost_of("kandinsky-2.2", device="cpu", dtype="float16")
    # Counted by others on the published files: 1,253,057,288 numbers in 724 tensors, and 67,832,495 in 431.
    assert cost.parameters["unet"] == 1_253_057_288 and cost.parameters["movq"] == 67_832_495
    manifest = read_manifest("kandinsky-2.2")
    assert (len(manifest["unet"]), len(manifest["movq"])) == (724, 431)
    # The encoder's file takes 3,689,912,664 bytes in float16, of which the header is less than 0.01 %.
    assert 0 < 3_689_912_664 - 2 * cost.parameters["image_encoder"] < 300_000
    assert cost.unet_flops == pytest.approx(0.86e12, rel=0.01)
    assert cost.movq_flops == pytest.approx(2.0e12, rel=0.01)
    assert (cost.n_layers, cost.n_heads, cost.size) == (48, 16, (512, 512))
    assert cost.bytes == 2 * sum(cost.parameters.values())


def test_the_cost_of_a_folder(tmp_path: Path) -> None:
    folder = save_tiny_pair(tmp_path)
    cost = cost_of(folder, device="cpu", dtype="float32")
    assert cost.parameters["image_encoder"] == sum(p.numel() for p in tiny_encoder().model.parameters())
    assert cost.bytes == 4 * sum(cost.parameters.values())
    larger = cost_of(folder, device="cpu", size=(32, 32))
    assert larger.size == (32, 32) and larger.movq_flops > 3 * cost.movq_flops
    assert larger.encoder_flops == cost.encoder_flops


def test_models_without_numbers_have_the_shapes_of_real_ones() -> None:
    config = tiny_encoder().model.config.to_dict() | {"architectures": ["CLIPVisionModelWithProjection"]}
    tiny = on_meta("image_encoder", config)
    assert shapes_of(tiny) == shapes_of(tiny_encoder().model)
    assert all(tensor.device.type == "meta" for tensor in tiny.state_dict().values())


def test_seconds_follow_the_operations() -> None:
    cost = Cost(1, 100, 10, {}, 0, (8, 8), 2, 2, scale=4, channels=32)
    plain = DecodeOptions(5, 1.0, "ddim", (8, 8))
    half = replace(plain, guidance=4.0, guidance_interval=(0.0, 0.4))
    assert cost.picture_flops(half) == (5 + 2) * 100 + 10 + 1
    assert cost.picture_flops(replace(plain, guidance=4.0)) == 2 * 5 * 100 + 10 + 1
    assert cost.picture_flops(plain) == 5 * 100 + 10 + 1
    assert estimate_seconds(cost, 10.0, pictures=3, options=plain, traces=2) == (3 * 511 + 2) / 10


def test_the_probe_measures_something_like_a_processor() -> None:
    assert 1e7 < probe_flops("cpu", torch.float32, seconds=0.02) < 1e14


def test_differences_are_named() -> None:
    manifest = {"unet": {"a": (1,), "b": (2,), "c": (3,)}}
    assert differences("unet", {"a": (1,), "b": (2,), "c": (3,)}, manifest) == []
    found = differences("unet", {"a": (1,), "b": (9,), "d": (4,)}, manifest)
    assert found == ["unet: c is missing", "unet: d should not be there", "unet: b has shape (9,), not (2,)"]


def test_what_cannot_be_built_is_refused() -> None:
    with pytest.raises(ModelError, match="names no class"):
        on_meta("unet", {"_class_name": "NoSuchModel"})
    with pytest.raises(UsageError, match="holds no configs for emoji"):
        package_configs(card("emoji"))


def test_working_memory_grows_with_the_batch_and_the_picture() -> None:
    cost = Cost(1, 100, 10, {}, 0, (8, 8), 2, 2, scale=4, channels=32)
    assert cost.working_bytes(4, (8, 8), 2) == 4 * cost.working_bytes(1, (8, 8), 2)
    assert cost.working_bytes(1, (16, 16), 2) == 4 * cost.working_bytes(1, (8, 8), 2)


def test_decoders_whose_passes_are_not_counted_are_refused(tmp_path: Path) -> None:
    for name in ("karlo", "neighbours", save_tiny_decoder("karlo", tmp_path / "karlo")):
        with pytest.raises(UsageError, match=r"only pairs with a decoder of kandinsky-2\.2, .* can be priced"):
            cost_of(name, device="cpu")


def test_8_bits_and_the_host_take_memory_from_the_device() -> None:
    given: dict[str, Any] = {"device": "cpu", "dtype": "float16"}
    changes: tuple[dict[str, Any], ...] = ({}, {"precision": "fp8"}, {"offload": True})
    plain, small, away = (cost_of("kandinsky-2.2", **given, **more) for more in changes)
    assert plain.host_bytes == small.host_bytes == 0 and away.host_bytes > 2.4e9
    saved = plain.bytes - small.bytes
    assert 0.49 * 2 * plain.parameters["unet"] < saved < plain.parameters["unet"]
    assert away.bytes < small.bytes < plain.bytes and away.bytes + away.host_bytes > plain.bytes
