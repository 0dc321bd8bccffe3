"""A full atlas of one picture against diffusers' own pipeline: head by head at its defaults, and in equal batches.

The atlas is every head under both decoding lenses with its clean picture, and no controls. Both sides decode the same
embeddings on the same clock. Against the pipeline head by head at its defaults (100 steps of DDPM), the pipeline is
timed on a sample and scaled; against batched calls at the same solver, steps, guidance and precision both sides decode
everything, and the networks' passes alone say how far that can go. It also ranks heads in bfloat16 and float32, and
measures what guidance in an interval of steps would save.
"""

import argparse
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import DDPMScheduler, KandinskyV22Pipeline
from timing import CLOCKS, machine
from torch import Tensor

from steerlens.atlas.atlas import Atlas
from steerlens.decoders.sampling import make_scheduler
from steerlens.images import Picture, load_picture
from steerlens.lenses.steering import SteeringLens
from steerlens.loading import Pair, load
from steerlens.progress import Progress
from steerlens.sites import all_heads
from steerlens.studies.shared import spearman
from steerlens.sweep.look import look
from steerlens.sweep.options import LookOptions
from steerlens.sweep.prepare import make_job
from steerlens.zoo import sample_picture


def pipeline(pair: Pair, scheduler: Any) -> Any:
    """diffusers' pipeline on the very same networks."""
    decoder: Any = pair.decoder
    pipe = KandinskyV22Pipeline(unet=decoder.unet, scheduler=scheduler, movq=decoder.movq)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def pipeline_pictures(pair: Pair, pipe: Any, values: Tensor, steps: int, guidance: float) -> Tensor:
    """What the pipeline makes of embeddings, (N,3,height,width) in [0,1]; seed 0 for every picture."""
    decoder: Any = pair.decoder
    rows = values.to(decoder.device, decoder.dtype)
    height, width = decoder.spec.defaults.size
    return pipe(
        image_embeds=rows,
        negative_image_embeds=decoder.negative_embedding.to(rows).expand_as(rows),
        height=height,
        width=width,
        num_inference_steps=steps,
        guidance_scale=guidance,
        generator=[torch.Generator("cpu").manual_seed(0) for _ in range(len(rows))],
        output_type="pt",
    ).images


def seconds(call: Callable[[], object], clock: Callable[[], float]) -> float:
    """Seconds of one call."""
    start = clock()
    call()
    return clock() - start


