"""Engines of `steerlens lens`: this process or workers of Ray, with the bar that shows their progress."""

from dataclasses import replace
from functools import partial

import torch

from steerlens.cli.console import ProgressBar
from steerlens.cli.lens.settings import LensSettings, WorkerSettings
from steerlens.decoders.diffusion import DiffusionDecoder
from steerlens.errors import UsageError
from steerlens.progress import Progress
from steerlens.sweep.engine import run
from steerlens.sweep.look import Engine, ray_engine
from steerlens.zoo.pair import Pair

_MANY_PICTURES = 500
"""Pictures for which the minutes that compiling takes are won back on a GPU."""


def load_pair(settings: LensSettings) -> Pair:
    """The pair that the settings name, loaded and checked, and compiled if they say so."""
    pair = settings.models.load()
    if settings.compile == "yes":
        compile_decoder(pair)
    return pair


def engine_of(settings: LensSettings) -> Engine:
    """The engine that the settings name.

    Raises:
        UsageError: if workers are described and the local engine is named, or no cluster answers.
    """
    if settings.engine == "ray":
        there = replace(settings, models=settings.models.absolute())
        return ray_engine(settings.workers, partial(load_pair, there))
    if settings.workers != WorkerSettings():
        raise UsageError("workers and their address go with --engine ray.")
    return run


def compile_decoder(pair: Pair) -> None:
    """Compiles a pair's decoder for many pictures.

    Raises:
        UsageError: if it denoises nothing that could be compiled.
    """
    if not isinstance(pair.decoder, DiffusionDecoder):
        raise UsageError(f"{pair.decoder.spec.name} denoises nothing: there is no network to compile; leave --compile.")
    pair.decoder.compile()


def pays_to_compile(settings: LensSettings, pair: Pair, pictures: int) -> bool:
    """Whether compiling is left open (`auto`) and so many pictures on this device win its minutes back."""
    many = settings.compile == "auto" and settings.engine == "local" and pictures >= _MANY_PICTURES
    return many and isinstance(pair.decoder, DiffusionDecoder) and pair.decoder.device.type == "cuda"


def leave_the_gpu(pair: Pair) -> None:
    """Moves a pair to the host when workers of Ray decode: on a GPU it would take the memory of one of them."""
    for part in (pair.encoder, pair.decoder):
        for value in vars(part).values():
            if isinstance(value, torch.nn.Module):
                value.to("cpu")
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


class SweepBar:
    """One bar for a whole sweep: pictures decoded, of how many, and the stage under way.

    Attributes:
        begun: whether there was anything to do.
    """

    def __init__(self, progress: ProgressBar) -> None:
        self._progress = progress
        self._done, self._total = 0.0, 0
        self.begun = False

    def show(self, event: Progress) -> None:
        """Shows one event of an engine."""
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
