"""What carries a command's work out, as its settings say: this process or Ray's workers, compiled or not."""

from dataclasses import replace
from functools import partial
from pathlib import Path

from steerlens.cli.lens import LensSettings, load_pair
from steerlens.decoders.diffusion import DiffusionDecoder
from steerlens.errors import UsageError
from steerlens.sweep.engine import run
from steerlens.sweep.look import Engine, ray_engine
from steerlens.sweep.ray_engine import Workers
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
