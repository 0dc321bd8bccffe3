"""The denoising loop by itself, on a network whose right answer is known."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from steerlens.conditioning import Conditioning
from steerlens.decoders.base import DecodeOptions, SchedulerName
from steerlens.decoders.sampling import Denoiser, Rows, denoise, make_scheduler
from steerlens.errors import ModelError, UsageError
from steerlens.progress import Progress, run_to_end
from steerlens.testing.tiny import SCHEDULERS

BASE: Mapping[str, Any] = {"beta_start": 0.00085, "beta_end": 0.012, "num_train_timesteps": 1000}
SAMPLERS: tuple[SchedulerName, ...] = ("ddpm", "ddim", "dpm++", "unipc")
SHAPE = (4, 6, 5)


def run(
    denoiser: Denoiser, sampler: SchedulerName, config: Mapping[str, Any], **changes: Any
) -> tuple[list[int], Tensor]:
    given: dict[str, Any] = {"steps": 25, "guidance": 1.0, "seeds": [1, 2, 3], **changes}
    steps = denoise(
        denoiser,
        make_scheduler(config, sampler),
        SHAPE,
        given["seeds"],
        steps=given["steps"],
        guidance=given["guidance"],
        interval=given.get("interval", (0.0, 1.0)),
        device=torch.device("cpu"),
    )
    told: list[Progress] = []
    latents = run_to_end(steps, told.append)
    return [round(event.done) for event in told], latents


def knows(clean: Tensor, config: Mapping[str, Any], extra_channels: int = 0) -> Denoiser:
    """A network that knows the clean latent, and predicts exactly the noise (or the velocity) that hides it."""
    betas = {
        "linear": torch.linspace(0.00085, 0.012, 1000),
        "scaled_linear": torch.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2,
    }[config.get("beta_schedule", "linear")]
    alphas = (1 - betas).cumprod(0)

    def denoiser(latents: Tensor, timestep: Tensor, _: Rows) -> Tensor:
        alpha = alphas[int(timestep)]
        noise = (latents - alpha.sqrt() * clean) / (1 - alpha).sqrt()
        velocity = alpha.sqrt() * noise - (1 - alpha).sqrt() * clean
        prediction = velocity if config.get("prediction_type") == "v_prediction" else noise
        return torch.cat([prediction, torch.zeros_like(prediction)[:, :extra_channels]], dim=1)

    return denoiser


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("name", SCHEDULERS)
def test_every_sampler_finds_the_latent_that_the_network_knows(name: str, sampler: SchedulerName) -> None:
    config = {**BASE, **SCHEDULERS[name]}
    clean = 0.5 * torch.randn(SHAPE, generator=torch.Generator().manual_seed(0)).clamp(-1.9, 1.9)
    told, latents = run(knows(clean, config, extra_channels=4), sampler, config)
    assert told == list(range(1, 26))
    assert latents.shape == (3, *SHAPE)
    # Configs without `set_alpha_to_one` leave the noise of the first time step, of size 0.03, on DDIM latents.
    torch.testing.assert_close(latents, clean.expand_as(latents), rtol=0, atol=0.15)


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_latents_start_as_the_noise_of_each_pictures_own_seed(sampler: SchedulerName) -> None:
    seen: list[Tensor] = []

    def watch(latents: Tensor, _: Tensor, rows: Rows) -> Tensor:
        seen.append(latents.clone())
        return torch.zeros_like(latents)

    run(watch, sampler, BASE, seeds=[7, 11], steps=2)
    for row, seed in enumerate((7, 11)):
        noise = torch.randn(1, *SHAPE, generator=torch.Generator().manual_seed(seed))
        torch.testing.assert_close(seen[0][row], noise[0])


def test_guidance_moves_from_the_unconditional_half_past_the_conditional_one() -> None:
    batches: list[int] = []

    def two_sided(latents: Tensor, _: Tensor, rows: Rows) -> Tensor:
        batches.append(len(latents))
        half = len(latents) // 2
        prediction = torch.zeros_like(latents)
        prediction[:half], prediction[half:] = 1.0, 1.25
        return prediction

    def constant(latents: Tensor, _: Tensor, rows: Rows) -> Tensor:
        return torch.full_like(latents, 1.0 + 4.0 * 0.25)

    guided = run(two_sided, "ddim", BASE, guidance=4.0, steps=3)[1]
    assert batches == [6, 6, 6]
    torch.testing.assert_close(guided, run(constant, "ddim", BASE, guidance=1.0, steps=3)[1])


def test_the_unconditional_half_is_asked_once_for_each_seed_before_the_first_step() -> None:
    conditions, asked = torch.linspace(0, 1, 8), list[Tensor | slice]()
    conditions[:4] = 0.5

    def denoiser(latents: Tensor, _: Tensor, rows: Rows) -> Tensor:
        asked.append(rows)
        return latents * conditions[rows].view(-1, 1, 1, 1)

    together = run(denoiser, "dpm++", BASE, guidance=3.0, seeds=[4, 9, 4, 4], steps=3)[1]
    assert [row.tolist() for row in asked if isinstance(row, Tensor)] == [[0, 1, 4, 5, 6, 7], *[list(range(8))] * 2]
    for index, seed in enumerate((4, 9, 4, 4)):
        own = conditions[[0, 4 + index]]

        def alone(latents: Tensor, _: Tensor, rows: Rows, own: Tensor = own) -> Tensor:
            return latents * own[rows].view(-1, 1, 1, 1)

        torch.testing.assert_close(
            run(alone, "dpm++", BASE, guidance=3.0, seeds=[seed], steps=3)[1][0], together[index]
        )


def test_outside_the_guidance_interval_the_conditional_half_alone_is_asked() -> None:
    asked: list[int] = []

    def denoiser(latents: Tensor, _: Tensor, rows: Rows) -> Tensor:
        of = torch.arange(6)[rows] >= 3
        asked.append(len(of))
        return of.view(-1, 1, 1, 1).expand_as(latents).to(latents)

    decoding = DecodeOptions(5, 4.0, "ddim", (16, 16), guidance_interval=(0.2, 0.6))
    run(denoiser, "ddim", BASE, guidance=4.0, steps=5, interval=(0.2, 0.6))
    assert asked == [3, 6, 6, 3, 3]
    assert [decoding.guided(step) for step in range(5)] == [False, True, True, False, False]
    assert decoding.passes == 7
    never = run(denoiser, "ddim", BASE, guidance=4.0, steps=5, interval=(0.0, 0.0))[1]
    torch.testing.assert_close(never, run(lambda latents, *_: torch.ones_like(latents), "ddim", BASE, steps=5)[1])


def test_a_predicted_variance_is_the_conditional_halfs_and_only_ddpm_uses_it() -> None:
    config = {**BASE, "variance_type": "learned_range"}

    def denoiser_with(unconditional: float, conditional: float) -> Denoiser:
        def denoiser(latents: Tensor, _: Tensor, rows: Rows) -> Tensor:
            variance = torch.full_like(latents, conditional)
            variance[: len(latents) // 2] = unconditional
            return torch.cat([0.1 * latents, variance], dim=1)

        return denoiser

    def latents(sampler: SchedulerName, unconditional: float, conditional: float) -> Tensor:
        return run(denoiser_with(unconditional, conditional), sampler, config, guidance=4.0, steps=4)[1]

    assert torch.equal(latents("ddpm", 0.0, 0.5), latents("ddpm", 0.9, 0.5))
    assert not torch.allclose(latents("ddpm", 0.0, 0.5), latents("ddpm", 0.0, -0.9), rtol=1e-4)
    for sampler in SAMPLERS[1:]:
        assert torch.equal(latents(sampler, 0.0, 0.5), latents(sampler, 0.0, -0.9))


def test_ddpm_draws_fresh_noise_from_each_pictures_own_generator() -> None:
    def still(latents: Tensor, _: Tensor, rows: Rows) -> Tensor:
        return torch.zeros_like(latents)

    same_seed = run(still, "ddpm", BASE, seeds=[5, 5, 6])[1]
    assert torch.equal(same_seed[0], same_seed[1])
    assert not torch.allclose(same_seed[0], same_seed[2])


def test_the_callers_random_numbers_are_left_alone() -> None:
    torch.manual_seed(0)
    state = torch.get_rng_state()
    run(lambda latents, *_: torch.zeros_like(latents), "ddpm", BASE, steps=2)
    assert torch.equal(state, torch.get_rng_state())


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_few_steps_begin_at_noise_for_multistep_samplers(sampler: SchedulerName) -> None:
    scheduler = make_scheduler({**BASE, "timestep_spacing": "leading"}, sampler)
    scheduler.set_timesteps(10)
    first = int(scheduler.timesteps[0])
    assert first >= 998 if sampler in ("dpm++", "unipc") else first == 900


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_a_scheduler_keeps_the_noise_schedule_of_the_config_it_comes_from(sampler: SchedulerName) -> None:
    for entries in SCHEDULERS.values():
        scheduler = make_scheduler({**BASE, **entries, "_class_name": "DDPMScheduler", "unheard_of": 1}, sampler)
        for key in ("beta_start", "beta_end", "beta_schedule", "prediction_type"):
            assert scheduler.config[key] == {**BASE, **entries}[key]


def test_an_unknown_scheduler_is_refused_with_those_there_are() -> None:
    with pytest.raises(UsageError, match=r"unknown scheduler 'heun'; there are ddpm, ddim, dpm\+\+, unipc"):
        make_scheduler(BASE, "heun")  # type: ignore[arg-type]


def test_more_steps_than_were_trained_is_refused() -> None:
    with pytest.raises(UsageError, match="1001 denoising steps: this decoder was trained with 1000"):
        run(lambda latents, *_: latents, "dpm++", BASE, steps=1001)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"steps": 0}, "at least 1 denoising step is needed, not 0"),
        ({"batch_size": 0}, "a batch holds at least 1 picture, not 0"),
        ({"guidance_interval": (0.6, 0.2)}, "two shares of the steps, such as 0 0.8, not 0.6 0.2"),
        ({"guidance_interval": (0.0, 1.5)}, "two shares of the steps, such as 0 0.8, not 0 1.5"),
        ({"size": (0, 16)}, r"at least 1 pixel, not \(0, 16\)"),
    ],
)
def test_options_that_cannot_be_are_refused(changes: dict[str, Any], message: str) -> None:
    given: dict[str, Any] = {"steps": 5, "guidance": 4.0, "scheduler": "ddpm", "size": (16, 16), **changes}
    with pytest.raises(UsageError, match=message):
        DecodeOptions(**given)


def test_a_conditioning_has_the_shape_of_its_kind_and_finite_numbers() -> None:
    with pytest.raises(UsageError, match="an image_embedding conditioning has 2 dimensions"):
        Conditioning("image_embedding", torch.zeros(1, 2, 3))
    with pytest.raises(UsageError, match="an image_tokens conditioning has 3 dimensions"):
        Conditioning("image_tokens", torch.zeros(1, 2))
    with pytest.raises(ModelError, match="not finite"):
        Conditioning("image_embedding", torch.tensor([[1.0, torch.inf]]))
    tokens = Conditioning("image_tokens", torch.arange(24.0).view(4, 2, 3))
    assert len(tokens) == 4
    assert torch.equal(tokens.rows(1, 3).values, tokens.values[1:3])


def test_an_option_that_came_later_does_not_estrange_what_was_begun_before() -> None:
    options = DecodeOptions(4, 3.0, "ddim", (64, 64), batch_size=3)
    assert set(options.decisive()) == {"steps", "guidance", "scheduler", "size", "guidance_interval"}
    assert replace(options, preview=True).decisive() == {**options.decisive(), "preview": True}
