"""`steerlens lens`: look at pictures through every lens, and write a report."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from steerlens.cli.console import ProgressBar, emit_json, say

if TYPE_CHECKING:
    from steerlens.atlas.atlas import Atlas
    from steerlens.images import Picture
    from steerlens.lenses.components import Direction
    from steerlens.sweep.look import LookOptions
    from steerlens.zoo.pair import Pair


@dataclass(frozen=True)
class LensSettings:
    """What `lens` and `demo` share."""

    model: str = "emoji"
    """Which pair of encoder and decoder: emoji (bundled), kandinsky-2.2 (the paper's), or a folder that holds one."""

    encoder: str | None = None
    """Another encoder: a hub id or a folder. Its embedding must be of the size that the decoder reads."""

    local: Path | None = None
    """A folder that holds the model's files in the hub's layout, in place of a download."""

    neighbours: Path | None = None
    """An index of pictures (steerlens neighbours index) in place of a decoder: every embedding is shown as the nearest
    of them. An encoder without a decoder takes ./neighbours-index or ENCODER/neighbours-index if it made it."""

    sites: str = "resid_post,heads"
    """Where to look, comma-separated: heads, all, resid_pre, resid_mid, resid_post, attn_out, mlp_out, one site such
    as head.3.4 or L3H4, or a pattern such as head.8-11.* or mlp_out.3-5. Layers and heads are counted from 0."""

    strength: str | None = None
    """How hard the Steering Lens steers: s=40 multiplies what a head writes (s=1 is the clean run); rho=1 adds as much
    as the final residual itself, for every head alike. Default: what suits the model."""

    target: str | None = None
    """What pictures are compared with: a text or a picture file. Default: each input itself."""

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

    tokens: str = "all"
    """The tokens that the Steering Lens WRITES TO, for decoders that read image tokens (rae-dinov2, rae-mae,
    ip-adapter-plus-sd15): all; the number of one token, class token and registers first; or a part of the picture, as
    --region names it, for example 8,8,40,40 or patches=2-4,0-3. For what heads READ FROM, see --region."""

    vocabulary: Path | None = None
    """What the Logit Lens names things with: a text file with one text a line, or a folder with vocabulary.json and
    vocabulary.safetensors (text embeddings or class weights). Default: the model's own, if it has one."""

    lens: tuple[Literal["diffusion", "steering"], ...] = ("diffusion", "steering")
    """Which lenses decode. The Logit Lens is always read where there is a vocabulary."""

    decode: str = "all"
    """What is decoded: all; top:K, the K heads (or other writes) of every picture and lens whose embedding comes
    closest to the target without decoding; or above:X, those closer than a cosine of X. The residual stream always
    is decoded."""

    seed: int = 0
    """First seed of the decoder; the same for every picture, so that pictures differ by their site alone."""

    seeds: int = 1
    """How many seeds, counted up from the first. With two or more, the report says how far they agree."""

    controls: int = 1
    """Random directions steered as hard as each head, which a head has to beat; 0 for none."""

    steps: int | None = None
    """Denoising steps. Default: what suits the model."""

    guidance: float | None = None
    """Classifier-free guidance scale; 1 for none. Default: what suits the model."""

    guidance_interval: tuple[float, float] | None = None
    """Shares of the steps, from noise (0) to picture (1), between which there is guidance; steps outside cost half.
    For example 0 0.6. Default: all steps."""

    scheduler: Literal["ddpm", "ddim", "dpm++", "unipc", "pndm", "euler"] | None = None
    """The sampler. Default: what suits the model."""

    preview: bool = False
    """Show the colours of the latents and leave the autoencoder out, which at the paper's size costs as much as two
    passes of the network: blurred pictures, for a first look in a hurry. Rankings by them agree only in part with those
    by full pictures; docs/studies.md tells how far."""

    batch_size: int | None = None
    """Pictures decoded at once. Default: what suits the device."""

    labels: int = 5
    """Logit Lens labels kept for every site."""

    device: str | None = None
    """Where to run: cpu, cuda, cuda:1, mps. Default: CUDA if it is there, else the CPU."""

    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """Precision of the models' weights."""

    local_files_only: bool = False
    """Never ask the hub; use what is on this machine."""

    compile: Literal["auto", "yes", "no"] = "auto"
    """Whether the denoising network is compiled first, which takes minutes and pays for many pictures on a GPU.
    Default: on CUDA, for 500 pictures or more."""

    engine: Literal["local", "ray"] = "local"
    """What carries the work out: this process, or workers of Ray on this machine or a cluster (extra `ray`)."""

    address: str | None = None
    """With --engine ray: the address of a running cluster, or auto. Default: Ray is started here and stopped again.
    Models given as folders must be there on every machine."""

    workers: int | None = None
    """With --engine ray: how many workers, each with the model. Default: one a GPU, or one a CPU core without any."""

    worker_cpus: int = 1
    """With --engine ray: CPU cores, and threads, of a worker."""

    worker_gpus: float | None = None
    """With --engine ray: GPUs of a worker, or a share of one. Default: one where the cluster has any."""

    no_cache: bool = False
    """Trace every picture anew. Traces are kept from run to run otherwise; see `steerlens cache`."""

    json: bool = False
    """Print the result as JSON on standard output, and nothing else."""


@dataclass(frozen=True)
class Command:
    """Show what each layer and each attention head of a Vision Transformer writes into the image embedding.

    Writes a run directory: report.html (opens offline), figures as PNG and SVG, and the results as parquet and
    safetensors. The same command goes on with a run that was interrupted; --resume makes sure that there is one.

    Examples:
      steerlens lens cup.png
      steerlens lens cup.png --target "hot beverage" --strength rho=2
      steerlens lens *.jpg --model kandinsky-2.2 --sites "resid_post,head.30-47.*" --out atlas
      steerlens lens cup.png --region L7H3:8,8,40,40 --group "late=head.6-7.*,mlp_out.7"
      steerlens lens cup.png --dry-run
    """

    images: tyro.conf.Positional[tuple[Path, ...]]
    """The pictures to look at."""

    settings: Annotated[LensSettings, tyro.conf.arg(name="")] = field(default_factory=LensSettings)

    out: Path | None = None
    """The run directory. Default: steerlens-runs/PICTURE-MODEL in the current folder, with a mark behind it if any
    other option is given, so that the same command finds its run again and another does not meet it."""

    resume: bool = False
    """Go on with the run in --out, and refuse if there is none. Without it the same command goes on with its run as
    well, but begins one where there is none."""

    dry_run: bool = False
    """Print what would be done, and about how long it would take and how much memory and disk, and do nothing."""

    @property
    def folder(self) -> Path:
        """The run directory."""
        if self.out is not None:
            return self.out
        stem = self.images[0].stem.encode("utf-8", "replace").decode("utf-8")[:60]
        beside = replace(
            self.settings,
            model="",
            device=None,
            batch_size=None,
            local_files_only=False,
            no_cache=False,
            compile="auto",
            engine="local",
            address=None,
            workers=None,
            worker_cpus=1,
            worker_gpus=None,
            json=False,
        )
        asked = (*map(str, self.images[1:]), *([] if beside == LensSettings(model="") else [repr(beside)]))
        mark = f"-{hashlib.sha256(repr(asked).encode()).hexdigest()[:6]}" if asked else ""
        return Path("steerlens-runs") / f"{stem}-{Path(self.settings.model).name}{mark}"

    def interrupted(self) -> str:
        """What a stopped run leaves behind."""
        return "Nothing was written." if self.dry_run or not self.folder.exists() else kept(self.folder)

    def run(self) -> int:
        """Carries the command out and returns the exit code."""
        from steerlens.errors import UsageError
        from steerlens.images import load_pictures

        if not self.images:
            raise UsageError("no picture was given; try: steerlens lens PICTURE, or steerlens demo.")
        folder = self.folder
        if self.resume and not (folder / "manifest.json").is_file():
            raise UsageError(f"there is no run in {folder} to go on with; leave out --resume to begin one.")
        pictures = load_pictures(self.images)
        if self.dry_run:
            from steerlens.cli.lens.dry_run import dry_run

            return dry_run(self.settings, pictures, folder)
        return look_and_report(self.settings, pictures, folder)


def kept(folder: Path) -> str:
    """What a stopped run leaves behind, for the user."""
    return f"What was finished is kept in {folder}; the same command goes on from there."


def load_pair(settings: LensSettings) -> "Pair":
    """The pair that the settings name, loaded and checked, and compiled if they say so."""
    from steerlens.loading import load

    pair = load(
        settings.model,
        device=settings.device,
        dtype=settings.dtype,
        local=settings.local,
        local_files_only=settings.local_files_only,
        encoder=settings.encoder,
        neighbours=settings.neighbours,
    )
    if settings.compile == "yes":
        from steerlens.cli.lens.engines import compile_decoder

        compile_decoder(pair)
    return pair


def named_directions(
    settings: LensSettings, n_layers: int, n_heads: int, width: int | None = None
) -> "Mapping[str, Direction]":
    """What the user named: directions from a file, groups and regions, for an encoder of these sizes."""
    from steerlens.lenses.components import load_directions, named_components

    given = {} if settings.vector is None else load_directions(settings.vector, width)
    return {**given, **named_components(settings.group, settings.region, n_layers, n_heads, taken=given)}


def options_of(settings: LensSettings, directions: "Mapping[str, Direction]") -> "LookOptions":
    """What the settings ask for, as the engine takes it."""
    from steerlens.lenses.strength import Strength
    from steerlens.sweep.look import LookOptions

    return LookOptions(
        sites=settings.sites,
        strength=None if settings.strength is None else Strength.parse(settings.strength),
        seed=settings.seed,
        n_seeds=settings.seeds,
        controls=settings.controls,
        steps=settings.steps,
        guidance=settings.guidance,
        guidance_interval=settings.guidance_interval,
        scheduler=settings.scheduler,
        preview=settings.preview,
        batch_size=settings.batch_size,
        n_labels=settings.labels,
        lenses=settings.lens,
        directions=directions,
        tokens=settings.tokens,
        decode=settings.decode,
        cache=not settings.no_cache,
    )


def look_and_report(settings: LensSettings, pictures: "list[Picture]", folder: Path) -> int:
    """Runs the job with progress, writes the report, and says what was found."""
    from steerlens.cli.lens.engines import Sweep, compile_decoder, engine_of, leave_the_gpu, pays_to_compile
    from steerlens.progress import run_to_end
    from steerlens.report.html import write_report
    from steerlens.sweep.look import look_in, make_job
    from steerlens.zoo.vocabularies import read_vocabulary

    engine = engine_of(settings)
    for picture in pictures:
        if picture.note:
            say(f"{picture.name}: {picture.note}", quiet=settings.json)
    with ProgressBar(quiet=settings.json) as progress:
        progress.stage("loading", 1)
        pair = load_pair(settings)
        for note in pair.notes:
            progress.say(note)
        spec = pair.encoder.spec
        directions = named_directions(settings, spec.n_layers, spec.n_heads, spec.width)
        vocabulary = None if settings.vocabulary is None else read_vocabulary(settings.vocabulary, pair)
        job = make_job(pair, pictures, options_of(settings, directions), settings.target, vocabulary)
        if pays_to_compile(settings, pair, job.choice.at_most(job.plan.cells)):
            progress.say("compiling the denoising network, which takes a few minutes; --compile no leaves it")
            compile_decoder(pair)
        if job.vocabulary is None:
            progress.say("no vocabulary: pass --vocabulary FILE for labels")
        source = pair.decoder.spec.tokens
        if source is not None and source.layers_after:
            last = source.last_layer(spec.n_layers)
            progress.say(
                f"{pair.name} reads the tokens after layer {last} of {spec.n_layers}: later layers are left out"
            )
        progress.advance(1)
        if settings.engine == "ray":
            leave_the_gpu(pair)
        sweep = Sweep(progress)
        atlas = run_to_end(look_in(pair, job, folder, engine), sweep.tell)
        if not sweep.begun:
            progress.say(f"every picture was in {folder} already")
        for note in [] if job.traces is None else job.traces.notes:
            progress.say(note)
        progress.stage("report", 1)
        report = write_report(atlas, folder)
        progress.advance(1)
    if settings.json:
        emit_json(summary(atlas, report))
    else:
        _tell(atlas, report)
    return 0


def summary(atlas: "Atlas", report: Path) -> dict[str, Any]:
    """What was found, as JSON values: every site of every input under every lens, best first."""
    from dataclasses import asdict

    pictures: list[dict[str, Any]] = []
    for reading in atlas.readings:
        found: dict[str, Any] = {
            "name": reading.picture.name,
            "sha256": reading.picture.sha256,
            "target": reading.target,
            "clean_fidelity": [result.fidelity for result in atlas.clean(reading.id)],
            "decomposition_error": reading.decomposition_error,
        }
        for lens in ("diffusion", "steering"):
            scores = [atlas.score(lens, site, reading.id) for site in atlas.sites(lens, reading.id)]
            ranked = sorted(scores, key=lambda score: -score.similarity)
            found[lens] = [{**asdict(score), "site": str(score.site)} for score in ranked]
        found["labels"] = [{**asdict(label), "site": str(label.site)} for label in reading.labels]
        pictures.append(found)
    return {"report": str(report), "run": str(report.parent), "pictures": pictures}


def _tell(atlas: "Atlas", report: Path) -> None:
    for reading in atlas.readings:
        clean = atlas.clean(reading.id)
        if clean:
            say(f"{reading.picture.name}: clean reconstruction, re-encoding fidelity {clean[0].fidelity:.2f}")
        best = atlas.ranked("steering", reading.id)
        if best:
            named = ", ".join(f"{score.site.label} {score.similarity:.2f}" for score in best[:6])
            beaten = [score for score in best if score.beats_control]
            controlled = f"; {len(beaten)} of {len(best)} beat their control" if best[0].control is not None else ""
            say(f"  heads whose steered pictures come closest to {reading.target}: {named}{controlled}")
    say(f"report: {report}")
