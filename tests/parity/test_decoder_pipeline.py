"""The denoising loop against diffusers' own `KandinskyV22Pipeline`, and pictures against themselves in batches."""

from functools import cache
from typing import Any

import pytest
import torch
from diffusers import DDIMScheduler, DDPMScheduler, KandinskyV22Pipeline
from torch import Tensor

from steerlens.conditioning import Conditioning
from steerlens.decoders.base import Decoded, DecodeOptions, SchedulerName, decode
from steerlens.decoders.kandinsky22 import Kandinsky22Decoder
from steerlens.errors import ModelError, UsageError
from steerlens.testing.tiny import SCHEDULERS, tiny_movq, tiny_unet

E = 12
SAMPLERS: tuple[SchedulerName, ...] = ("ddpm", "ddim", "dpm++", "unipc")


def config_of(name: str) -> dict[str, Any]:
    return {"beta_start": 0.00085, "beta_end": 0.012, "num_train_timesteps": 1000, **SCHEDULERS[name]}


@cache
def decoder_of(name: str) -> Kandinsky22Decoder:
    negative, movq = torch.randn(1, E, generator=torch.Generator().manual_seed(5)), tiny_movq()
    with torch.no_grad():
        movq.decoder.conv_out.weight.mul_(0.2)  # Pictures of random weights saturate, and saturated ones all agree.
    return Kandinsky22Decoder(tiny_unet(), movq, config_of(name), negative)


def embeddings(count: int, seed: int = 0) -> Tensor:
    return 3 * torch.randn(count, E, generator=torch.Generator().manual_seed(seed))


def options(sampler: SchedulerName = "ddpm", **changes: Any) -> DecodeOptions:
    return DecodeOptions(**{"steps": 6, "guidance": 4.0, "scheduler": sampler, "size": (16, 16), **changes})


def pipeline_pictures(
    decoder: Kandinsky22Decoder, scheduler: Any, values: Tensor, seeds: list[int], guidance: float
) -> Tensor:
    pipe = KandinskyV22Pipeline(unet=decoder.unet, scheduler=scheduler, movq=decoder.movq)
    pipe.set_progress_bar_config(disable=True)
    pictures = pipe(
        image_embeds=values,
        negative_image_embeds=decoder.negative_embedding.expand_as(values),
        height=16,
        width=16,
        num_inference_steps=6,
        guidance_scale=guidance,
        generator=[torch.Generator("cpu").manual_seed(seed) for seed in seeds],
        output_type="np",
    ).images
    return torch.from_numpy(pictures).permute(0, 3, 1, 2)


@pytest.mark.parametrize("guidance", [4.0, 1.0])
@pytest.mark.parametrize("name", SCHEDULERS)
def test_ddpm_pictures_are_those_of_the_diffusers_pipeline(name: str, guidance: float) -> None:
    decoder, values, seeds = decoder_of(name), embeddings(3), [4, 9, 2]
    wanted = pipeline_pictures(decoder, DDPMScheduler.from_config(config_of(name)), values, seeds, guidance)
    got = decode(decoder, Conditioning("image_embedding", values), seeds, options(guidance=guidance))
    assert wanted.std() > 0.02
    assert ((wanted > 0) & (wanted < 1)).float().mean() > 0.5
    torch.testing.assert_close(got, wanted, rtol=0, atol=1e-6)


def test_ddim_pictures_are_those_of_the_diffusers_pipeline() -> None:
    decoder, values, seeds = decoder_of("kandinsky-2.2"), embeddings(2), [1, 2]
    wanted = pipeline_pictures(decoder, DDIMScheduler.from_config(config_of("kandinsky-2.2")), values, seeds, 4.0)
    got = decode(decoder, Conditioning("image_embedding", values), seeds, options("ddim"))
    torch.testing.assert_close(got, wanted, rtol=0, atol=1e-6)


