"""What a machine with a GPU and no network needs to train the decoder of `dinov2-small`, in few megabytes.

    python benchmarks/gpu_pack.py pack --data DATA --encoder real-vit/vit-s14 --out .gpu
    python benchmarks/gpu_pack.py unpack .gpu WORK

`pack` writes the prepared pictures as WebP in one file, at the best quality that fits, and the encoder's matrices in 8
bits with a scale for each row; it prints how well embeddings agree. `unpack` makes a data folder and an encoder folder
of them. A decoder trained on these embeddings is evaluated with the encoder's own weights.
"""

import argparse
import io
import json
from pathlib import Path

import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from steerlens.scenes import HELD_OUT, OUTSIDE, PLAIN, SceneMaker, load_prepared, prepared_folder
from steerlens.storage import read_json, write_json

QUALITIES = (95, 90, 85, 80, 70, 60, 50)


def picture_bytes(picture: torch.Tensor, quality: int) -> bytes:
    """Encodes uint8 RGBA (4,H,W)."""
    data = io.BytesIO()
    Image.fromarray(picture.permute(1, 2, 0).numpy(), "RGBA").save(data, "WEBP", quality=quality)
    return data.getvalue()


def pack_pictures(data: Path, out: Path, megabytes: float, every: int) -> None:
    """Packs the pictures that are trained on or held out, at the best quality that fits."""
    pictures = load_prepared(data)
    # A trial needs few pictures to train on, but held-out ones of enough concepts for a study.
    held = pictures.split == HELD_OUT
    trained_on = torch.nonzero((pictures.split != OUTSIDE) & ~held)[:, 0][::every]
    rows = torch.cat([trained_on, torch.nonzero(held)[:, 0][:: max(1, every // 10)]]).sort().values
    sample = rows[torch.randperm(len(rows), generator=torch.Generator().manual_seed(0))[:300]].tolist()

    def size(quality: int) -> float:
        each = sum(len(picture_bytes(pictures.pictures[row], quality)) for row in sample) / len(sample)
        return each * len(rows) / 1e6

    quality = next((quality for quality in QUALITIES if size(quality) < 0.97 * megabytes), QUALITIES[-1])
    parts = [picture_bytes(pictures.pictures[row], quality) for row in rows.tolist()]
    tensors = {
        "bytes": torch.frombuffer(bytearray(b"".join(parts)), dtype=torch.uint8),
        "lengths": torch.tensor([len(part) for part in parts]),
        "concept": pictures.concept[rows],
        "style": pictures.style[rows],
        "split": pictures.split[rows],
    }
    facts = read_json(prepared_folder(data) / "pictures.json", "the pictures")
    save_file(tensors, out / "pictures.safetensors", metadata={"facts": json.dumps(facts)})
    size_now = (out / "pictures.safetensors").stat().st_size / 1e6
    print(f"{len(rows)} pictures, WebP of quality {quality}: {size_now:.1f} MB")


def pack_encoder(encoder: Path, out: Path) -> None:
    """Packs an encoder: matrices in 8 bits with a scale for each row, everything else in float16."""
    packed: dict[str, torch.Tensor] = {}
    for name, tensor in load_file(encoder / "model.safetensors").items():
        if tensor.ndim == 2 and min(tensor.shape) > 64:
            scale = tensor.abs().amax(dim=1, keepdim=True).clamp_min(1e-12) / 127
            packed[f"{name}#rows"] = (tensor / scale).round().to(torch.int8)
            packed[f"{name}#scale"] = scale
        else:
            packed[name] = tensor.half()
    save_file(packed, out / "encoder.safetensors")
    configs = {name: read_json(encoder / name, "the encoder") for name in ("config.json", "preprocessor_config.json")}
    write_json(out / "encoder.json", configs)
    print(f"encoder: {(out / 'encoder.safetensors').stat().st_size / 1e6:.1f} MB")


def unpack(folder: Path, work: Path, pixels: int) -> None:
    """Makes `WORK/data/prepared`, with pictures scaled to `pixels`, and `WORK/encoder`."""
    from steerlens.training.embedder import resized

    prepared, encoder = prepared_folder(work / "data"), work / "encoder"
    for made in (prepared, encoder):
        made.mkdir(parents=True, exist_ok=True)
    with safe_open(folder / "pictures.safetensors", framework="pt") as handle:
        facts = json.loads(handle.metadata()["facts"])
        tensors = {name: handle.get_tensor(name) for name in handle.keys()}  # noqa: SIM118
    data, start, pictures = tensors["bytes"].numpy().tobytes(), 0, list[torch.Tensor]()
    for length in tensors["lengths"].tolist():
        image = Image.open(io.BytesIO(data[start : start + length])).convert("RGBA")
        raw = image.resize((pixels, pixels), Image.Resampling.LANCZOS).tobytes()
        pictures.append(torch.frombuffer(bytearray(raw), dtype=torch.uint8).reshape(pixels, pixels, 4).permute(2, 0, 1))
        start += length
    table = {name: tensors[name] for name in ("concept", "style", "split")}
    save_file({"pictures": torch.stack(pictures).contiguous(), **table}, prepared / "pictures.safetensors")
    write_json(prepared / "pictures.json", facts)
    packed = load_file(folder / "encoder.safetensors")
    whole = {name: tensor.float() for name, tensor in packed.items() if "#" not in name}
    for name in (name.removesuffix("#rows") for name in packed if name.endswith("#rows")):
        whole[name] = packed[f"{name}#rows"].float() * packed[f"{name}#scale"]
    save_file(whole, encoder / "model.safetensors", metadata={"format": "pt"})
    configs = read_json(folder / "encoder.json", "the encoder")
    write_json(encoder / "config.json", configs["config.json"])
    write_json(encoder / "preprocessor_config.json", resized(configs["preprocessor_config.json"], 112))


def agreement(data: Path, encoder: Path, unpacked: Path) -> float:
    """Mean cosine of the embeddings of 48 held-out scenes by two encoders, means subtracted."""
    from steerlens.training.embedder import copy_encoder, opened_embedder

    pictures = load_prepared(data)
    maker = SceneMaker(pictures, pictures.rows(HELD_OUT), "cpu", PLAIN)
    scenes = maker.draw(48, torch.Generator().manual_seed(0)).pictures
    own = unpacked.parent / "own"
    copy_encoder(str(encoder), own, 112)
    first, second = (opened_embedder(folder, "cpu").embed(scenes) for folder in (own, unpacked))
    pair = first - first.mean(dim=0), second - second.mean(dim=0)
    return float(torch.nn.functional.cosine_similarity(*pair, dim=-1).mean())


def main() -> None:
    """Reads the arguments."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    packing = commands.add_parser("pack")
    packing.add_argument("--data", type=Path, required=True, help="folder with prepared pictures")
    packing.add_argument("--encoder", type=Path, required=True, help="folder of the encoder")
    packing.add_argument("--out", type=Path, required=True, help="folder to write")
    packing.add_argument("--megabytes", type=float, default=16, help="most that the pictures may take")
    packing.add_argument("--every", type=int, default=1, help="take every n-th picture (to try)")
    unpacking = commands.add_parser("unpack")
    unpacking.add_argument("folder", type=Path)
    unpacking.add_argument("work", type=Path)
    unpacking.add_argument("--pixels", type=int, default=128, help="side of the pictures")
    given = parser.parse_args()
    if given.command == "unpack":
        unpack(given.folder, given.work, given.pixels)
        return
    import tempfile

    given.out.mkdir(parents=True, exist_ok=True)
    pack_pictures(given.data, given.out, given.megabytes, given.every)
    pack_encoder(given.encoder, given.out)
    with tempfile.TemporaryDirectory() as work:
        unpack(given.out, Path(work), 64)
        cosine = agreement(given.data, given.encoder, Path(work) / "encoder")
    print(f"embeddings by the packed encoder agree with its own to a cosine of {cosine:.4f}, means subtracted")


if __name__ == "__main__":
    main()
