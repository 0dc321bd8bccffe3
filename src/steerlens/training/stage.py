"""Training stage: a generator that steps, schedules, averages, checkpoints and resumes.

Schedules depend on the share of the budget used; a budget is minutes of steps (see `StepClock`) or their number. Every
step draws from a generator seeded by its number, so that a resumed run of a step budget equals an uninterrupted run.

References:
    Jordan et al., Muon: an optimizer for hidden layers in neural networks, 2024, https://kellerjordan.github.io/posts/muon
    Liu et al., Muon is scalable for LLM training, 2025, arXiv 2502.16982 (the RMS-matched learning rate).
    Loshchilov and Hutter, Decoupled weight decay regularization, 2017, arXiv 1711.05101.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor, distributed, nn

from steerlens.borders import mixed_precision
from steerlens.errors import SteerlensError
from steerlens.progress import Progress
from steerlens.training.checkpoint import (
    Ema,
    load_checkpoint,
    optimizer_tensors,
    part,
    prefixed,
    restore_optimizer,
    save_checkpoint,
    split_parameters,
)
from steerlens.training.clock import StepClock


@dataclass(frozen=True)
class StageRecord:
    """State of a training stage: the payload of its progress.

    Attributes:
        stage: name of the stage.
        step: number of finished optimizer steps.
        seconds: time of its steps so far, over all resumed runs.
        share: share of the budget used, in [0,1].
        losses: running means since the last record.
        metrics: metrics on held-out data, if this record has any.
        done: True if the stage is finished and its weights are saved.
    """

    stage: str
    step: int
    seconds: float
    share: float
    losses: Mapping[str, float]
    metrics: Mapping[str, float] = field(default_factory=dict[str, float])
    done: bool = False

    def progress(self) -> Progress:
        """Event with this record; `done` counts the share of the budget."""
        return Progress(self.stage, self.share, 1.0, payload=self)

    def line(self) -> str:
        """Formats the record as a line for a log."""
        head = f"{self.stage} {self.share:6.1%}  step {self.step}  {self.seconds / 60:.1f} min"
        losses = "  ".join(f"{name} {value:.4f}" for name, value in self.losses.items())
        metrics = "  ".join(f"{name} {value:.3f}" for name, value in self.metrics.items())
        return "  ".join(text for text in (head, losses, metrics and f"| {metrics}") if text)


@dataclass(frozen=True)
class Budget:
    """Duration of a stage: `minutes` of its steps' own time, unless `steps` is given."""

    minutes: float = 1.0
    steps: int | None = None

    def share(self, step: int, seconds: float) -> float:
        """Share of the budget used, in [0,1]."""
        return min(1.0, step / self.steps if self.steps is not None else seconds / (60 * self.minutes))


@dataclass(frozen=True)
class Optimisation:
    """Settings of the two optimizers and the moving average.

    Attributes:
        matrix_rate: learning rate of Muon, for weight matrices; 0 to use AdamW for them too.
        rate: learning rate of AdamW, for all other parameters.
        weight_decay: weight decay of both optimizers, without biases and norms.
        warm_up: share of the budget in which the learning rates rise.
        average: decay of the moving average of the weights; 0 for no average.
        clip: largest norm of the gradient.
    """

    matrix_rate: float = 2e-3
    rate: float = 1e-3
    weight_decay: float = 0.1
    warm_up: float = 0.02
    average: float = 0.998
    clip: float = 1.0


StepFunction = Callable[[int, float, torch.Generator], dict[str, Tensor]]
"""(step, share, generator) -> losses; the entry "loss" is differentiated."""


def rate_factor(share: float, warm_up: float) -> float:
    """Factor of the learning rate: warm-up, then a half cosine down to zero."""
    if share < warm_up:
        return (share + 1e-3) / (warm_up + 1e-3)
    return 0.5 * (1 + math.cos(math.pi * (share - warm_up) / (1 - warm_up)))


def make_optimizers(model: nn.Module, settings: Optimisation) -> dict[str, torch.optim.Optimizer]:
    """Makes the optimizers by name: Muon for weight matrices, AdamW for all other parameters."""
    matrices, rest = split_parameters(model.named_parameters())
    plain = [parameter for parameter in rest if parameter.ndim < 2]
    tables = [parameter for parameter in rest if parameter.ndim >= 2]
    optimizers: dict[str, torch.optim.Optimizer] = {}
    if settings.matrix_rate > 0 and matrices:
        optimizers["muon"] = torch.optim.Muon(
            matrices, lr=settings.matrix_rate, weight_decay=settings.weight_decay, adjust_lr_fn="match_rms_adamw"
        )
    else:
        tables = [*tables, *matrices]
    groups = [
        {"params": tables, "weight_decay": settings.weight_decay},
        {"params": plain, "weight_decay": 0.0},
    ]
    groups = [group for group in groups if group["params"]]
    if groups:
        optimizers["adamw"] = torch.optim.AdamW(groups, lr=settings.rate, betas=(0.9, 0.98), fused=True)
    return optimizers


def autocast(device: torch.device) -> AbstractContextManager[None]:
    """Context of bfloat16 autocast on a device, in which encoders and decoders of the package may be called too."""
    return mixed_precision(device)


def step_generator(seed: int, step: int) -> torch.Generator:
    """CPU generator of a step."""
    return torch.Generator().manual_seed(seed * 1_000_003 + step)


def workers_of_group() -> tuple[int, int]:
    """Rank of this worker and number of workers; (0, 1) outside a process group."""
    return (distributed.get_rank(), distributed.get_world_size()) if distributed.is_initialized() else (0, 1)