@pytest.mark.parametrize("steps", [1, 2, 7])
@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("name", SCHEDULERS)
def test_every_sampler_gives_finite_pictures_and_the_same_ones_again(
    name: str, sampler: SchedulerName, steps: int
) -> None:
    decoder, conditioning = decoder_of(name), Conditioning("image_embedding", embeddings(2))
    pictures = decode(decoder, conditioning, [3, 4], options(sampler, steps=steps))
    assert pictures.shape == (2, 3, 16, 16)
    assert pictures.dtype == torch.float32
    assert torch.isfinite(pictures).all()
    assert pictures.min() >= 0
    assert pictures.max() <= 1
    assert torch.equal(pictures, decode(decoder, conditioning, [3, 4], options(sampler, steps=steps)))


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_a_picture_alone_is_the_picture_in_a_batch_in_any_order(sampler: SchedulerName) -> None:
    decoder, values, seeds = decoder_of("kandinsky-2.2"), embeddings(7), [5, 1, 8, 5, 3, 2, 9]
    together = decode(decoder, Conditioning("image_embedding", values), seeds, options(sampler))
    order = [6, 2, 0, 5, 1, 4, 3]
    shuffled = decode(
        decoder,
        Conditioning("image_embedding", values[order]),
        [seeds[index] for index in order],
        options(sampler, batch_size=3),
    )
    assert (shuffled - together[order]).abs().max() <= 2 / 255
    for index, seed in enumerate(seeds):
        alone = decode(decoder, Conditioning("image_embedding", values[index : index + 1]), [seed], options(sampler))
        assert (alone[0] - together[index]).abs().max() <= 2 / 255


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_other_seeds_and_other_embeddings_give_other_pictures(sampler: SchedulerName) -> None:
    decoder, values = decoder_of("kandinsky-2.2"), embeddings(2)
    twice = values[[0, 0, 1]]
    pictures = decode(decoder, Conditioning("image_embedding", twice), [1, 2, 1], options(sampler))
    assert (pictures[0] - pictures[1]).abs().max() > 0.1
    assert (pictures[0] - pictures[2]).abs().max() > 0.01


def test_guidance_pushes_away_from_the_negative_embedding() -> None:
    decoder = decoder_of("kandinsky-2.2")
    at_negative = Conditioning("image_embedding", decoder.negative_embedding)
    weak, strong = (decode(decoder, at_negative, [1], options(guidance=g)) for g in (1.0, 9.0))
    torch.testing.assert_close(weak, strong, rtol=0, atol=1e-4)  # Condition and no condition are the same there.
    elsewhere = Conditioning("image_embedding", embeddings(1))
    weak, strong = (decode(decoder, elsewhere, [1], options(guidance=g)) for g in (1.0, 9.0))
    assert (weak - strong).abs().max() > 1e-2


def test_progress_tells_every_step_of_every_batch_and_pictures_come_batch_by_batch() -> None:
    decoder = decoder_of("kandinsky-2.2")
    events = list(
        decoder.decode_batches(Conditioning("image_embedding", embeddings(5)), range(5), options(steps=3, batch_size=2))
    )
    batches = [event.payload for event in events if isinstance(event.payload, Decoded)]
    assert [(batch.first, len(batch.pictures)) for batch in batches] == [(0, 2), (2, 2), (4, 1)]
    # Three denoising steps and the autoencoder: a quarter of a batch each.
    assert [event.done for event in events] == [0.5, 1, 1.5, 2, 2.5, 3, 3.5, 4, 4.25, 4.5, 4.75, 5]
    assert {(event.total, event.unit) for event in events} == {(5, "pictures")}


def test_decoding_records_no_gradients_even_when_the_caller_does() -> None:
    values = embeddings(1).requires_grad_()
    pictures = decode(decoder_of("kandinsky-2.2"), Conditioning("image_embedding", values), [1], options(steps=2))
    assert not pictures.requires_grad


def test_a_size_other_than_the_trained_one_is_decoded_at_that_size() -> None:
    conditioning = Conditioning("image_embedding", embeddings(1))
    pictures = decode(decoder_of("kandinsky-2.2"), conditioning, [1], options(size=(24, 32), steps=2))
    assert pictures.shape == (1, 3, 24, 32)


@pytest.mark.parametrize(
    ("values", "seeds", "changes", "kind", "message"),
    [
        (embeddings(2)[:, :5], [1, 2], {}, ModelError, "do not fit"),
        (embeddings(2), [1], {}, UsageError, "as many seeds"),
        (embeddings(0), [], {}, UsageError, "no embedding to decode"),
        (embeddings(1), [1], {"size": (15, 16)}, UsageError, "multiples of 2"),
        (embeddings(1), [1], {"steps": 1001}, UsageError, "trained with 1000"),
        (embeddings(1), [1], {"scheduler": "heun"}, UsageError, r"unknown scheduler 'heun'; there are ddpm, ddim"),
    ],
)
def test_a_request_that_does_not_fit_is_refused(
    values: Tensor, seeds: list[int], changes: dict[str, Any], kind: type[Exception], message: str
) -> None:
    with pytest.raises(kind, match=message):
        decode(decoder_of("kandinsky-2.2"), Conditioning("image_embedding", values), seeds, options(**changes))


