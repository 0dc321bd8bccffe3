"""Writes docs/scaling.md: how the cost of a sweep grows, and worked plans for the paper's model.

    python benchmarks/scaling.py [--keep-measured]

Operations are counted on the meta device. Numbers of pictures and sizes on disk are those of `steerlens lens
--dry-run`. Seconds of each stage are measured here on the bundled pair, or kept from the present page. Plans
divide the counted operations by a throughput, which is stated, and assumed as long as no GPU was available.
"""

import argparse
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from PIL import Image
from timing import machine

from steerlens.atlas.plan import Cell
from steerlens.atlas.results import CellResult
from steerlens.cli.lens.dry_run import price
from steerlens.cli.lens.settings import DecodingSettings, LensChoice, LensSettings, ModelSettings
from steerlens.conditioning import Conditioning
from steerlens.decoders.base import DecodeOptions, decode
from steerlens.decoders.compact import Precision
from steerlens.decoders.diffusion import default_batch_size
from steerlens.images import eight_bit, png_bytes
from steerlens.lenses.steering import SteeringLens
from steerlens.lenses.strength import Strength
from steerlens.loading import load
from steerlens.runs.store import open_run
from steerlens.sites import Site, all_heads
from steerlens.sweep.ray.parts import BATCHES_OF_A_PART
from steerlens.zoo import sample_picture
from steerlens.zoo.cards import card
from steerlens.zoo.cost import Cost, cost_of, count
from steerlens.zoo.full_size import full_size_configs

MODEL, STEPS, MANY = "kandinsky-2.2", 10, 1000
"""What the plans are for, with how many steps, and of how many pictures the large ones are."""

GPUS = (1, 8, 64)

SWEEPS: dict[str, dict[str, Any]] = {
    "defaults": {},
    "`--controls 0`": {"lens": LensChoice(controls=0)},
    "`--preview`": {"decoding": DecodingSettings(steps=STEPS, preview=True)},
    "`--decode top:20`": {"decoding": DecodingSettings(steps=STEPS, decode="top:20")},
}
"""Settings of `steerlens lens` that are priced, each with `--steps 10`."""

TEMPLATE = Path(__file__).with_name("scaling_page.md")

MEASURED = "## What each stage takes here"


@dataclass(frozen=True)
class Sweep:
    """What a sweep of one input takes, as `steerlens lens --dry-run` says.

    Attributes:
        name: how it differs from the defaults.
        decoded: pictures to decode.
        disk: bytes.
        each: operations of one decoded picture.
    """

    name: str
    decoded: int
    disk: int
    each: int


