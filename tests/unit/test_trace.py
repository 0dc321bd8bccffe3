"""Trace: reading it, splitting it, and refusing sites that it does not contain."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import cache

import pytest
import torch
from torch import Tensor, nn

from steerlens.encoders.clip import CLIPEncoder
from steerlens.errors import ModelError, TraceError, UsageError
from steerlens.sites import Site
from steerlens.testing.tiny import tiny_encoder, tiny_vision_model
from steerlens.trace import Trace


@cache
def traced() -> tuple[CLIPEncoder, Tensor, Trace]:
    encoder = tiny_encoder()
    pixels = torch.randn(4, 3, 16, 16, generator=torch.Generator().manual_seed(1))
    return encoder, pixels, encoder.trace(pixels)


def test_a_trace_says_its_size() -> None:
    trace = traced()[2]
    assert repr(trace) == "Trace(4 pictures, 3 layers x 2 heads, 1 readout token, width 16)"
    assert (len(trace), trace.n_layers, trace.n_heads) == (4, 3, 2)


def test_stack_holds_sites_in_the_order_asked_for() -> None:
    trace = traced()[2]
    sites = [Site("head", 2, 1), Site("mlp_out", 0), Site("head", 2, 0), Site("embed"), Site("head", 0, 1)]
    stacked = trace.stack(sites)
    assert stacked.shape == (4, 5, 1, 16)
    for index, site in enumerate(sites):
        torch.testing.assert_close(stacked[:, index], trace.at(site))


@pytest.mark.parametrize(
    ("site", "message"),
    [
        (Site("resid_post", 3), "the model has 3 layers"),
        (Site("head", 3, 0), "the model has 3 layers"),
        (Site("head", 0, 2), "the model has heads 0 to 1"),
        (Site("vector", name="x"), "is a direction, which a trace does not hold"),
    ],
)
def test_a_site_that_is_not_there_is_refused_alone_and_in_a_stack(site: Site, message: str) -> None:
    trace = traced()[2]
    with pytest.raises(UsageError, match=message):
        trace.at(site)
    with pytest.raises(UsageError, match=message):
        trace.stack([Site("embed"), site])


def test_a_stack_of_no_sites_is_refused() -> None:
    with pytest.raises(UsageError, match="no site was requested"):
        traced()[2].stack([])


def test_select_keeps_one_picture_with_its_attention() -> None:
    encoder, pixels, _ = traced()
    trace = encoder.trace(pixels, attention=True)
    picked = trace.select(2)
    assert len(picked) == 1
    assert picked.attention is not None
    assert trace.attention is not None
    assert torch.equal(picked.attention[0], trace.attention[2])
    assert torch.equal(picked.at(Site("head", 1, 1))[0], trace.at(Site("head", 1, 1))[2])
    assert picked.check() <= 1e-5


@pytest.mark.parametrize("picture", [-1, 4])
def test_select_refuses_a_picture_that_is_not_in_the_batch(picture: int) -> None:
    with pytest.raises(UsageError, match="holds 4 pictures, counted from 0; there is no picture"):
        traced()[2].select(picture)


def test_bytes_count_what_was_captured_and_attention_only_if_asked_for() -> None:
    encoder, pixels, trace = traced()
    L, H, D, E, T = 3, 2, 16, 12, 5
    assert trace.nbytes == 4 * 4 * (D + 4 * L * D + E)
    assert encoder.trace(pixels, attention=True).nbytes - trace.nbytes == 4 * 4 * (L * H * T + L * T * D)


@pytest.mark.parametrize("name", ["embed", "attn_bias", "mlp_out", "head_values"])
def test_a_trace_with_a_part_changed_fails_its_check(name: str) -> None:
    trace = traced()[2]
    assert trace.check() <= 1e-5
    with pytest.raises(TraceError, match=r"only within .* \(allowed: 1e-05\)"):
        replace(trace, **{name: getattr(trace, name) * 1.01}).check()


def test_a_trace_that_is_not_finite_fails_its_check_at_any_tolerance() -> None:
    trace = traced()[2]
    with pytest.raises(TraceError, match="nan"):
        replace(trace, embed=trace.embed * torch.nan).check(tolerance=1e9)


def test_tracing_leaves_no_hooks_and_no_gradients() -> None:
    encoder, _, trace = traced()
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in encoder.model.modules())
    assert not trace.final.requires_grad
    assert not any(weights.requires_grad for weights in trace.out_weights)


def test_tracing_leaves_no_hooks_after_an_exception(monkeypatch: pytest.MonkeyPatch) -> None:
    encoder, pixels, trace = traced()

    def burst(*_: object) -> Tensor:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(encoder.model.vision_model.encoder.layers[1].mlp, "forward", burst)
        encoder.trace(pixels)
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in encoder.model.modules())
    assert torch.equal(encoder.trace(pixels).embedding, trace.embedding)


def test_inputs_are_pixel_values_or_a_mapping_with_them() -> None:
    encoder, pixels, trace = traced()
    assert torch.equal(encoder.trace({"pixel_values": pixels}).embedding, trace.embedding)
    assert torch.equal(encoder.embed({"pixel_values": pixels}), encoder.embed(pixels))


def test_threads_that_share_an_encoder_do_not_see_each_others_hooks() -> None:
    encoder, pixels, _ = traced()
    wanted = [encoder.trace(pixels[index : index + 1]).final for index in range(4)]

    def work(job: int) -> Tensor:
        own = pixels[job % 4 : job % 4 + 1]
        return (
            encoder.trace(own, attention=bool(job % 2)).final
            if job % 3
            else encoder.record(own, [Site("resid_post", 2)])[Site("resid_post", 2)][:, :1]
        )

    with ThreadPoolExecutor(8) as pool:
        for job, final in enumerate(pool.map(work, range(60))):
            torch.testing.assert_close(final, wanted[job % 4])
    assert encoder.model.config._attn_implementation == "sdpa"


def test_a_model_that_skips_a_block_cannot_be_traced() -> None:
    encoder = tiny_encoder()
    layers = encoder.model.vision_model.encoder.layers
    layers[1].forward = lambda hidden_states, *_, **__: hidden_states
    with pytest.raises(ModelError, match=r"layers\.1\..* never ran in one forward pass"):
        encoder.trace(torch.randn(1, 3, 16, 16))


def test_a_model_with_a_part_that_the_adapter_does_not_know_is_refused() -> None:
    model = tiny_vision_model()
    model.vision_model.encoder.layers[1].layer_scale = nn.Identity()
    with pytest.raises(ModelError, match=r"encoder\.layers\.1 is not built like a CLIP vision tower: layer_scale is"):
        CLIPEncoder(model, None)
    model = tiny_vision_model()
    del model.vision_model.encoder.layers[0].self_attn.q_proj
    with pytest.raises(ModelError, match="q_proj"):
        CLIPEncoder(model, None)


def test_the_zero_embedding_is_that_of_zero_pixel_values_and_not_of_a_black_picture() -> None:
    encoder = tiny_encoder()
    zero = encoder.zero_embedding()
    assert torch.equal(zero, encoder.embed(torch.zeros(1, 3, 16, 16)))
    black = encoder.embed(encoder.preprocess_tensor(torch.zeros(1, 3, 16, 16)))
    assert not torch.allclose(zero, black, rtol=1e-2)


def test_pictures_as_tensors_go_through_the_same_steps_as_pictures_from_files() -> None:
    from PIL import Image

    encoder = tiny_encoder()
    pictures = torch.rand(2, 3, 20, 16, generator=torch.Generator().manual_seed(0))
    arrays = (pictures * 255).round().to(torch.uint8).permute(0, 2, 3, 1).numpy()
    from_files = encoder.preprocess([Image.fromarray(array) for array in arrays])["pixel_values"]
    from_tensors = encoder.preprocess_tensor(pictures)["pixel_values"]
    assert from_tensors.shape == (2, 3, 16, 16)
    assert torch.equal(from_files, from_tensors)
