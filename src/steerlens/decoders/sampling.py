"""The denoising loop of latent unCLIP decoders, with a random generator per picture.

diffusers' pipelines seed a batch as a whole and report no progress; this loop seeds each picture and reports progress,
and is otherwise theirs: tests check that, for DDPM and guidance above 1, equal generators give equal latents.

    eps = eps_u + g (eps_c - eps_u)     classifier-free guidance, g = 1 for none

It skips two kinds of redundant passes. Outside the guidance interval g = 1, so the unconditional half is left out.
Before the first step, pictures of one seed have the same latents and therefore equal unconditional predictions: the
network predicts once per seed.

References: J. Ho, A. Jain, P. Abbeel, "Denoising Diffusion Probabilistic Models", arXiv 2006.11239;
J. Ho, T. Salimans, "Classifier-Free Diffusion Guidance", arXiv 2207.12598;
C. Lu et al., "DPM-Solver++", arXiv 2211.01095; W. Zhao et al., "UniPC", arXiv 2302.04867;
L. Liu et al., "Pseudo Numerical Methods for Diffusion Models on Manifolds", arXiv 2202.09778;
T. Karras et al., "Elucidating the Design Space of Diffusion-Based Generative Models", arXiv 2206.00364 (Euler);
T. Kynkäänniemi et al., "Applying Guidance in a Limited Interval Improves Sample and Distribution Quality in Diffusion
Models", arXiv 2404.07724.
"""

import inspect
from collections.abc import Callable, Generator, Mapping, Sequence
from typing import Any, Literal

import torch
from diffusers import (
    DDIMScheduler,
    DDPMScheduler,
    DPMSolverMultistepScheduler,
    EulerDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
    PNDMScheduler,
    UnCLIPScheduler,
    UniPCMultistepScheduler,
)
from jaxtyping import Float
from torch import Tensor

from steerlens.borders import native_errors
from steerlens.decoders.base import DecodeOptions, SchedulerName
from steerlens.errors import UsageError
from steerlens.progress import Progress

_LEARNED = ("learned", "learned_range")

Rows = slice | Tensor
"""Rows of a conditioning that the network predicts for; under guidance the unconditional half comes first."""

Denoiser = Callable[[Float[Tensor, "M c h w"], Tensor, Rows], Float[Tensor, "M c_out h w"]]
"""Maps noisy latents, a time step and the M matching rows of its conditioning to the network's prediction: c channels,
or 2 c with a variance."""


def make_scheduler(config: Mapping[str, Any], name: SchedulerName | Literal["none"]) -> Any:
    """Builds a diffusers scheduler of the named kind, on the noise schedule of a saved config.

    A config may declare that the network also predicts its variance (`variance_type: learned_range`); only DDPM can use
    it, so for other samplers the entry is dropped, and the loop drops the channels.

    Raises:
        UsageError: if there is no such scheduler.
    """
    kinds: dict[str, Any] = {
        "ddpm": DDPMScheduler,
        "ddim": DDIMScheduler,
        "dpm++": DPMSolverMultistepScheduler,
        "unipc": UniPCMultistepScheduler,
        "pndm": PNDMScheduler,
        "euler": EulerDiscreteScheduler,
    }
    if name not in kinds:
        raise UsageError(f"unknown scheduler {name!r}; there are {', '.join(kinds)}.")
    # Karlo's ancestral sampler is a DDPM with its own time steps and variance.
    own_ddpm = name == "ddpm" and config.get("_class_name") == "UnCLIPScheduler"
    kind = UnCLIPScheduler if own_ddpm else kinds[name]
    wanted = inspect.signature(kind.__init__).parameters
    known = {key: value for key, value in config.items() if key in wanted}
    if name != "ddpm" and known.get("variance_type") in _LEARNED:
        del known["variance_type"]
    if name == "pndm":
        # As in every Stable Diffusion folder; Runge-Kutta steps would cost four passes each.
        known["skip_prk_steps"] = True
    if name in ("dpm++", "unipc"):
        # Many steps fit any spacing; few steps must include the last, noisiest time step.
        known["timestep_spacing"] = "linspace"
    with native_errors(f"the sampler {name} cannot be used with this decoder"):
        return kind.from_config(known)


def flow_scheduler(config: Mapping[str, Any], options: DecodeOptions, tokens: int, device: torch.device) -> Any:
    """Builds the sampler of a flow-matching network, with its time steps set as diffusers' Flux pipelines set them.

    Args:
        config: the saved scheduler's config.
        options: options of decoding; its scheduler must be `euler`.
        tokens: tokens of one latent: the more there are, the more steps lie near the noise.
        device: device of the network.

    Raises:
        UsageError: if the options name another sampler.
    """
    if options.scheduler != "euler":
        raise UsageError(f"this decoder takes Euler steps alone (--scheduler euler), not those of {options.scheduler}.")
    scheduler: Any = FlowMatchEulerDiscreteScheduler.from_config(dict(config))
    known = scheduler.config
    least, most = known.get("base_image_seq_len", 256), known.get("max_image_seq_len", 4096)
    low, high = known.get("base_shift", 0.5), known.get("max_shift", 1.15)
    shift = low + (high - low) * (tokens - least) / (most - least)
    levels = torch.linspace(1.0, 1 / options.steps, options.steps, dtype=torch.float64).tolist()
    scheduler.set_timesteps(sigmas=levels, device=device, mu=shift)
    return scheduler


