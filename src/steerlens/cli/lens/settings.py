"""Options of `steerlens lens`, grouped by use. Imports nothing heavy, so that --help is quick."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields, is_dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from steerlens.sweep import DecodingOptions, LensOptions, LookOptions, SiteOptions
from steerlens.sweep.options import DEFAULT_SITES, SAE_SITES
from steerlens.sweep.ray.cluster import Workers

if TYPE_CHECKING:
    from steerlens.lenses import Direction
    from steerlens.saes import SparseAutoencoder
    from steerlens.zoo import Pair


@dataclass(frozen=True)
class ModelSettings:
    """Encoder and decoder, their files and their device."""

    model: str = "emoji"
    """Pair of encoder and decoder: emoji (bundled), kandinsky-2.2 (the paper's), or a folder with a pair."""

    encoder: str | None = None
    """Another encoder: a hub id, a folder, open_clip:NAME/TAG or timm:NAME. Its embedding must have the size that the
    decoder reads. With ?shape=WIDTHxHEIGHT after it, a model of pictures of any shape (NaFlex) sees that shape."""

    local: Path | None = None
    """Folder with the model's files in the hub's layout, to use instead of a download."""

    neighbours: Path | None = None
    """Index of pictures (steerlens neighbours index) to use instead of a decoder: each embedding is shown as the
    nearest picture. Default for an encoder without a decoder: ./neighbours-index or ENCODER/neighbours-index, if made
    with that encoder."""

    device: str | None = None
    """Device: cpu, cuda, cuda:1, mps. Default: CUDA if available, else the CPU."""

    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """Precision of the models' weights."""

    precision: Literal["fp8", "int8"] | None = None
    """Storage of the weights of the decoder's denoising network in 8 bits, to fit a smaller GPU; the encoder keeps its
    precision. Default: as computed with (--dtype)."""

    offload: bool = False
    """Keep the decoder's weights in the host's memory; each layer's go to the GPU only while it runs, which is slow."""

    local_files_only: bool = False
    """Never access the hub; use only files on this machine."""

    def load(self) -> "Pair":
        """Loads and checks the pair."""
        from steerlens.loading import load

        return load(
            self.model,
            device=self.device,
            dtype=self.dtype,
            local=self.local,
            local_files_only=self.local_files_only,
            encoder=self.encoder,
            neighbours=self.neighbours,
            precision=self.precision,
            offload=self.offload,
        )

    def absolute(self) -> "ModelSettings":
        """Same models with absolute paths, for workers that run in another folder."""
        values = {name: getattr(self, name) for name in ("model", "encoder", "local", "neighbours")}
        paths = {name: Path(value) for name, value in values.items() if value is not None and Path(value).exists()}
        return replace(self, **{name: type(values[name])(path.absolute()) for name, path in paths.items()})


@dataclass(frozen=True)
class SiteSettings(SiteOptions):
    """What to look at, and what to compare it with."""

    target: str | None = None
    """Text or picture file that pictures are compared with. Default: each input itself."""

    vocabulary: Path | None = None
    """Labels for the Logit Lens: a text file with a text per line, or a folder with vocabulary.json and
    vocabulary.safetensors (text embeddings or class weights). Default: the model's own, if it has any."""

    vector: Path | None = None
    """Safetensors file with directions in the residual stream, each a tensor (width,): a probe, a neuron, a feature.
    Each is steered along like a head's write, and shown as vector.NAME."""

    group: tyro.conf.UseAppendAction[tuple[str, ...]] = ()
    """Components to steer together, NAME=SITES, for example late=head.6-7.*,mlp_out.7. Can be repeated."""

    region: tyro.conf.UseAppendAction[tuple[str, ...]] = ()
    """Part of the picture that heads READ FROM, [NAME=]HEADS:REGION, for example L7H3:8,8,40,40. A region is
    left,top,right,bottom in pixels of the encoder's view, patches=ROWS,COLUMNS (patches=2-4,0-3), the file of a mask
    picture, cls (class token and registers), or outside=REGION. Can be repeated. For the tokens that the Steering Lens
    WRITES TO, see --tokens."""

    sae: tyro.conf.UseAppendAction[tuple[str, ...]] = ()
    """Sparse autoencoder whose features are looked at, [NAME=]FOLDER: of SAELens, ViT-Prisma, saev or Overcomplete, or
    a safetensors file with W_enc, W_dec, b_enc, b_dec. Its features are feature.NAME.0, feature.NAME.1 and so on. Can
    be repeated."""

    sae_site: str | None = None
    """Where the --sae reads, if its files do not say: resid_post.8, blocks.8.hook_resid_post, head.8.3, or embedding
    for one of image embeddings."""

    sae_activation: str | None = None
    """Activation of the --sae, if its files do not say: relu, top_k:32 or batch_top_k:THRESHOLD."""

    sae_apply_b_dec: bool = False
    """Subtract the decoder's bias from the input of the --sae, if its files do not say. Tensors alone never do; the fit
    tells whether training did."""

    def saes(self) -> "tuple[SparseAutoencoder, ...]":
        """Reads the sparse autoencoders.

        Raises:
            UsageError: if there is no such file, or two have one name.
            ModelError: if one cannot be read.
        """
        from steerlens.errors import UsageError
        from steerlens.saes import load_sae

        if not self.sae and (self.sae_site or self.sae_activation or self.sae_apply_b_dec):
            raise UsageError(
                "--sae-site, --sae-activation and --sae-apply-b-dec describe a sparse autoencoder: give --sae too."
            )
        read: dict[str, SparseAutoencoder] = {}
        for text in self.sae:
            name, equals, path = text.partition("=")
            if not equals or Path(text).exists():
                name, path = "", text
            sae = load_sae(
                path,
                name=name or None,
                site=self.sae_site,
                activation=self.sae_activation,
                apply_b_dec_to_input=self.sae_apply_b_dec or None,
            )
            if sae.name in read:
                raise UsageError(f"two sparse autoencoders are called {sae.name!r}: name one, --sae NAME={path}.")
            read[sae.name] = sae
        return tuple(read.values())

    def directions(self, n_layers: int, n_heads: int, width: int | None = None) -> "Mapping[str, Direction]":
        """Directions, groups and regions by name, for an encoder of these sizes.

        Raises:
            UsageError: if a file, a site or a region is not valid.
        """
        from steerlens.lenses import load_directions, named_components

        vectors = {} if self.vector is None else load_directions(self.vector, width)
        return {**vectors, **named_components(self.group, self.region, n_layers, n_heads, taken=vectors)}


@dataclass(frozen=True)
class LensChoice(LensOptions):
    """Lenses, how hard they steer, and how many controls and labels there are."""

    lenses: Annotated[tuple[Literal["diffusion", "steering"], ...], tyro.conf.arg(name="lens")] = (
        "diffusion",
        "steering",
    )
    """Lenses whose pictures are decoded. The Logit Lens always runs if the model has a vocabulary."""

    effect: tyro.conf.UseAppendAction[tuple[str, ...]] = ()
    """Effect of steering a site: direct, its own write into the final residual, everything after it frozen; total, the
    site scaled in the real forward pass, everything after it reacting, with a picture of its ablation and the effect
    of ablating every head, decoded or not; or direct,total to see both side by side. Default: direct."""

    n_labels: Annotated[int, tyro.conf.arg(name="labels")] = 5
    """Number of Logit Lens labels for every site."""


@dataclass(frozen=True)
class DecodingSettings(DecodingOptions):
    """Sites to decode, and how to decode them."""

    n_seeds: Annotated[int, tyro.conf.arg(name="seeds")] = 1
    """Number of seeds, counting up from the first. With two or more, the report shows how well they agree."""

    compile: Literal["auto", "yes", "no"] = "auto"
    """Compile the denoising network first, which takes minutes and saves time for many pictures on a GPU. auto:
    on CUDA, for 500 pictures or more."""

    cache: bool = True
    """Trace every picture again. By default, traces of earlier runs are reused; see `steerlens cache`."""


@dataclass(frozen=True)
class CardSettings:
    """Cards of the best heads: a contrast pair, real pictures along the change, and names gained and lost."""

    bank: Path | None = None
    """Index of real pictures by the same encoder (steerlens neighbours index). With it, the report has a card for the
    best heads of each input: the input steered along the head's write and against it, with its mean over the index
    taken out; real pictures near only one of both; names gained and lost; and how far each was measured to be true."""

    cards: int = 6
    """Heads of each input with a card, those that the Steering Lens ranks first; needs --bank."""

    studies: Path | None = None
    """Folder of finished studies of this model (steerlens study lenses, identification), whose figures the cards show.
    Default: the figures that come with steerlens for its own models."""

    def check(self) -> None:
        """Refuses options that have no effect or make no sense.

        Raises:
            UsageError: if there is one.
        """
        from steerlens.errors import UsageError

        if self.bank is None and (self.cards != CardSettings().cards or self.studies is not None):
            raise UsageError("--cards and --studies: no effect, because cards need real pictures: give --bank INDEX.")
        if self.cards < 1:
            raise UsageError(f"--cards {self.cards}: at least one head gets a card; leave --bank out for none.")

    def pictures(self, inputs: int) -> int:
        """Number of pictures to decode for the cards of some inputs, at most."""
        return 0 if self.bank is None else 2 * self.cards * inputs


@dataclass(frozen=True)
class WorkerSettings(Workers):
    """Where the run computes: in this process, or on Ray workers."""

    engine: Literal["local", "ray"] = "local"
    """Engine: this process, or Ray workers on this machine or a cluster (extra `ray`)."""

    address: str | None = None
    """With --engine ray: address of a running cluster, or auto. Default: start Ray on this machine for this run only.
    Folders of models must exist on every machine."""

    count: Annotated[int | None, tyro.conf.arg(name="workers")] = None
    """With --engine ray: number of workers, each with the model. Default: one per GPU, or per CPU core without GPUs."""

    cpus: Annotated[int, tyro.conf.arg(name="worker-cpus")] = 1
    """With --engine ray: CPU cores, and threads, of each worker."""

    gpus: Annotated[float | None, tyro.conf.arg(name="worker-gpus")] = None
    """With --engine ray: GPUs of each worker, or a fraction of a GPU. Default: 1 if the cluster has GPUs, else 0."""

    def refuse_unused(self) -> None:
        """Refuses options of workers where there are none.

        Raises:
            UsageError: if there is any, naming all.
        """
        from steerlens.errors import UsageError

        flags = {"address": "--address", "count": "--workers", "cpus": "--worker-cpus", "gpus": "--worker-gpus"}
        defaults = WorkerSettings()
        given = [flag for name, flag in flags.items() if getattr(self, name) != getattr(defaults, name)]
        if self.engine == "local" and given:
            raise UsageError(f"{', '.join(given)}: no effect, because workers need --engine ray.")


@dataclass(frozen=True)
class LensSettings:
    """Options that `lens` and `demo` share, in the groups that the help shows."""

    models: Annotated[ModelSettings, tyro.conf.arg(name="model")] = field(default_factory=ModelSettings)

    sites: Annotated[SiteSettings, tyro.conf.arg(name="site")] = field(default_factory=SiteSettings)

    lens: Annotated[LensChoice, tyro.conf.arg(name="lens")] = field(default_factory=LensChoice)

    decoding: Annotated[DecodingSettings, tyro.conf.arg(name="decoding")] = field(default_factory=DecodingSettings)

    head_cards: Annotated[CardSettings, tyro.conf.arg(name="cards-of-heads")] = field(default_factory=CardSettings)

    workers: Annotated[WorkerSettings, tyro.conf.arg(name="cluster")] = field(default_factory=WorkerSettings)

    json: bool = False
    """Print the result as JSON on standard output, and nothing else."""

    @property
    def look(self) -> LookOptions:
        """Options of the sweep."""
        groups = (self.sites, self.lens, self.decoding)
        names = {part.name for part in fields(LookOptions)}
        look = LookOptions(
            **{part.name: getattr(group, part.name) for group in groups for part in fields(group) if part.name in names}
        )
        return replace(look, sites=SAE_SITES) if self.sites.sae and look.sites == DEFAULT_SITES else look

    def words(self) -> tuple[str, ...]:
        """Options other than the defaults, as words of a command line that give these settings again."""
        values, defaults = _by_flag(self), _by_flag(LensSettings())
        changed = {name: value for name, value in values.items() if value != defaults[name] and name != "json"}
        return tuple(word for name, value in changed.items() for word in _option(name, value))

    def marked(self) -> str:
        """Options that decide a run's results, as version 0.1.0 wrote them; empty for the defaults.

        Default names of run folders hash this text, so that a command finds a run that an earlier version started.
        """
        values, defaults = _by_flag(self), _by_flag(LensSettings())
        text = ", ".join(
            f"{name}={(defaults if name in _UNMARKED else values)[name]!r}" if name != "model" else "model=''"
            for name in _MARKED
        )
        # Later options are named only where they are used, so that other commands keep their folders.
        later = {name: value for name, value in values.items() if name not in (*_MARKED, *_UNMARKED)}
        text += "".join(f", {name}={value!r}" for name, value in later.items() if value != defaults[name])
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
    | {"worker_gpus", "no_cache", "json", "offload", "bank", "cards", "studies"}
)
"""Flags that do not decide a run's results, of which cards of heads are no part, and the model, which the folder's name
contains anyway."""

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
        elif part.name == "effect":  # named at once or one by one
            yield "effect", ",".join(value)
        elif part.name == "cache":
            yield "no_cache", not value
        else:
            yield _FLAGS.get(part.name, part.name), value


def _option(name: str, value: Any) -> Iterator[str]:
    """Words of an option: its flag and its values, or a flag before each value if it is one that is repeated."""
    flag = f"--{name.replace('_', '-')}"
    if name in ("group", "region", "sae"):
        for item in value:
            yield from (flag, str(item))
    elif isinstance(value, bool):
        yield flag
    elif isinstance(value, tuple):
        yield from (flag, *map(str, value))
    else:
        yield from (flag, str(value))