def sweeps(cost: Cost) -> list[Sweep]:
    """What each of the sweeps takes for one input."""
    found: list[Sweep] = []
    for name, changes in SWEEPS.items():
        settings = LensSettings(
            ModelSettings(model=MODEL, device="cpu"), **{"decoding": DecodingSettings(steps=STEPS), **changes}
        )
        priced = price(settings, [sample_picture()], Path("run"))
        decoded = priced["pictures_to_decode"]
        found.append(Sweep(name, decoded, priced["disk_bytes"], priced["operations"] // decoded))
    if found[0].decoded != cost.n_layers + cost.n_layers * cost.n_heads * 3:
        raise RuntimeError("the formula on the page is not what is planned")
    return found


def median_seconds(call: Callable[[], object], repeats: int) -> float:
    """Median seconds of a call, after one that is not counted."""
    taken: list[float] = []
    for _ in range(repeats + 1):
        start = time.perf_counter()
        call()
        taken.append(time.perf_counter() - start)
    return sorted(taken[1:])[repeats // 2]


def table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table in markdown."""
    lines = [headings, ["---"] * len(headings), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def counted() -> str:
    """Operations of the paper's model, by stage, steps and resolution."""
    rows: list[list[str]] = []
    for side in (512, 768, 1024):
        cost = cost_of("kandinsky-2.2", size=(side, side), device="cpu")
        options = DecodeOptions(10, 4.0, "dpm++", (side, side))
        per_picture = [cost.picture_flops(replace(options, steps=steps)) for steps in (10, 25, 100)]
        half = cost.picture_flops(replace(options, steps=10, guidance_interval=(0.0, 0.5)))
        preview = cost.picture_flops(replace(options, steps=10, preview=True))
        stages = (cost.encoder_flops, cost.unet_flops, cost.movq_flops, *per_picture, half, preview)
        rows.append([f"{side} x {side}", *(f"{value / 1e12:.3g}" for value in stages)])
    headings = ["pictures", "encoder", "UNet, one pass", "MoVQ", "10 steps", "25 steps", "100 steps"]
    return table([*headings, "10 steps, guidance in the first half", "10 steps, `--preview`"], rows)


def measured(repeats: int) -> str:
    """Seconds of every stage on the bundled pair, and how decoding grows."""
    pair, picture = load("emoji"), sample_picture()
    encoder, decoder = pair.encoder, pair.decoder
    inputs = encoder.preprocess([picture.image])
    trace = encoder.trace(inputs, attention=True)
    heads = all_heads(encoder.spec.n_layers, encoder.spec.n_heads)
    lens, defaults = SteeringLens(encoder, Strength("rho", 1.0)), decoder.spec.defaults
    values = lens.embeddings(trace, heads)[0].float()
    pictures = decode(decoder, Conditioning("image_embedding", values[:16]), [0] * 16, defaults)

    def decoding(count: int, steps: int) -> Callable[[], object]:
        rows = Conditioning("image_embedding", values[:count])
        return lambda: decode(decoder, rows, [0] * count, replace(defaults, steps=steps))

    def store() -> None:
        for array in eight_bit(pictures):
            png_bytes(Image.fromarray(array))

    count = len(heads)
    each = [
        (
            "preprocess and trace a picture",
            median_seconds(lambda: encoder.trace(encoder.preprocess([picture.image]), attention=True), repeats),
        ),
        (f"steer {count} heads, all of them", median_seconds(lambda: lens.embeddings(trace, heads), repeats)),
        (f"decode {count} pictures, {defaults.steps} steps", median_seconds(decoding(count, defaults.steps), repeats)),
        (
            f"decode {count} pictures, {defaults.steps // 2} steps",
            median_seconds(decoding(count, defaults.steps // 2), repeats),
        ),
        (
            f"decode {count // 2} pictures, {defaults.steps} steps",
            median_seconds(decoding(count // 2, defaults.steps), repeats),
        ),
        (
            "embed 16 decoded pictures again",
            median_seconds(lambda: encoder.embed(encoder.preprocess_tensor(pictures)), repeats),
        ),
        ("write 16 pictures as PNG", median_seconds(store, repeats)),
    ]
    return table(["stage", "seconds"], [[name, f"{seconds:.3g}"] for name, seconds in each])


def writing_seconds(size: int, count: int = 32, repeats: int = 3) -> float:
    """Processor time in which the process that writes stores one picture.

    Args:
        size: bytes of the picture.
        count: pictures of a part.
        repeats: parts that are timed, after one that is not.
    """
    rng, taken = np.random.default_rng(0), list[float]()
    with TemporaryDirectory() as folder, open_run(Path(folder), {}) as writer:
        for repeat in range(repeats + 1):
            results = [
                CellResult(
                    cell=Cell("picture", "diffusion", Site("head", repeat, row), None, 0),
                    rho=0.0,
                    file=rng.bytes(size),
                    conditioning=torch.zeros(1280),
                    reencoded=torch.zeros(1280),
                    similarity=0.0,
                    steered_similarity=0.0,
                    fidelity=0.0,
                )
                for row in range(count)
            ]
            start = time.process_time()
            writer.add_cells(results)
            taken.append(time.process_time() - start)
    return sorted(taken[1:])[repeats // 2] / count


def plans(swept: Sequence[Sweep], batch: int, writing: float, options: argparse.Namespace) -> str:
    """Every sweep of one picture and of many, on 1, 8 and 64 GPUs."""
    rows: list[list[str]] = []
    for inputs in (1, MANY):
        for sweep in swept:
            total = inputs * sweep.decoded
            times: list[str] = []
            for gpus in GPUS:
                workers = min(gpus, -(-total // batch))
                decoding = total * sweep.each / options.flops / workers
                start = options.load_seconds + (options.start_seconds if gpus > 1 else 0)
                limit = " (writing)" if total * writing > decoding else ""
                times.append(duration(start + max(decoding, total * writing)) + limit)
            named = "one picture" if inputs == 1 else f"{inputs:,} pictures"
            rows.append([f"{named}, {sweep.name}", f"{total:,}", gigabytes(inputs * sweep.disk), *times])
    return table(["sweep", "pictures decoded", "disk", *(f"{gpus} GPU{'s' * (gpus > 1)}" for gpus in GPUS)], rows)


def memory() -> str:
    """Memory of the paper's model on a GPU in half precision, by how the UNet's weights are stored."""
    known, gpu, rows = card(MODEL), torch.device("cuda"), list[list[str]]()
    configs = full_size_configs(known)
    if configs is None:
        raise RuntimeError(f"the package has no configs of {MODEL}")
    storage: dict[str, tuple[Precision | None, bool]] = {
        "the defaults": (None, False),
        "`--precision int8` or `fp8`": ("int8", False),
        "`--offload`": (None, True),
        "`--precision int8 --offload`": ("int8", True),
    }
    for name, (precision, offloaded) in storage.items():
        cost = count(known.family, configs, known.defaults.size, gpu, None, precision, offloaded)
        one = cost.bytes + cost.working_bytes(1, cost.size, 2)
        rows.append([name, gigabytes(cost.bytes), gigabytes(one), gigabytes(cost.host_bytes)])
    return table(["UNet", "weights on the GPU", "and one picture", "weights on the host"], rows)


def gigabytes(size: int) -> str:
    """Bytes in gigabytes, to three digits."""
    return f"{size / 1e9:,.0f} GB" if size >= 1e11 else f"{size / 1e9:.3g} GB"


def duration(seconds: float) -> str:
    """Seconds in the unit that fits."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    if seconds < 7200:
        return f"{seconds / 60:.1f} min" if seconds < 600 else f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"


def kept(page: Path) -> str:
    """The measured section of a page, as it is.

    Raises:
        RuntimeError: if the page has none.
    """
    found = re.search(rf"{re.escape(MEASURED)}\n\n(.*?)\n\n## ", page.read_text(encoding="utf-8"), re.DOTALL)
    if found is None:
        raise RuntimeError(f"{page} has no section {MEASURED!r} to keep: leave --keep-measured.")
    return found[1]


def page(options: argparse.Namespace) -> str:
    """The page."""
    cost = cost_of(MODEL, device="cpu")
    swept = sweeps(cost)
    whole, bare, preview, top = swept
    batch = default_batch_size(cost.size, cost.scale, torch.device("cuda"))
    writing = writing_seconds(whole.disk // whole.decoded)
    heads = cost.n_layers * cost.n_heads
    stages = (
        kept(options.out)
        if options.keep_measured
        else f"The bundled pair here ({machine('cpu')}), decoder at its defaults:\n\n{measured(options.repeats)}"
    )
    return TEMPLATE.read_text(encoding="utf-8").format(
        model=MODEL,
        steps=STEPS,
        counted=counted(),
        layers=cost.n_layers,
        heads=heads,
        whole=f"{whole.decoded:,}",
        bare=f"{bare.decoded:,}",
        bare_share=f"{1 - bare.decoded / whole.decoded:.0%}",
        preview_share=f"{1 - preview.each / whole.each:.0%}",
        top=f"{top.decoded:,}",
        heading=MEASURED,
        stages=stages,
        flops=f"{options.flops / 1e12:.0f}",
        source=options.source,
        start=f"{options.start_seconds:g}",
        load=f"{options.load_seconds:g}",
        writing=f"{writing * 1e3:.2g}",
        per_second=f"{1 / writing:,.0f}",
        speed=f"{options.flops / whole.each:.0f}",
        written=f"{GPUS[-1] * options.flops / whole.each * whole.disk / whole.decoded / 1e9:.2g}",
        part=BATCHES_OF_A_PART * batch,
        names=f"{200 * MANY * whole.decoded / 1e9:.1f}",
        places=f"{16 * MANY * whole.decoded / 1e6:.0f}",
        many=f"{MANY:,}",
        all_many=f"{MANY * whole.decoded:,}",
        most=GPUS[-1],
        memory=memory(),
        a_picture=gigabytes(cost.working_bytes(1, cost.size, 2)),
        plans=plans(swept, batch, writing, options),
    )


def main() -> None:
    """Writes the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path(__file__).parents[1] / "docs" / "scaling.md")
    parser.add_argument("--flops", type=float, default=346e12, help="operations a second of a GPU, for the plans")
    parser.add_argument(
        "--source",
        default="35 % of an H100's dense bfloat16 peak, which is what we aim at and have **not measured** yet",
        help="where that figure comes from, in words",
    )
    parser.add_argument("--start-seconds", type=float, default=23.0, help="until Ray's workers answer, for the plans")
    parser.add_argument("--load-seconds", type=float, default=11.6, help="to load the paper's model, for the plans")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument(
        "--keep-measured", action="store_true", help="keep the stages that the page has, on a machine that is busy"
    )
    options = parser.parse_args()
    text = page(options)
    options.out.write_text(text, encoding="utf-8")
    print(f"wrote {options.out}")


if __name__ == "__main__":
    main()
