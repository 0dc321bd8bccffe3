"""Trains a decoder of 128 pixels for a packed encoder on a GPU: autoencoder, scenes, names, UNet; within a time limit.

    python benchmarks/gpu_decoder.py WORK --minutes 8 --out OUT

WORK is what `gpu_pack.py unpack` made. Scenes are composed on the device, and embedded there. OUT gets the decoder in
float16, figures as they are measured, and a grid of held-out scenes.
"""

import argparse
import json
import shutil
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from steerlens.loading import load
from steerlens.scenes import HELD_OUT, PLAIN, SceneMaker, load_prepared
from steerlens.storage import file_hash, write_json
from steerlens.training import Budget, DecoderRecipe, StageRecord, export_decoder
from steerlens.training.autoencoder import AutoencoderSettings, load_autoencoder, train_autoencoder
from steerlens.training.cache import fill_cache
from steerlens.training.concepts import embed_pictures
from steerlens.training.embedder import Embedder, opened_embedder
from steerlens.training.stage import autocast
from steerlens.training.unet import UnetSettings, train_unet
from steerlens.zoo import locate_encoder, open_encoder

SHARES = {"autoencoder": 0.15, "unet": 0.6}
"""Shares of the minutes; scenes, names and export take the rest."""


def embedder_on(encoder: Any) -> Embedder:
    """Embeds on the device with the processor's own sizes, mean and deviation, without its detour through PIL."""
    settings = encoder.processor.to_dict()
    side = settings["crop_size"]["height"]
    mean, deviation = (
        torch.tensor(settings[name], device=encoder.device)[:, None, None] for name in ("image_mean", "image_std")
    )

    def embed(pictures: Tensor) -> Tensor:
        parts: list[Tensor] = []
        for chunk in pictures.to(encoder.device).split(256):
            small = functional.interpolate(chunk, size=(side, side), mode="bicubic", antialias=True).clamp(0, 1)
            with autocast(encoder.device):
                parts.append(encoder.embed({"pixel_values": (small - mean) / deviation}).float())
        return torch.cat(parts)

    return Embedder(embed, lambda: encoder.zero_embedding()[0].float().cpu())


def main() -> None:
    """Trains, exports and measures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("work", type=Path, help="folder of gpu_pack.py unpack")
    parser.add_argument("--out", type=Path, required=True, help="folder of what comes back")
    parser.add_argument("--minutes", type=float, default=8)
    parser.add_argument("--scenes", type=int, default=131_072)
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--tiny", action="store_true", help="few channels, to try it on a CPU")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    given = parser.parse_args()
    start, run = time.monotonic(), given.work / "run"
    run.mkdir(parents=True, exist_ok=True)
    given.out.mkdir(parents=True, exist_ok=True)
    if not (run / "encoder").exists():
        shutil.copytree(given.work / "encoder", run / "encoder")
    hashes = {"model.safetensors": file_hash(run / "encoder" / "model.safetensors")}
    write_json(run / "encoder.json", {"source": "packed encoder", "pixels": 112, "note": "", "sha256": hashes})
    channels = (32, 32, 32, 32) if given.tiny else (32, 64, 96, 128)
    autoencoder = AutoencoderSettings(channels=channels, batch=8 if given.tiny else 64)
    unet = UnetSettings(channels=(32, 32, 32) if given.tiny else (64, 128, 192), batch=given.batch)
    recipe = DecoderRecipe(
        given.minutes, scenes=given.scenes, part=min(4096, given.scenes), pixels=112, autoencoder=autoencoder, unet=unet
    )
    write_json(run / "recipe.json", {**asdict(recipe), "init": None, "autoencoder_of": None})
    pictures = load_prepared(given.work / "data")
    encoder = open_encoder(locate_encoder(run / "encoder"), device=given.device, dtype="float32")
    embedder = embedder_on(encoder)
    log = (given.out / "decoder.jsonl").open("a", encoding="utf-8")

    def say(**facts: Any) -> None:
        print(facts, flush=True)
        log.write(json.dumps({"at": round(time.monotonic() - start, 1), **facts}) + "\n")
        log.flush()

    def follow(events: Any) -> None:
        for event in events:
            if isinstance(event.payload, StageRecord):
                record = event.payload
                say(stage=record.stage, step=record.step, losses=dict(record.losses), metrics=dict(record.metrics))

    rows = pictures.rows(HELD_OUT)
    scenes = SceneMaker(pictures, rows, "cpu", PLAIN).draw(16, torch.Generator().manual_seed(1)).pictures
    slow = opened_embedder(run / "encoder", given.device).embed(scenes)
    same = functional.cosine_similarity(slow - slow.mean(dim=0), embedder.embed(scenes) - slow.mean(dim=0), dim=-1)
    say(embedder_agrees=float(same.mean()), device=str(encoder.device), pictures=len(pictures.pictures))
    minutes = {name: share * given.minutes for name, share in SHARES.items()}
    follow(train_autoencoder(pictures, run, Budget(minutes["autoencoder"]), autoencoder, given.device, resume=True))
    movq: Any = load_autoencoder(run, autoencoder).to(given.device)
    parts, part = max(1, given.scenes // recipe.part), min(recipe.part, given.scenes)
    follow(fill_cache(embedder, movq, pictures, run, parts, part_size=part, device=given.device))
    follow(embed_pictures(embedder, pictures, run))
    size = encoder.spec.embedding_size
    budget = Budget(minutes["unet"])
    follow(
        train_unet(run, size, budget, unet, lambda: embedder, autoencoder, given.device, 0, True, measure_seconds=60.0)
    )
    grids = sorted((run / "grids").glob("*.png"))
    if grids:
        shutil.copy(grids[-1], given.out / "grid.png")
    export_decoder(given.work / "data", run, run / "pair", recipe)
    pair = load(run / "pair", device="cpu")
    pair.decoder.unet.half().save_pretrained(given.out / "unet")
    pair.decoder.movq.half().save_pretrained(given.out / "movq")
    say(done=True, minutes=round((time.monotonic() - start) / 60, 2))
    held = given.work / "scenes"
    for index, row in enumerate(rows[:32].tolist()):
        concept = pictures.concepts[int(pictures.concept[row])].name.replace("/", " ")
        (held / concept).mkdir(parents=True, exist_ok=True)
        shown = SceneMaker(pictures, rows, "cpu", PLAIN).draw(
            1, torch.Generator().manual_seed(index), rows=torch.tensor([row]), companions=0.0
        )
        raw = (shown.pictures[0] * 255).round().to(torch.uint8).permute(1, 2, 0).contiguous().numpy()
        from PIL import Image

        Image.fromarray(raw).save(held / concept / f"{index}.png")


if __name__ == "__main__":
    main()
