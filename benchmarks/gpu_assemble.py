"""Makes a run of the decoder that `gpu_once.sh` brought back, so that it is exported and evaluated like any other.

    python benchmarks/gpu_assemble.py OUT/decoder RUN_ON_CPU NEW_RUN --data DATA

OUT/decoder is the folder in `decoder.tar`. RUN_ON_CPU is a run of `steerlens train decoder` with the encoder's own
weights: its embeddings, names and held-out scenes are used. The pair is in NEW_RUN/pair; `steerlens train evaluate`
measures it with the encoder's own weights.
"""

import argparse
import json
import shutil
from dataclasses import replace
from pathlib import Path

from diffusers import UNet2DConditionModel, VQModel

from steerlens.training import DecoderRecipe, export_decoder
from steerlens.training.autoencoder import AutoencoderSettings
from steerlens.training.checkpoint import save_checkpoint
from steerlens.training.unet import UnetSettings


def main() -> None:
    """Reads the arguments, and assembles."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("decoder", type=Path)
    parser.add_argument("run", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--data", type=Path, required=True)
    given = parser.parse_args()
    for name in ("scenes", "concepts", "encoder"):
        shutil.copytree(given.run / name, given.out / name, dirs_exist_ok=True)
    for name in ("encoder.json", "recipe.json"):
        shutil.copy(given.run / name, given.out / name)
    lines = (given.decoder / "decoder.jsonl").read_text(encoding="utf-8").splitlines()
    steps = max(record["step"] for record in map(json.loads, lines) if record.get("stage") == "unet")
    unet = UNet2DConditionModel.from_pretrained(given.decoder / "unet")
    movq = VQModel.from_pretrained(given.decoder / "movq")
    save_checkpoint(given.out / "unet.safetensors", unet.float().state_dict(), {"step": steps, "seconds": 0.0})
    save_checkpoint(given.out / "autoencoder.safetensors", movq.float().state_dict(), {"step": 0})
    recipe = replace(
        DecoderRecipe(pixels=112),
        autoencoder=AutoencoderSettings(channels=tuple(movq.config.block_out_channels)),
        unet=UnetSettings(channels=tuple(unet.config.block_out_channels)),
    )
    size = export_decoder(given.data, given.out, given.out / "pair", recipe)
    print(f"{given.out / 'pair'}: {size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
