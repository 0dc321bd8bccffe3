"""The transformer from image tokens to pixels against diffusers' own decoder, and what it reads in plain numbers."""

import importlib.util
import shutil
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from diffusers.models.autoencoders.autoencoder_rae import RAEDecoder as NativeDecoder
from safetensors.torch import load_file
from torch import Tensor

from steerlens.decoders import TokenSource, check_fit, clean_conditioning, decode
from steerlens.decoders.vit_mae import ViTMAEDecoder
from steerlens.decoders.vit_mae.network import PixelTransformer, grid_positions
from steerlens.errors import ModelError
from steerlens.loading import load
from steerlens.testing.checks import check_decoder
from steerlens.testing.tiny_parts import shaken
from steerlens.testing.tiny_vit_mae import VARIANTS, save_tiny_vit_mae
from steerlens.zoo import cards

_NAMES = (
    ("attention.attention.query", "attention.to_q"),
    ("attention.attention.key", "attention.to_k"),
    ("attention.attention.value", "attention.to_v"),
    ("attention.output.dense", "attention.to_out.0"),
)
"""Names of attention weights as published, and in diffusers."""


def test_pictures_are_those_of_diffusers_decoder_with_equal_weights() -> None:
    sizes = {"decoder_hidden_size": 24, "decoder_num_hidden_layers": 2, "decoder_num_attention_heads": 3}
    native: Any = shaken(
        NativeDecoder(8, **sizes, decoder_intermediate_size=20, num_patches=256, patch_size=2, image_size=32), 0.3
    )
    torch.nn.init.normal_(native.trainable_cls_token)
    model = PixelTransformer(
        8, 16, 2, width=24, depth=2, heads=3, mlp_size=20, pixel_mean=(0, 0, 0), pixel_std=(1, 1, 1)
    )
    weights = {"decoder_pos_embed": native.decoder_pos_embed, **model.token_norm.state_dict(prefix="token_norm.")}
    for name, value in native.state_dict().items():
        for published, own in _NAMES:
            name = name.replace(own, published)
        weights[name] = value
    torch.testing.assert_close(model.decoder_pos_embed.data, native.decoder_pos_embed)
    model.load_state_dict(weights)
    tokens = torch.randn(2, 256, 8, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        wanted = native.unpatchify(native(tokens).logits)
        got = cast(Any, model)(tokens)
    assert wanted.std() > 0.1
    torch.testing.assert_close(got, wanted, rtol=1e-5, atol=1e-5)


def test_positions_are_waves_of_the_column_and_then_of_the_row() -> None:
    positions = grid_positions(3, 8)
    row, column = 2, 1
    waves = [
        f(place * 10000 ** (-i / 2))
        for place in (column, row)
        for f in (torch.sin, torch.cos)
        for i in torch.arange(2, dtype=torch.float64)
    ]
    torch.testing.assert_close(positions[1 + 3 * row + column], torch.stack(waves).float())
    assert not positions[0].any()


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_saved_pair_passes_the_checks_and_reads_its_encoder_s_tokens(variant: str, tmp_path: Path) -> None:
    pair = load(save_tiny_vit_mae(tmp_path, variant), dtype="float32", device="cpu")
    decoder = cast(ViTMAEDecoder, pair.decoder)
    check_decoder(decoder).require()
    encoder: Any = pair.encoder
    pixels = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(1))
    got = clean_conditioning(encoder, decoder, {"pixel_values": pixels}).values
    with torch.no_grad():
        output = encoder.model(pixels, output_hidden_states=True)
    first, hidden = encoder.spec.first_patch, output.hidden_states

    def normed(residual: Tensor, epsilon: float) -> Tensor:
        return torch.nn.functional.layer_norm(residual, (32,), eps=epsilon)[:, first:]

    if variant == "scale-rae-webssl":
        wanted = output.last_hidden_state[:, first:]
    elif variant == "scale-rae-siglip2":
        wanted = normed(hidden[-1], 1e-6)
    else:
        early, late = (normed(hidden[layer + 1], 1e-6) for layer in (0, 2))
        wanted = (early + late) / 2 + late.mean(dim=1, keepdim=True)
    torch.testing.assert_close(got, wanted, rtol=1e-4, atol=1e-5)


def test_layers_that_an_encoder_lacks_or_that_do_not_rise_are_refused(tmp_path: Path) -> None:
    pair = load(save_tiny_vit_mae(tmp_path), dtype="float32", device="cpu")
    model = cast(Any, pair.decoder).model
    model.register_to_config(layers=(0, 3))
    with pytest.raises(ModelError, match=r"reads the tokens after layer 3, and the last layer of .* is 2"):
        check_fit(ViTMAEDecoder(model).spec, pair.encoder.spec)
    for layers in ((), (2, 1), (1, 1), (-1, 2)):
        with pytest.raises(ModelError, match="are counted from 0 and rise"):
            TokenSource(layers=layers)


def test_a_published_pickle_is_never_opened_and_the_message_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("steerlens.zoo.locating.snapshot", lambda *_, **__: pytest.fail("something was fetched"))
    for name, known in cards().items():
        if known.pickled:
            with pytest.raises(ModelError, match=rf"never opened here.*unpickled_decoder.py {name} FOLDER"):
                load(name)
            assert not known.terms or "commercially" in known.terms or "licence" in known.terms


def converter() -> Any:
    """The script beside the benchmarks."""
    path = Path(__file__).parents[2] / "benchmarks" / "unpickled_decoder.py"
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_a_pickle_that_was_saved_again_opens_as_the_pair(tmp_path: Path) -> None:
    saved = save_tiny_vit_mae(tmp_path / "pair", "scale-rae-webssl")
    own = load_file(saved / "decoder" / "diffusion_pytorch_model.safetensors")
    published = {name: value for name, value in own.items() if not name.startswith("token_norm.")}
    torch.save(published, tmp_path / "model.pt")
    encoder = tmp_path / "encoder"
    shutil.copytree(saved / "image_encoder", encoder)
    for file in (saved / "image_processor").iterdir():
        shutil.copy(file, encoder)
    config = PixelTransformer.load_config(saved / "decoder")
    options = {name: value for name, value in cast(Any, config).items() if not name.startswith("_")}
    (tmp_path / "out").mkdir()
    converter().convert(options, tmp_path / "model.pt", encoder, tmp_path / "out", 16)
    pixels = {"pixel_values": torch.randn(2, 3, 16, 16)}
    wanted, got = (load(folder, dtype="float32", device="cpu") for folder in (saved, tmp_path / "out"))
    rows = [clean_conditioning(pair.encoder, pair.decoder, pixels) for pair in (wanted, got)]
    torch.testing.assert_close(rows[1].values, rows[0].values)
    torch.testing.assert_close(decode(got.decoder, rows[1], [0, 1]), decode(wanted.decoder, rows[0], [0, 1]))