def test_pictures_that_are_not_finite_are_an_error() -> None:
    movq = tiny_movq()
    with torch.no_grad():
        movq.decoder.conv_out.bias.fill_(torch.nan)
    decoder = Kandinsky22Decoder(tiny_unet(), movq, config_of("kandinsky-2.2"), torch.zeros(1, E))
    with pytest.raises(ModelError, match="not finite"):
        decode(decoder, Conditioning("image_embedding", embeddings(1)), [1], options(steps=1))


def test_an_encoder_of_another_embedding_size_is_refused() -> None:
    with pytest.raises(ModelError, match="reads embeddings of size 12, the encoder gives 7"):
        Kandinsky22Decoder(tiny_unet(), tiny_movq(), config_of("kandinsky-2.2"), torch.zeros(1, 7))


def test_a_unet_without_image_conditioning_is_refused() -> None:
    unet = tiny_unet()
    unet.register_to_config(addition_embed_type=None)
    with pytest.raises(ModelError, match="not conditioned on image embeddings"):
        Kandinsky22Decoder(unet, tiny_movq(), config_of("kandinsky-2.2"), torch.zeros(1, E))


def test_the_bundled_decoder_gives_the_pipelines_pictures_and_none_depends_on_its_batch(emoji: Any) -> None:
    decoder = emoji.decoder
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randn(4, 3, *emoji.encoder.spec.image_size, generator=generator)
    values = emoji.encoder.embed(pixels)
    height, width = decoder.spec.defaults.size
    few = DecodeOptions(steps=4, guidance=4.0, scheduler="ddpm", size=(height, width))
    together = decode(decoder, Conditioning("image_embedding", values), [3, 1, 4, 1], few)
    pipe = KandinskyV22Pipeline(
        unet=decoder.unet, scheduler=DDPMScheduler.from_config(decoder.scheduler_config), movq=decoder.movq
    )
    pipe.set_progress_bar_config(disable=True)
    wanted = pipe(
        image_embeds=values,
        negative_image_embeds=emoji.encoder.zero_embedding().expand_as(values),
        height=height,
        width=width,
        num_inference_steps=4,
        guidance_scale=4.0,
        generator=[torch.Generator("cpu").manual_seed(seed) for seed in (3, 1, 4, 1)],
        output_type="np",
    ).images
    torch.testing.assert_close(together, torch.from_numpy(wanted).permute(0, 3, 1, 2), rtol=0, atol=1e-5)
    alone = decode(decoder, Conditioning("image_embedding", values[2:3]), [4], few)
    assert (alone[0] - together[2]).abs().max() <= 2 / 255


def test_a_preview_is_the_picture_without_its_autoencoder() -> None:
    """On an autoencoder that only pools and repeats, the preview is exact; it costs no pass through the real one."""
    from steerlens.decoders.preview import colour_patterns, fit_colours, preview

    mixing = torch.randn(4, 3, generator=torch.Generator().manual_seed(3))
    shift = torch.randn(4, generator=torch.Generator().manual_seed(4))

    def encode(pictures: Tensor) -> Tensor:
        pooled = torch.nn.functional.avg_pool2d(pictures, 4)
        return torch.einsum("nkhw,ck->nchw", pooled, mixing) + shift[:, None, None]

    pictures = colour_patterns((16, 24))[:3].roll(1, dims=1)
    made = preview(encode(pictures), fit_colours(encode, (16, 24), 4), 4)
    assert made.shape == pictures.shape
    small = torch.nn.functional.avg_pool2d(pictures, 4)
    expected = torch.nn.functional.interpolate(small, scale_factor=4, mode="bilinear")
    torch.testing.assert_close(made, expected, rtol=0, atol=1e-4)


def test_a_preview_leaves_the_autoencoder_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    decoder, rows = decoder_of(next(iter(SCHEDULERS))), Conditioning("image_embedding", embeddings(3))
    full = decode(decoder, rows, [1, 2, 3], options())
    decode(decoder, rows, [1, 2, 3], options(preview=True))  # fits its map
    monkeypatch.setattr(decoder.movq, "decode", None)
    monkeypatch.setattr(decoder.movq, "encode", None)
    shown = decode(decoder, rows, [1, 2, 3], options(preview=True))
    assert shown.shape == full.shape
    alone = decode(decoder, Conditioning("image_embedding", embeddings(3)[1:2]), [2], options(preview=True))
    torch.testing.assert_close(alone[0], shown[1], rtol=0, atol=1e-4)