def total_steps(options: DecodeOptions) -> int:
    """Returns the passes of a sampler for its denoising steps: PNDM takes its first step twice."""
    return options.steps + int(options.scheduler == "pndm" and options.steps > 1)


def generators_of(seeds: Sequence[int]) -> list[torch.Generator]:
    """Returns a random generator per picture, on the host, so that every device gives the same picture."""
    return [torch.Generator("cpu").manual_seed(seed) for seed in seeds]


def draw(generators: Sequence[torch.Generator], shape: Sequence[int], dtype: torch.dtype = torch.float32) -> Tensor:
    """Draws standard normal numbers on the host, (N, *shape), each row from its own generator."""
    return torch.cat([torch.randn(1, *shape, generator=generator, dtype=dtype) for generator in generators])


def denoise(
    denoiser: Denoiser,
    scheduler: Any,
    shape: tuple[int, int, int],
    seeds: Sequence[int] | Sequence[torch.Generator],
    *,
    steps: int,
    guidance: float,
    interval: tuple[float, float] = (0.0, 1.0),
    device: torch.device,
    dtype: torch.dtype = torch.float32,
) -> Generator[Progress, None, Float[Tensor, "B c h w"]]:
    """Samples latents, one per seed; yields progress in steps and returns the latents.

    Args:
        denoiser: the network with its conditioning: B rows, or under guidance 2 B, the unconditional half first, whose
            rows must all be equal.
        scheduler: a diffusers scheduler.
        shape: channels, height and width of one latent.
        seeds: one seed per picture, or a generator to draw its random numbers from, on the host, so that every device
            gives the same picture.
        steps: denoising steps.
        guidance: classifier-free guidance scale g.
        interval: shares of the steps, from noise to picture, between which there is guidance.
        device: device of the network.
        dtype: precision of the latents between steps.

    Raises:
        UsageError: if there are more steps than the network was trained with.
    """
    trained = scheduler.config["num_train_timesteps"]
    if steps > trained:
        raise UsageError(f"{steps} denoising steps: this decoder was trained with {trained}, which is the most.")
    if steps < 2 and isinstance(scheduler, UnCLIPScheduler):
        raise UsageError("this decoder's own sampler takes at least 2 denoising steps.")
    generators = [seed if isinstance(seed, torch.Generator) else generators_of([seed])[0] for seed in seeds]
    scheduler.set_timesteps(steps, device=device)
    takes = inspect.signature(scheduler.step).parameters
    latents = draw(generators, shape, dtype).to(device) * scheduler.init_noise_sigma
    total = len(scheduler.timesteps)
    for done, timestep in enumerate(scheduler.timesteps, start=1):
        scaled = scheduler.scale_model_input(latents, timestep)
        if guidance <= 1:
            prediction = denoiser(scaled, timestep, slice(None)).to(dtype)
        elif interval[0] <= (done - 1) / total < interval[1]:
            prediction = _guided(denoiser, scaled, timestep, shape[0], guidance, first=done == 1).to(dtype)
        else:
            prediction = denoiser(scaled, timestep, slice(len(scaled), None)).to(dtype)
        if prediction.shape[1] > shape[0] and scheduler.config.get("variance_type") not in _LEARNED:
            prediction = prediction[:, : shape[0]]
        extra: dict[str, Any] = {"generator": generators} if "generator" in takes else {}
        if "prev_timestep" in takes and done < len(scheduler.timesteps):
            extra["prev_timestep"] = scheduler.timesteps[done]
        latents = scheduler.step(prediction, timestep, latents, **extra, return_dict=False)[0]
        yield Progress("denoising", done, total, "steps")
    return latents


def _guided(
    denoiser: Denoiser, latents: Tensor, timestep: Tensor, channels: int, guidance: float, *, first: bool
) -> Tensor:
    """Computes the guided prediction, (B,c_out,h,w); the first step predicts the unconditional half once per seed."""
    items = len(latents)
    alone, of = torch.arange(items), torch.arange(items)
    if first:
        alone, of = _distinct(latents)
    rows = torch.cat([alone, torch.arange(items, 2 * items)]).to(latents.device)
    prediction = denoiser(torch.cat([latents[alone.to(latents.device)], latents]), timestep, rows)
    unconditional, conditional = prediction[: len(alone)][of.to(latents.device)], prediction[len(alone) :]
    guided = unconditional[:, :channels] + guidance * (conditional[:, :channels] - unconditional[:, :channels])
    # A predicted variance is not extrapolated: the conditional half's is used.
    return torch.cat([guided, conditional[:, channels:]], dim=1)


def _distinct(latents: Tensor) -> tuple[Tensor, Tensor]:
    """Returns the indices of the distinct rows, and for every row the position of its equal among them."""
    positions: dict[bytes, int] = {}
    host = latents.detach().float().cpu().contiguous().numpy()
    of = [positions.setdefault(row.tobytes(), len(positions)) for row in host]
    alone = torch.tensor([of.index(position) for position in range(len(positions))])
    return alone, torch.tensor(of)
