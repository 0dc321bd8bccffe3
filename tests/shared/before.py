"""What version 0.1.0 wrote to disk (`tests/golden/before`): the commands that made it, and making it.

It is made by that version, commit 57b0c01, never by a later one:

    git worktree add ELSEWHERE 57b0c01
    PYTHONPATH=ELSEWHERE/src python tests/shared/before.py FOLDER

Everything is made by the command line, with FOLDER as the working directory, so that no path in it is absolute. What is
half done was stopped by the same exception as Ctrl-C raises, after a given number of parts.
"""

import os
import shutil
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from PIL import Image

BEFORE = Path(__file__).parents[1] / "golden" / "before"
"""What version 0.1.0 wrote. Tests work on a copy."""

PLACE = "FOLDER"
"""Stands in `bridge/card.yaml` for the absolute path of the folder."""

CONCEPTS = ("grinning cat", "green apple", "red apple", "sailing boat", "sun")
# Precision and device are named, since their defaults depend on the machine.
MACHINE = ("--model", "pair", "--device", "cpu", "--dtype", "float32")
LENS = (*MACHINE, "--sites", "L0H0,L2H1,resid_post.2", "--steps", "1", "--batch-size", "4")
LOOKED_AT = ("pictures/sun/04.png", "pictures/red apple/02.png")
STUDY = (*MACHINE, "--steps", "1", "--guidance", "1")
IMPORTANCE = ("--images", "pictures", "--count", "3", "--choose", "2", "--strengths", "rho=1", "--no-extras")
OVERLAY = ("--bases", "pictures", "--overlays", "pictures", "--count", "2", "--choose", "2", "--strengths", "rho=1")
STRENGTH = (
    *("--images", "pictures", "--count", "2", "--rho", "0.5", "2", "--s", "20", "--heads-per-picture", "3"),
    *("--max-atypical", "1", "--judge", "pair"),
)
DECODER = (
    *("--images", "pictures", "--seeds", "2", "--heads", "3", "--reference-steps", "3", "--reference-seeds", "2"),
    *("--sweep-steps", "1", "2", "--sweep-guidance", "1", "--sweep-schedulers", "ddim", "--sweep-intervals", "0", "1"),
)
STUDIES = {"importance": IMPORTANCE, "overlay": OVERLAY, "strength": STRENGTH, "decoder": DECODER}


def study(name: str, out: str) -> list[str]:
    """The command that makes the study kept as `before/OUT`."""
    return ["study", name, *STUDY, *STUDIES[name], "--out", out]


def lens(out: str, *pictures: str) -> list[str]:
    """The command that makes the run kept as `before/OUT`."""
    return ["lens", *(pictures or LOOKED_AT), *LENS, "--out", out]


def bridge(out: str) -> list[str]:
    """The command that makes the bridge kept as `before/OUT`, from the pair's encoder to itself."""
    ends = ["--from", "pair", "--to", "pair", "--images", "more", "--held-out", "pictures"]
    return ["bridge", "fit", *ends, "--map", "ridge", "--device", "cpu", "--decode", "0", "--out", out]


def save_small_pair(folder: Path) -> None:
    """A tiny pair with a plainer autoencoder and a decoder in half precision: a third of the bytes."""
    from diffusers import VQModel

    from steerlens.testing.tiny import save_tiny_pair

    save_tiny_pair(folder)
    torch.manual_seed(0)
    movq: Any = VQModel(
        sample_size=16,
        block_out_channels=(32,),
        down_block_types=("DownEncoderBlock2D",),
        up_block_types=("UpDecoderBlock2D",),
        layers_per_block=1,
        latent_channels=4,
        num_vq_embeddings=8,
        vq_embed_dim=4,
        norm_type="spatial",
    )
    movq.half().save_pretrained(folder / "decoder" / "movq")
    unet: Any = import_module("diffusers").UNet2DConditionModel.from_pretrained(folder / "decoder" / "unet")
    unet.half().save_pretrained(folder / "decoder" / "unet")


def draw_pictures(folder: Path, numbers: range) -> None:
    """Pictures of 16 x 16 pixels, the concepts in turn."""
    for number in numbers:
        path = folder / CONCEPTS[number % len(CONCEPTS)] / f"{number:02d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        generator = torch.Generator().manual_seed(number)
        corners = torch.randint(0, 256, (4, 4, 3), generator=generator, dtype=torch.uint8)
        Image.fromarray(corners.numpy()).resize((16, 16)).save(path)


def run(arguments: list[str]) -> None:
    """Runs a command that must succeed."""
    from steerlens.cli.main import main

    if main(arguments) != 0:
        raise SystemExit(f"failed: steerlens {' '.join(arguments)}")


def stopped(arguments: list[str], owner: Any, method: str, calls: int) -> None:
    """Runs a command that is interrupted once a method has been called so many times."""
    from steerlens.cli.main import main

    original: Callable[..., Any] = getattr(owner, method)
    left = calls

    def counted(self: Any, *values: Any) -> Any:
        nonlocal left
        if left == 0:
            raise KeyboardInterrupt
        left -= 1
        return original(self, *values)

    setattr(owner, method, counted)
    code = main(arguments)
    setattr(owner, method, original)
    if code != 130:
        raise SystemExit(f"was not interrupted: steerlens {' '.join(arguments)}")


def make(folder: Path) -> None:
    """Makes everything in a new folder."""
    folder.mkdir(parents=True)
    os.chdir(folder)
    os.environ["STEERLENS_CACHE"] = "cache"
    torch.set_num_threads(1)
    save_small_pair(Path("pair"))
    draw_pictures(Path("pictures"), range(15))
    run(lens("run"))
    store, studies = import_module("steerlens.sweep.store"), import_module("steerlens.studies.folder")
    stopped(lens("run-half"), store.RunWriter, "add_cells", 2)
    for name in STUDIES:
        run(study(name, name))
    stopped(study("importance", "importance-half"), studies.StudyFolder, "add", 3)
    draw_pictures(Path("more"), range(15, 70))
    run(bridge("bridge"))
    # The one file with absolute paths: whoever uses the bridge puts the folder in again.
    card = Path("bridge/card.yaml")
    card.write_text(card.read_text().replace(str(folder), PLACE))
    shutil.rmtree("more")
    run(["runs", "export", "run", "--format", "parquet", "--out", "run.parquet"])
    # They are drawn from the rest, and large.
    for drawn in Path().glob("*/figures"):
        shutil.rmtree(drawn)
    for left in (*Path().glob("*/report.html"), *Path().glob("*/.lock")):
        left.unlink()


if __name__ == "__main__":
    make(Path(sys.argv[1]).absolute())
