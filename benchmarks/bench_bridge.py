"""A bridge from a second ViT to the bundled pair, on scenes: held-out cosine, retrieval, decoded and embedded again.

Scenes of training pictures are drawn and saved as PNG files to fit on, and scenes of held-out pictures to measure on;
then `steerlens bridge fit` is run on the two folders, as a user would.
"""

import argparse
import shutil
import sys
import time
from pathlib import Path

import torch
from PIL import Image

from steerlens.cli.main import main as steerlens
from steerlens.images import eight_bit
from steerlens.studies.scenes import open_pictures
from steerlens.training.data import HELD_OUT, TRAIN, UNSEEN, PictureSet
from steerlens.training.scenes import SceneMaker


def draw(pictures: PictureSet, splits: tuple[int, ...], count: int, seed: int, folder: Path) -> None:
    """Saves scenes whose objects are pictures of some splits; every picture is the main one about equally often."""
    folder.mkdir(parents=True)
    rows = torch.cat([pictures.rows(split) for split in splits])
    generator = torch.Generator().manual_seed(seed)
    order = torch.cat([rows[torch.randperm(len(rows), generator=generator)] for _ in range(-(-count // len(rows)))])
    maker = SceneMaker(pictures, rows, "cpu")
    for start in range(0, count, 100):
        main = order[start : min(start + 100, count)]
        scenes = maker.draw(len(main), generator, rows=main)
        for number, array in enumerate(eight_bit(scenes.pictures), start):
            Image.fromarray(array).save(folder / f"{number:05d}.png")


def main() -> int:
    """Draws the scenes, fits the bridge and prints what it reached."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="data folder of `steerlens train prepare`")
    parser.add_argument("--from", dest="source", required=True, help="the second ViT: a folder or hub id")
    parser.add_argument("--to", default="emoji", help="the pair whose decoder is used")
    parser.add_argument("--work", type=Path, required=True, help="where scenes and bridge are written; made anew")
    parser.add_argument("--fit", type=int, default=3000, help="scenes to fit on")
    parser.add_argument("--held-out", type=int, default=500, help="scenes to measure on")
    parser.add_argument("--map", default="auto", choices=["auto", "ridge", "procrustes", "mlp"])
    parser.add_argument("--decode", type=int, default=48)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()

    pictures, work = open_pictures(options.data), options.work
    for name in ("fit", "held-out", "bridge"):
        if (work / name).exists():
            shutil.rmtree(work / name)
    draw(pictures, (TRAIN,), options.fit, options.seed, work / "fit")
    draw(pictures, (HELD_OUT, UNSEEN), options.held_out, options.seed + 1, work / "held-out")
    command = ["bridge", "fit", "--from", options.source, "--to", options.to]
    command += ["--images", str(work / "fit"), "--held-out", str(work / "held-out"), "--out", str(work / "bridge")]
    command += ["--map", options.map, "--decode", str(options.decode), "--seed", str(options.seed)]
    print("steerlens", *command)
    start = time.perf_counter()
    code = steerlens(command)
    print(f"took             {time.perf_counter() - start:.0f} s")
    print("to reach: cosine 0.7, retrieval 60 % among 500")
    return code


if __name__ == "__main__":
    sys.exit(main())
