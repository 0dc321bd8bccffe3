"""A bridge from a second ViT to the bundled pair, on scenes: held-out cosine, retrieval, decoded and embedded again.

Scenes of nine tenths of the training pictures are saved as PNG files to fit on, and scenes of held-out pictures, which
neither encoder has seen, to measure on. Then `steerlens bridge fit` runs on the two folders, as a user would run it.
Scenes of the last tenth, which the encoders know and the bridge does not, are measured too.
"""

import argparse
import shutil
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from PIL import Image
from torch import Tensor

from steerlens.bridges.embeddings import embed_both
from steerlens.bridges.fit import Measured, measure
from steerlens.bridges.store import StoredBridge, read_bridge
from steerlens.cli.main import main as steerlens
from steerlens.images import eight_bit, picture_files
from steerlens.progress import run_to_end
from steerlens.scenes import HELD_OUT, TRAIN, UNSEEN, PictureSet, SceneMaker
from steerlens.studies.shared import open_pictures
from steerlens.zoo import locate_encoder, open_encoder


def draw(pictures: PictureSet, rows: Tensor, count: int, seed: int, folder: Path) -> None:
    """Saves scenes whose objects are some of the pictures; every picture is the main one about equally often."""
    folder.mkdir(parents=True)
    generator = torch.Generator().manual_seed(seed)
    order = torch.cat([rows[torch.randperm(len(rows), generator=generator)] for _ in range(-(-count // len(rows)))])
    maker = SceneMaker(pictures, rows, "cpu")
    for start in range(0, count, 100):
        main = order[start : min(start + 100, count)]
        scenes = maker.draw(len(main), generator, rows=main)
        for number, array in enumerate(eight_bit(scenes.pictures), start):
            Image.fromarray(array).save(folder / f"{number:05d}.png")


def measured_on(stored: StoredBridge, folder: Path) -> Measured:
    """What a bridge does on the pictures of a folder."""
    source, target = (open_encoder(locate_encoder(end.source)) for end in (stored.source, stored.target))
    seen = run_to_end(embed_both(source, target, picture_files(folder)))
    return measure(stored.bridge, seen.source, seen.target)


def tell(stored: StoredBridge, known: Measured) -> None:
    """Prints every figure beside its bar."""
    folds = next(candidate.cosine for candidate in stored.candidates if candidate.kind == stored.bridge.kind)
    new = stored.measured
    rows = [
        ("cosine, held-out folds (new scenes of fitted art)", folds, 0.7),
        ("cosine, art that the encoders know and the bridge does not", known.cosine, 0.7),
        ("cosine, art that no model has seen", new.cosine, 0.7),
        (f"retrieval among {known.n_retrieved}, art that the encoders know", known.retrieval, 0.6),
        (f"retrieval among {new.n_retrieved}, art that no model has seen", new.retrieval, 0.6),
        ("cosine of the mean embedding, art that no model has seen", new.baseline, None),
    ]
    if new.decoded is not None:
        rows.append((f"decoded and embedded again ({new.n_decoded} pictures)", new.decoded, None))
        rows.append(("the same from the target's own embedding", new.decoded_own, None))
    for what, value, bar in rows:
        verdict = "" if bar is None else f"  to reach {bar:.2f}: {'met' if value >= bar else 'MISSED'}"
        print(f"{what:60} {value:.3f}{verdict}")


def main() -> int:
    """Draws the scenes, fits the bridge and prints what it reached."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="data folder of `steerlens train prepare`")
    parser.add_argument("--from", dest="source", required=True, help="the second ViT: a folder or hub id")
    parser.add_argument("--to", default="emoji", help="the pair whose decoder is used")
    parser.add_argument("--work", type=Path, help="where scenes and bridge are kept, anew; by default nowhere")
    parser.add_argument("--fit", type=int, default=12000, help="scenes to fit on")
    parser.add_argument("--held-out", type=int, default=500, help="scenes to measure on")
    parser.add_argument("--map", default="auto", choices=["auto", "ridge", "procrustes", "kernel"])
    parser.add_argument("--decode", type=int, default=48)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    if options.work is not None:
        return run(options, options.work)
    with TemporaryDirectory() as folder:
        return run(options, Path(folder))


def run(options: argparse.Namespace, work: Path) -> int:
    """Everything within a folder."""
    pictures = open_pictures(options.data)
    for name in ("fit", "known", "held-out", "bridge"):
        if (work / name).exists():
            shutil.rmtree(work / name)
    train = pictures.rows(TRAIN)
    train = train[torch.randperm(len(train), generator=torch.Generator().manual_seed(options.seed))]
    apart = len(train) // 10
    unseen = torch.cat([pictures.rows(HELD_OUT), pictures.rows(UNSEEN)])
    draw(pictures, train[apart:], options.fit, options.seed, work / "fit")
    draw(pictures, train[:apart], options.held_out, options.seed + 2, work / "known")
    draw(pictures, unseen, options.held_out, options.seed + 1, work / "held-out")
    command = ["bridge", "fit", "--from", options.source, "--to", options.to]
    command += ["--images", str(work / "fit"), "--held-out", str(work / "held-out"), "--out", str(work / "bridge")]
    command += ["--map", options.map, "--decode", str(options.decode), "--seed", str(options.seed)]
    print("steerlens", *command)
    start = time.perf_counter()
    code = steerlens(command)
    if code == 0:
        print(f"took {time.perf_counter() - start:.0f} s")
        stored = read_bridge(work / "bridge")
        tell(stored, measured_on(stored, work / "known"))
    return code


if __name__ == "__main__":
    sys.exit(main())