def _agree(share: float) -> float:
    """Broadcasts the first worker's share of the budget, so that all workers step and stop together."""
    if not distributed.is_initialized():
        return share
    box = torch.tensor([share], dtype=torch.float64)
    distributed.broadcast(box, src=0)
    return float(box)


def _average_gradients(parameters: list[nn.Parameter]) -> None:
    """Averages the workers' gradients, sent as one flat tensor."""
    if not distributed.is_initialized():
        return
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    flat = torch.cat([gradient.flatten() for gradient in gradients])
    distributed.all_reduce(flat)
    flat /= distributed.get_world_size()
    for gradient, mean in zip(gradients, flat.split([gradient.numel() for gradient in gradients]), strict=True):
        gradient.copy_(mean.view_as(gradient))


def run_stage(
    name: str,
    model: nn.Module,
    step_function: StepFunction,
    folder: Path,
    budget: Budget,
    settings: Optimisation,
    *,
    seed: int = 0,
    resume: bool = False,
    measure: Callable[[], Mapping[str, float]] | None = None,
    measure_seconds: float = 180.0,
    report_seconds: float = 15.0,
    checkpoint_seconds: float = 45.0,
) -> Iterator[Progress]:
    """Trains a model; the payload of every event is a `StageRecord`. At the end the model has the averaged weights.

    Args:
        name: name of the stage; its files are `<name>.checkpoint.safetensors` and `<name>.safetensors`.
        model: module with all trained parameters, on its device.
        step_function: computes the losses of a step.
        folder: folder of the files.
        budget: duration of the stage.
        settings: settings of the optimizers.
        seed: seed of all random numbers, different for each worker.
        resume: True to continue from the checkpoint if there is one.
        measure: computes held-out metrics; called while the model has the averaged weights.
        measure_seconds: time of steps between measurements.
        report_seconds: time between records.
        checkpoint_seconds: time between checkpoints.

    In a process group every worker runs the same stage on its share of the batch; the first worker reports and saves.

    Raises:
        SteerlensError: if a loss is not finite.
    """
    first = workers_of_group()[0] == 0
    optimizers = make_optimizers(model, settings)
    ema = Ema(model, settings.average) if settings.average > 0 else None
    path, final = folder / f"{name}.checkpoint.safetensors", folder / f"{name}.safetensors"
    step, before = 0, 0.0
    if resume and path.exists():
        tensors, facts = load_checkpoint(path)
        model.load_state_dict(part("model", tensors), strict=True)
        for key, optimizer in optimizers.items():
            restore_optimizer(optimizer, part(key, tensors))
        if ema is not None:
            ema.shadow = {key: value.to(ema.shadow[key].device) for key, value in part("ema", tensors).items()}
            ema.steps = int(facts["ema_steps"])
        step, before = int(facts["step"]), float(facts["seconds"])
    clock = StepClock(before)

    def save() -> None:
        tensors = prefixed("model", model.state_dict())
        for key, optimizer in optimizers.items():
            tensors |= prefixed(key, optimizer_tensors(optimizer))
        if ema is not None:
            tensors |= prefixed("ema", ema.shadow)
        steps = ema.steps if ema is not None else 0
        save_checkpoint(path, tensors, {"step": step, "seconds": clock.seconds, "ema_steps": steps})

    def measured() -> Mapping[str, float]:
        if measure is None:
            return {}
        raw = {key: value.detach().clone() for key, value in model.named_parameters()}
        if ema is not None:
            ema.copy_to(model)
        model.eval()
        with torch.inference_mode():
            metrics = measure()
        model.train()
        with torch.no_grad():
            for key, value in model.named_parameters():
                value.copy_(raw[key])
        return metrics

    model.train()
    base = {key: [group["lr"] for group in optimizer.param_groups] for key, optimizer in optimizers.items()}
    parameters = list(model.parameters())
    sums: dict[str, float] = {}
    counted, measured_at = 0, clock.seconds
    reported = saved = time.monotonic()
    while (share := _agree(budget.share(step, clock.seconds))) < 1:
        clock.begin()
        factor = rate_factor(share, settings.warm_up)
        for key, optimizer in optimizers.items():
            for group, rate in zip(optimizer.param_groups, base[key], strict=True):
                group["lr"] = rate * factor
        losses = step_function(step, share, step_generator(seed, step))
        losses["loss"].backward()
        _average_gradients(parameters)
        nn.utils.clip_grad_norm_(parameters, settings.clip)
        for optimizer in optimizers.values():
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        if ema is not None:
            ema.update(model)
        step, counted = step + 1, counted + 1
        for key, value in losses.items():
            sums[key] = sums.get(key, 0.0) + float(value.detach())
        if not math.isfinite(sums["loss"]):
            raise SteerlensError(f"the loss of {name} is not finite at step {step}: lower the learning rate.")
        clock.end()
        now = time.monotonic()
        if not first:
            continue
        if now - saved >= checkpoint_seconds:
            save()
            saved = now
        if now - reported >= report_seconds or step == 1:
            means = {key: value / counted for key, value in sums.items()}
            metrics: Mapping[str, float] = {}
            if clock.seconds - measured_at >= measure_seconds:
                metrics, measured_at = measured(), clock.seconds
            yield StageRecord(name, step, clock.seconds, share, means, metrics).progress()
            sums, counted, reported = {}, 0, time.monotonic()
    if not first:
        return
    save()
    metrics = measured()
    if ema is not None:
        ema.copy_to(model)
    model.eval()
    save_checkpoint(final, model.state_dict(), {"step": step, "seconds": clock.seconds})
    means = {key: value / max(counted, 1) for key, value in sums.items()}
    yield StageRecord(name, step, clock.seconds, 1.0, means, metrics, done=True).progress()
