"""Dashboards of many features over many pictures: time, memory that stays flat, and resuming.

Memory of the process is sampled after every event, and reported stage by stage: the growth of a stage is its largest
sample over its first, once its first batch has been computed. Features are those of a trained autoencoder with noise,
so that they are as sparse as real ones.

    python benchmarks/bench_features.py --data data
"""

import argparse
import shutil
import tempfile
import time
from collections.abc import Generator
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

import steerlens as sl
from steerlens.profiles import ProfilePicture, ProfilePictures, folder_pictures
from steerlens.profiles.features import FeatureOptions, FeatureReader, profile_features, write_feature_page
from steerlens.profiles.measure import native
from steerlens.progress import Progress
from steerlens.saes import JumpReLU, SparseAutoencoder
from steerlens.sweep import default_strength
from steerlens.training import scenes_of_data


def widened(sae: SparseAutoencoder, features: int) -> SparseAutoencoder:
    """An autoencoder of many features: copies of those given, their directions changed by noise."""
    generator = torch.Generator().manual_seed(0)
    rows = torch.arange(features) % sae.n_features
    noise = torch.randn(features, sae.width, generator=generator) / sae.width**0.5
    threshold = sae.activation.threshold if isinstance(sae.activation, JumpReLU) else torch.zeros(sae.n_features)
    return replace(
        sae,
        W_enc=sae.W_enc[:, rows] + 0.5 * sae.W_enc[:, rows].norm(dim=0) * noise.T,
        W_dec=torch.nn.functional.normalize(sae.W_dec[rows] + 0.5 * noise, dim=-1),
        b_enc=sae.b_enc[rows],
        activation=JumpReLU(threshold[rows]),
    )


def scenes(options: argparse.Namespace) -> ProfilePictures:
    """Scenes of training pictures: there are not enough others."""
    drawn = scenes_of_data(options.data, options.pictures + options.pictures // 8 + 1).train[: options.pictures]
    pictures = (ProfilePicture(str(number), "scene", str(number), opened) for number, opened in enumerate(drawn))
    return ProfilePictures(tuple(pictures), "scenes")


def resident() -> float:
    """Megabytes that the process holds now."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096 / 1e6


def watched(events: Generator[Progress, None, Any], samples: dict[str, list[float]]) -> Any:
    """Runs a loop to its end, and samples memory after every event."""
    while True:
        try:
            event = next(events)
        except StopIteration as end:
            return end.value
        samples.setdefault(event.stage, []).append(resident())


def main() -> None:
    """Prints seconds of each stage, memory, and what a second run repeats."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="emoji")
    parser.add_argument("--sae", default="emoji-resid8", help="a bundled autoencoder, or the folder of one")
    parser.add_argument("--data", type=Path, default=Path("data"))
    parser.add_argument("--images", type=Path, help="folder of pictures, instead of --data")
    parser.add_argument("--features", type=int, default=16_384)
    parser.add_argument("--pictures", type=int, default=1000)
    parser.add_argument("--decode", type=int, default=32)
    options = parser.parse_args()

    pair, sae = sl.load(options.model), widened(sl.load_sae(options.sae), options.features)
    shown = folder_pictures(options.images, options.pictures) if options.images else scenes(options)
    settings = FeatureOptions(pair.decoder.spec.defaults, default_strength(pair.card), n_decoded=options.decode)
    out = Path(tempfile.mkdtemp()) / "features"
    samples: dict[str, list[float]] = {}
    start = time.perf_counter()

    # Stopped in the middle of the second pass, then run again.
    events = profile_features(pair, sae, shown, settings, out)
    for event in events:
        samples.setdefault(event.stage, []).append(resident())
        if event.stage == "effects" and event.done >= len(shown.pictures) / 2:
            break
    events.close()
    stopped = time.perf_counter()
    kept = {path.name: path.stat().st_mtime_ns for path in (out / "parts").iterdir()}
    profile = watched(profile_features(pair, sae, shown, settings, out), samples)
    computed = time.perf_counter()
    changed = [name for name, mark in kept.items() if (out / "parts" / name).stat().st_mtime_ns != mark]
    write_feature_page(profile, FeatureReader(native(pair.encoder), sae), shown.pictures, out)
    end = time.perf_counter()
    print(f"{profile.n_features} features over {profile.pictures} pictures, {profile.decoded} decoded; {pair.name}")
    seconds = (computed - start, stopped - start, end - computed)
    print("time     {:.0f} s, of which {:.0f} s before it was stopped; page {:.0f} s".format(*seconds))
    print(f"resumed  {len(kept)} parts kept, {len(changed)} computed again")
    for stage, held in samples.items():
        settled = held[1:] or held
        growth = max(settled) / settled[0] - 1
        print(f"memory   {stage:12} {settled[0]:.0f} MB at first, {max(settled):.0f} MB at most: {growth:+.1%}")
    size = sum(path.stat().st_size for path in out.rglob("*") if path.is_file())
    print(f"folder   {size / 1e6:.0f} MB")
    shutil.rmtree(out.parent)


if __name__ == "__main__":
    main()
