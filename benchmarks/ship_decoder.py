"""Put a finished decoder into the package: every file of its pair but the encoder's, with a new manifest.

    python benchmarks/ship_decoder.py RUN/pair src/steerlens/zoo/dinov2_small --about benchmarks/dinov2_small.md

`--figures` is the JSON file of `steerlens train evaluate RUN/pair --json`; the grid is `RUN/pair/decoded.png`.

The encoder stays where its licence and size put it, on the hub; the card in `zoo/cards/` says where.
`make dinov2-small` trains what is missing, evaluates the pair, and runs this.
"""

import argparse
import json
import shutil
from pathlib import Path

from steerlens.training import Evaluation, Measurement, write_decoder_card, write_manifest

LARGEST = 30_000_000
"""Bytes of the decoder's weights."""

LEFT_OUT = ("image_encoder", "card.yaml", "manifest.json")


def ship(pair: Path, out: Path, about: Path | None = None, figures: Path | None = None) -> int:
    """Copies a pair's decoder into a folder of the package and writes its card; returns its bytes.

    Args:
        pair: folder of the finished pair.
        out: folder in the package; what it holds is replaced.
        about: Markdown file whose first line is the card's title, the rest what it says of the encoder's weights.
        figures: JSON file of an evaluation.
    """
    weights = sum(file.stat().st_size for file in (pair / "decoder").rglob("*.safetensors"))
    if weights > LARGEST:
        raise SystemExit(f"the decoder has {weights / 1e6:.1f} MB; the package takes {LARGEST / 1e6:.0f} MB.")
    facts = json.loads((pair / "manifest.json").read_text(encoding="utf-8"))
    # The folder that the encoder was trained from says nothing to others.
    encoder = facts["encoder"]
    facts["encoder"] = {**encoder, "source": Path(encoder["source"]).name}
    facts["init"] = None if facts.get("init") is None else Path(facts["init"]).name
    if out.exists():
        shutil.rmtree(out)
    shutil.copytree(pair, out, ignore=shutil.ignore_patterns(*LEFT_OUT))
    for file in out.rglob("*"):
        file.chmod(0o755 if file.is_dir() else 0o644)
    if about is not None:
        title, _, text = about.read_text(encoding="utf-8").partition("\n")
        facts |= {"title": title.removeprefix("# "), "about_weights": text.strip()}
    facts = {name: value for name, value in facts.items() if name not in ("files", "bytes")}
    write_manifest(out, facts)
    report = None
    if figures is not None:
        entries = json.loads(figures.read_text(encoding="utf-8"))["figures"]
        report = Evaluation(tuple(Measurement(**entry) for entry in entries))
    write_decoder_card(out, report)
    return write_manifest(out, facts)


def main() -> None:
    """Reads the arguments."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pair", type=Path, help="folder of the finished pair")
    parser.add_argument("out", type=Path, help="folder in the package; what it holds is replaced")
    parser.add_argument("--about", type=Path, help="title of the card, and what it says of the encoder's weights")
    parser.add_argument("--figures", type=Path, help="figures of the card, from steerlens train evaluate --json")
    given = parser.parse_args()
    print(f"{given.out}: {ship(given.pair, given.out, given.about, given.figures) / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
