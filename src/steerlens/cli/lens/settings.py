"""Options of `steerlens lens`, in the groups in which they are used. Imports nothing heavy, so that --help is quick."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields, is_dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from steerlens.sweep.options import LookOptions
from steerlens.sweep.ray.cluster import Workers

if TYPE_CHECKING:
    from steerlens.lenses.components import Direction
    from steerlens.zoo.pair import Pair


@dataclass(frozen=True)
class ModelSettings:
    """The models of a run: encoder and decoder, where to find them and where to run them."""

    model: str = "emoji"
    """Which pair of encoder and decoder: emoji (bundled), kandinsky-2.2 (the paper's), or a folder that holds one."""

    encoder: str | None = None
    """Another encoder: a hub id or a folder. Its embedding must be of the size that the decoder reads."""

    local: Path | None = None
    """A folder that holds the model's files in the hub's layout, in place of a download."""

    neighbours: Path | None = None
    """An index of pictures (steerlens neighbours index) in place of a decoder: every embedding is shown as the nearest
    of them. An encoder without a decoder takes ./neighbours-index or ENCODER/neighbours-index if it made it."""

    device: str | None = None
    """Where to run: cpu, cuda, cuda:1, mps. Default: CUDA if it is there, else the CPU."""

    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """Precision of the models' weights."""

    local_files_only: bool = False
    """Never ask the hub; use what is on this machine."""

    def load(self) -> "Pair":
        """The pair, loaded and checked."""
        from steerlens.loading import load

        return load(
            self.model,
            device=self.device,
            dtype=self.dtype,
            local=self.local,
            local_files_only=self.local_files_only,
            encoder=self.encoder,
            neighbours=self.neighbours,
        )

    def absolute(self) -> "ModelSettings":
        """The same models, whatever folder a worker runs in."""
        values = {name: getattr(self, name) for name in ("model", "encoder", "local", "neighbours")}
        paths = {name: Path(value) for name, value in values.items() if value is not None and Path(value).exists()}
        return replace(self, **{name: type(values[name])(path.absolute()) for name, path in paths.items()})


@dataclass(frozen=True)
class LookSettings(LookOptions):
    """Options of the sweep, under the names of the command line."""

    lenses: Annotated[tuple[Literal["diffusion", "steering"], ...], tyro.conf.arg(name="lens")] = (
        "diffusion",
        "steering",
    )
    """Which lenses decode. The Logit Lens is always read where there is a vocabulary."""

    n_seeds: Annotated[int, tyro.conf.arg(name="seeds")] = 1
    """How many seeds, counted up from the first. With two or more, the report says how far they agree."""

    n_labels: Annotated[int, tyro.conf.arg(name="labels")] = 5
    """Logit Lens labels kept for every site."""

    cache: Annotated[bool, tyro.conf.arg(help_behavior_hint="(default: False)")] = True
    """Trace every picture anew. Traces are kept from run to run otherwise; see `steerlens cache`."""


@dataclass(frozen=True)
class NamedSites:
    """Sites that the user names: directions from a file, groups and regions."""

    vector: Path | None = None
    """A safetensors file with directions of the residual stream, each a tensor (width,): a probe, a neuron, a feature.
    They are steered along like a head's write, and shown as vector.NAME."""

    group: tyro.conf.UseAppendAction[tuple[str, ...]] = ()
    """Several components steered as one, NAME=SITES, for example late=head.6-7.*,mlp_out.7; may be given repeatedly."""

    region: tyro.conf.UseAppendAction[tuple[str, ...]] = ()
    """What heads took from a part of the picture, [NAME=]HEADS:REGION, for example L7H3:8,8,40,40. A region is
    left,top,right,bottom in pixels of what the encoder sees, patches=ROWS,COLUMNS (patches=2-4,0-3), a mask picture's
    file name, cls (class token and registers), or outside=REGION. May be given repeatedly. It names what is READ FROM;
    the tokens that are written to are --tokens."""

    def directions(self, n_layers: int, n_heads: int, width: int | None = None) -> "Mapping[str, Direction]":
        """The named directions, groups and regions, for an encoder of these sizes.

        Raises:
            UsageError: if a file, a site or a region makes no sense.
        """
        from steerlens.lenses.components import load_directions, named_components

        given = {} if self.vector is None else load_directions(self.vector, width)
        return {**given, **named_components(self.group, self.region, n_layers, n_heads, taken=given)}


@dataclass(frozen=True)
class WorkerSettings(Workers):
    """Workers of Ray, under the names of the command line."""

    address: str | None = None
    """With --engine ray: the address of a running cluster, or auto. Default: Ray is started here and stopped again.
    Models given as folders must be there on every machine."""

    count: Annotated[int | None, tyro.conf.arg(name="workers")] = None
    """With --engine ray: how many workers, each with the model. Default: one a GPU, or one a CPU core without any."""

    cpus: Annotated[int, tyro.conf.arg(name="worker-cpus")] = 1
    """With --engine ray: CPU cores, and threads, of a worker."""

    gpus: Annotated[float | None, tyro.conf.arg(name="worker-gpus")] = None
    """With --engine ray: GPUs of a worker, or a share of one. Default: one where the cluster has any."""


@dataclass(frozen=True)
class LensSettings:
    """Options that `lens` and `demo` share."""

    models: Annotated[ModelSettings, tyro.conf.arg(name="")] = field(default_factory=ModelSettings)

    look: Annotated[LookSettings, tyro.conf.arg(name="")] = field(default_factory=LookSettings)

    target: str | None = None
    """What pictures are compared with: a text or a picture file. Default: each input itself."""

    named: Annotated[NamedSites, tyro.conf.arg(name="")] = field(default_factory=NamedSites)

    vocabulary: Path | None = None
    """What the Logit Lens names things with: a text file with one text a line, or a folder with vocabulary.json and
    vocabulary.safetensors (text embeddings or class weights). Default: the model's own, if it has one."""

    compile: Literal["auto", "yes", "no"] = "auto"
    """Whether the denoising network is compiled first, which takes minutes and pays for many pictures on a GPU.
    Default: on CUDA, for 500 pictures or more."""

    engine: Literal["local", "ray"] = "local"
    """What carries the work out: this process, or workers of Ray on this machine or a cluster (extra `ray`)."""

    workers: Annotated[WorkerSettings, tyro.conf.arg(name="")] = field(default_factory=WorkerSettings)

    json: bool = False
    """Print the result as JSON on standard output, and nothing else."""

    def marked(self) -> str:
        """The options that decide what a run holds, as version 0.1.0 wrote them; empty for the defaults.

        Default names of run folders hash this text, so that a command finds the run that an earlier version began.
        """
        values, defaults = _by_flag(self), _by_flag(LensSettings())
        text = ", ".join(
            f"{name}={(defaults if name in _UNMARKED else values)[name]!r}" if name != "model" else "model=''"
            for name in _MARKED
        )
        changed = any(values[name] != defaults[name] for name in values if name not in _UNMARKED)
        return f"LensSettings({text})" if changed else ""


_MARKED = (
    *("model", "encoder", "local", "neighbours", "sites", "strength", "target", "vector", "group", "region", "tokens"),
    *("vocabulary", "lens", "decode", "seed", "seeds", "controls", "steps", "guidance", "guidance_interval"),
    *("scheduler", "preview", "batch_size", "labels", "device", "dtype", "local_files_only", "compile", "engine"),
    *("address", "workers", "worker_cpus", "worker_gpus", "no_cache", "json"),
)
"""Flags in the order of version 0.1.0."""

_UNMARKED = frozenset(
    {"model", "device", "batch_size", "local_files_only", "compile", "engine", "address", "workers", "worker_cpus"}
    | {"worker_gpus", "no_cache", "json"}
)
"""Flags that do not decide what a run holds, and the model, which the folder's name states itself."""

_FLAGS = {"lenses": "lens", "n_seeds": "seeds", "n_labels": "labels", "count": "workers"} | {
    "cpus": "worker_cpus",
    "gpus": "worker_gpus",
}


def _by_flag(settings: Any) -> dict[str, Any]:
    return dict(_flags_of(settings))


def _flags_of(settings: Any) -> Iterator[tuple[str, Any]]:
    for part in fields(settings):
        value = getattr(settings, part.name)
        if is_dataclass(value):
            yield from _flags_of(value)
        elif part.name == "cache":
            yield "no_cache", not value
        else:
            yield _FLAGS.get(part.name, part.name), value
