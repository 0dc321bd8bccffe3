"""What carries a command's work out, as its settings say, this process or Ray's workers; and how it is shown."""

from dataclasses import replace
from functools import partial
from pathlib import Path

import torch

from steerlens.cli.console import ProgressBar
from steerlens.cli.lens.command import LensSettings, load_pair
from steerlens.decoders.diffusion import DiffusionDecoder
from steerlens.errors import UsageError
from steerlens.progress import Progress
from steerlens.sweep.engine import run
from steerlens.sweep.look import Engine, ray_engine
from steerlens.sweep.ray.engine import Workers
from steerlens.zoo.pair import Pair

_MANY_PICTURES = 500
"""Pictures for which the minutes that compiling takes are won back on a GPU."""


def engine_of(settings: LensSettings) -> Engine:
    """What carries the work out, as the settings say.

    Raises:
        UsageError: if workers are described and the local engine is asked for.
    """
    described = (settings.address, settings.workers, settings.worker_cpus, settings.worker_gpus)
    if settings.engine == "ray":
        return ray_engine(Workers(*described), partial(load_pair, _with_absolute_paths(settings)))
    if described != (None, None, 1, None):
        raise UsageError("workers and their address go with --engine ray.")
    return run


def _with_absolute_paths(settings: LensSettings) -> LensSettings:
    """The same models, whatever folder a worker runs in."""
    held = {name: getattr(settings, name) for name in ("model", "encoder", "local", "neighbours")}
    found = {name: Path(value) for name, value in held.items() if value is not None and Path(value).exists()}
    return replace(settings, **{name: type(held[name])(path.absolute()) for name, path in found.items()})


def compile_decoder(pair: Pair) -> None:
    """Compiles a pair's decoder for many pictures.

    Raises:
        UsageError: if it denoises nothing that could be compiled.
    """
    if not isinstance(pair.decoder, DiffusionDecoder):
        raise UsageError(f"{pair.decoder.spec.name} denoises nothing: there is no network to compile; leave --compile.")
    pair.decoder.compile()


def pays_to_compile(settings: LensSettings, pair: Pair, pictures: int) -> bool:
    """Whether the settings leave it open to compile, and so many pictures on this device win the minutes back."""
    many = settings.compile == "auto" and settings.engine == "local" and pictures >= _MANY_PICTURES
    return many and isinstance(pair.decoder, DiffusionDecoder) and pair.decoder.device.type == "cuda"


def leave_the_gpu(pair: Pair) -> None:
    """Moves a pair to the host once workers of Ray do its work: on a GPU it would take the room of one of them."""
    for part in (pair.encoder, pair.decoder):
        for held in vars(part).values():
            if isinstance(held, torch.nn.Module):
                held.to("cpu")
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


class Sweep:
    """Shows a sweep as one bar: pictures decoded, of how many, and what is being done just now.

    Attributes:
        begun: whether there was anything to do.
    """

    def __init__(self, progress: ProgressBar) -> None:
        self._progress = progress
        self._done, self._total = 0.0, 0
        self.begun = False

    def tell(self, event: Progress) -> None:
        """Shows what an engine tells."""
        pictures = event.stage in ("decoding", "re-encoding")
        if pictures:
            self._total = round(event.total)
        if not self.begun:
            self.begun = True
            self._progress.stage("decoding", self._total, unit="pictures")
        steps = max(event.done - self._done, 0.0) if pictures else 0.0
        self._done += steps
        count = "" if pictures else f" {event.done:.0f} of {event.total:.0f}"
        now = "" if event.stage == "decoding" else f"{event.stage}{count}"
        self._progress.advance(steps, total=self._total, now=now)
