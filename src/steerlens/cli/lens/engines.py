"""Engines of `steerlens lens`: this process or Ray workers, and the bar that shows their progress."""

from dataclasses import replace
from functools import partial

import torch

from steerlens.cli.console import ProgressBar
from steerlens.cli.lens.settings import LensSettings
from steerlens.decoders import DiffusionDecoder
from steerlens.errors import UsageError
from steerlens.progress import Progress
from steerlens.sweep import Engine, ray_engine, run
from steerlens.zoo import Pair

_MANY_PICTURES = 500
"""Number of pictures from which compiling, which takes minutes, saves time on a GPU."""


def load_pair(settings: LensSettings) -> Pair:
    """Loads and checks the pair that the settings name, and compiles it if they request it."""
    pair = settings.models.load()
    if settings.decoding.compile == "yes":
        compile_decoder(pair)
    return pair


def engine_of(settings: LensSettings) -> Engine:
    """Engine that the settings name.

    Raises:
        UsageError: if there are options of workers but the engine is local, or if no cluster answers.
    """
    if settings.workers.engine == "ray":
        on_worker = replace(settings, models=settings.models.absolute())
        return ray_engine(settings.workers, partial(load_pair, on_worker))
    settings.workers.refuse_unused()
    return run


def compile_decoder(pair: Pair) -> None:
    """Compiles a pair's decoder for many pictures.

    Raises:
        UsageError: if it has no denoising network to compile.
    """
    if not isinstance(pair.decoder, DiffusionDecoder):
        raise UsageError(f"{pair.decoder.spec.name} has no denoising network to compile; leave out --compile.")
    pair.decoder.compile()


def pays_to_compile(settings: LensSettings, pair: Pair, pictures: int) -> bool:
    """True if `--compile auto` is set and compiling saves time for this many pictures on this device."""
    many = settings.decoding.compile == "auto" and settings.workers.engine == "local" and pictures >= _MANY_PICTURES
    return many and isinstance(pair.decoder, DiffusionDecoder) and pair.decoder.device.type == "cuda"


def leave_the_gpu(pair: Pair) -> None:
    """Moves a pair to the host while Ray workers decode: on a GPU it would take memory that a worker needs."""
    for part in (pair.encoder, pair.decoder):
        for value in vars(part).values():
            if isinstance(value, torch.nn.Module):
                value.to("cpu")
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


class SweepBar:
    """Progress bar of a whole sweep: decoded pictures, their total, and the current stage.

    Attributes:
        begun: True if there was anything to do.
    """

    def __init__(self, progress: ProgressBar) -> None:
        self._progress = progress
        self._done, self._total = 0.0, 0
        self.begun = False

    def show(self, event: Progress) -> None:
        """Shows an event of an engine."""
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