def main() -> None:
    """Prints pictures a second of each side and their ratios."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="emoji", help="a Kandinsky 2.2 pair: a card or a folder")
    parser.add_argument("--picture", type=Path, help="the input; by default an example that comes with the model")
    parser.add_argument("--sample", type=int, default=3, help="heads that the pipeline decodes one by one")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--clock", choices=sorted(CLOCKS), default="wall")
    parser.add_argument("--ray", action="store_true", help="time two local Ray workers (extra `ray`), and nothing else")
    options = parser.parse_args()
    now, pair = CLOCKS[options.clock], load(options.model)
    picture = load_picture(options.picture) if options.picture else sample_picture()
    defaults = pair.decoder.spec.defaults
    print(f"machine     {machine(pair.decoder.device.type)}; clock {options.clock}; {pair.decoder.dtype}")  # type: ignore[attr-defined]
    if options.ray:
        against_ray(load(options.model, dtype="float32"), picture, options)
    else:
        against_pipelines(pair, picture, options, now)
        precision(options.model, picture)
    print(f"decoder     {defaults.scheduler}, {defaults.steps} steps, guidance {defaults.guidance:g}")


def atlas_of(pair: Pair, picture: Picture, batch: int, **changes: Any) -> Atlas:
    """Every head under both lenses."""
    return look(pair, picture, sites="heads", controls=0, batch_size=batch, cache=False, **changes)


def against_pipelines(pair: Pair, picture: Picture, options: argparse.Namespace, now: Callable[[], float]) -> None:
    """Both comparisons with diffusers, and guidance in half of the steps."""
    defaults, decoder = pair.decoder.spec.defaults, pair.decoder
    spec = pair.encoder.spec
    trace = pair.encoder.trace(pair.encoder.preprocess([picture.image]))
    job = make_job(pair, [picture], LookOptions(sites="heads", controls=0))
    count = len(job.plan)
    heads = SteeringLens(pair.encoder, job.plan.strength).embeddings(trace, all_heads(spec.n_layers, spec.n_heads))[0]
    values = torch.cat([heads, heads, trace.embedding])[:count].float()

    slow = pipeline(pair, DDPMScheduler.from_config(dict(decoder.scheduler_config)))  # type: ignore[attr-defined]
    fast = pipeline(pair, make_scheduler(decoder.scheduler_config, defaults.scheduler))  # type: ignore[attr-defined]

    def one_by_one() -> None:
        for row in range(options.sample):
            pipeline_pictures(pair, slow, values[row : row + 1], 100, 4.0)

    def batched() -> None:
        for start in range(0, count, options.batch):
            made = pipeline_pictures(
                pair, fast, values[start : start + options.batch], defaults.steps, defaults.guidance
            )
            # as the atlas does: every picture is embedded again
            pair.encoder.embed(pair.encoder.preprocess_tensor(made.float().cpu().clamp(0, 1)))

    sides: dict[str, Callable[[], object]] = {
        "diffusers, head by head, 100 steps": one_by_one,
        "diffusers, batched": batched,
        "the networks' passes alone": lambda: networks_alone(pair, values, options.batch),
        "steerlens": lambda: atlas_of(pair, picture, options.batch),
        "steerlens, guidance in half of the steps": lambda: atlas_of(
            pair, picture, options.batch, guidance_interval=(0.0, 0.5)
        ),
    }
    taken: dict[str, list[float]] = {name: [] for name in sides}
    for repeat in range(options.repeats + 1):
        for name, side in sides.items():
            spent = seconds(side, now)
            if repeat:  # the first round warms up
                taken[name].append(spent * (count / options.sample if side is one_by_one else 1))
    median = {name: float(np.median(all_taken)) for name, all_taken in taken.items()}
    for name, spent in median.items():
        print(f"{count / spent:8.3f} pictures a second  {name} ({spent:.1f} s for {count})")
    ours = median["steerlens"]
    print(f"RATIO       {median['diffusers, head by head, 100 steps'] / ours:.1f}x faster than head by head (30)")
    print(f"RATIO       {median['diffusers, batched'] / ours:.2f}x faster than equal batched calls (1.2)")
    bare = median["the networks' passes alone"]
    print(
        f"LIMIT       {median['diffusers, batched'] / bare:.2f}x: the same passes of the networks and nothing else; "
        f"they are {bare / ours:.0%} of steerlens' time and {bare / median['diffusers, batched']:.0%} of diffusers'"
    )
    half = median["steerlens, guidance in half of the steps"]
    print(f"RATIO       {ours / half:.2f}x faster again with guidance in the first half of the steps alone")


@torch.inference_mode()
def networks_alone(pair: Pair, values: Tensor, batch: int) -> None:
    """The passes that neither side can do without, in equal batches: denoising with guidance, autoencoder, encoder."""
    decoder: Any = pair.decoder
    height, width = decoder.spec.defaults.size
    channels = decoder.unet.config.in_channels
    latents = torch.randn(
        len(values), channels, height // decoder.scale, width // decoder.scale, device=decoder.device
    ).to(decoder.dtype)
    rows = values.to(decoder.device, decoder.dtype)
    for start in range(0, len(values), batch):
        part, condition = latents[start : start + batch], rows[start : start + batch]
        both = {"image_embeds": torch.cat([decoder.negative_embedding.to(rows).expand_as(condition), condition])}
        for _ in range(decoder.spec.defaults.steps):
            decoder.unet(torch.cat([part, part]), torch.tensor(500), None, added_cond_kwargs=both)
        made = decoder.movq.decode(part, force_not_quantize=True).sample
        pair.encoder.embed(pair.encoder.preprocess_tensor(made.float().cpu().clamp(0, 1)))


def precision(model: str, picture: Picture) -> None:
    """Rankings of heads in bfloat16 against float32."""
    maps = [
        atlas_of(load(model, dtype=dtype, device="cpu"), picture, 64, lenses=("steering",)).score_map().flatten()
        for dtype in ("float32", "bfloat16")
    ]
    decoder_alone = load(model, dtype="float32", device="cpu")
    mixed = replace(decoder_alone, decoder=load(model, dtype="bfloat16", device="cpu").decoder)
    maps.append(atlas_of(mixed, picture, 64, lenses=("steering",)).score_map().flatten())
    maps.append(atlas_of(mixed, picture, 64, lenses=("steering",), preview=True).score_map().flatten())
    exact, half, default, shown = (torch.from_numpy(one)[None] for one in maps)
    print(f"RANKING     Spearman {float(spearman(exact, default)):.4f}: decoder in bfloat16 against float32 (0.99)")
    print(f"RANKING     Spearman {float(spearman(exact, half)):.4f}: encoder and decoder in bfloat16")
    print(
        f"PREVIEW     Spearman {float(spearman(exact, shown)):.4f}: pictures without the autoencoder against full ones"
    )


def against_ray(pair: Pair, picture: Picture, options: argparse.Namespace) -> None:
    """Two Ray workers of one thread against this process with two; the time to start workers is told apart.

    All cells count, from the moment at which the first worker has its models: what the other one still takes to load
    its own is in the figure.
    """
    import ray

    from steerlens.sweep.ray.cluster import Workers

    torch.set_num_threads(2)
    given = [Picture.from_image(picture.image.rotate(90 * quarter), f"turned {quarter}") for quarter in range(4)]
    ray.init(num_cpus=2, include_dashboard=False, logging_level="ERROR", log_to_driver=False)
    ratios: list[float] = []
    gap = 0
    for repeat in range(options.repeats + 1):
        start = time.perf_counter()
        here = look(pair, given, sites="heads", controls=0, batch_size=32, cache=False)
        local = len(here.results) / (time.perf_counter() - start)
        told: list[tuple[float, Progress]] = []
        start = time.perf_counter()
        there = look(
            pair,
            given,
            sites="heads",
            controls=0,
            batch_size=32,
            cache=False,
            progress=lambda event: told.append((time.perf_counter(), event)),  # noqa: B023
            workers=Workers(count=2),
        )
        ready = next(moment for moment, event in told if event.stage == "starting workers" and event.done)
        ended = time.perf_counter()
        far, whole = (len(there.results) / (ended - begun) for begun in (ready, start))
        pairs = zip(here.results, there.results, strict=True)
        gap = max(
            gap, *(int(np.abs(one.picture.astype(int) - other.picture.astype(int)).max()) for one, other in pairs)
        )
        print(
            f"round {repeat}     pictures a second: local {local:.2f}, Ray {far:.2f} "
            f"({whole:.2f} with the {ready - start:.1f} s until a worker is ready)"
        )
        if repeat:
            ratios.append(far / local)
    ray.shutdown()
    print(f"RAY         {np.median(ratios):.2f}x the local engine's throughput (0.9); pictures {gap}/255 apart (2)")


if __name__ == "__main__":
    main()
