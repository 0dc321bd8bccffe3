"""Parts of training that need no run: what early heads pay for, and mixtures of scenes."""

from __future__ import annotations

import torch

from steerlens.training.cache import mix_some
from steerlens.training.encoder import EncoderSettings, class_token_reads, early_writes, embed_tokens, make_encoder

SMALL = EncoderSettings(width=32, layers=6, heads=4)


def test_early_writes_are_the_norms_of_heads_by_hand() -> None:
    torch.manual_seed(0)
    encoder = make_encoder(SMALL, 16).eval()
    pictures = torch.randn(3, 3, 64, 64)
    with torch.no_grad(), class_token_reads(encoder) as reads:
        embed_tokens(encoder, pictures)
        found = early_writes(encoder, reads)
        states = encoder(pixel_values=pictures, output_hidden_states=True).hidden_states
        total = torch.zeros(())
        for number, layer in enumerate(encoder.vision_model.encoder.layers[:4]):  # type: ignore[union-attr]
            whole = layer.self_attn(layer.layer_norm1(states[number]))[0][:, 0]
            norms = torch.zeros(3)
            for head in range(4):
                kept = layer.self_attn.out_proj.weight.clone()
                part = slice(8 * head, 8 * head + 8)
                layer.self_attn.out_proj.weight[:, part] = 0
                without = layer.self_attn(layer.layer_norm1(states[number]))[0][:, 0]
                layer.self_attn.out_proj.weight.copy_(kept)
                norms += (whole - without).norm(dim=-1) / 4
            total = total + (1 - number / 4) * (norms / states[-1][:, 0].norm(dim=-1)).mean()
    assert torch.allclose(found, total, rtol=1e-4)
    assert found > 0


def test_early_writes_move_early_layers_alone_and_leave_no_hook() -> None:
    torch.manual_seed(0)
    encoder = make_encoder(SMALL, 16)
    with class_token_reads(encoder) as reads:
        embed_tokens(encoder, torch.randn(2, 3, 64, 64), torch.arange(8).expand(2, -1))
    early_writes(encoder, reads).backward()
    layers = encoder.vision_model.encoder.layers  # type: ignore[union-attr]
    moved = [layer.self_attn.out_proj.weight.grad is not None for layer in layers]
    assert moved == [True, True, True, True, False, False]
    assert not any(module._forward_pre_hooks for module in encoder.modules())


def test_mixtures_are_of_two_neighbours_and_the_rest_is_untouched() -> None:
    pictures = torch.rand(200, 3, 4, 4)
    mixed = mix_some(pictures, torch.Generator().manual_seed(0), share=0.3)
    same = (mixed == pictures).flatten(1).all(dim=1)
    assert 40 < int((~same).sum()) < 80
    before = pictures.roll(1, 0)
    weight = ((mixed - pictures) / (before - pictures)).flatten(1).median(dim=1).values[~same]
    assert bool(((weight > 0.29) & (weight < 0.71)).all())
    assert torch.equal(mix_some(pictures, torch.Generator().manual_seed(0), share=0.0), pictures)
