"""Inputs that claim to be enormous, each through the command line in a child process with limits: a table.

    python tests/fuzz/hostile.py

Each must be refused with one message within 2 seconds of processor time and 200 MB beyond what importing takes; the
exit code is 1 if one is not.
"""

import io
import json
import os
import struct
import sys
import tempfile
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from children import Limits, run_in_child
from corpus import FAST, copy_into
from fuzzing import Fuzzer, faults, steerlens  # first, since it sets the environment of libraries
from PIL import Image

LIMITS = Limits(seconds=2.0, wall=20.0, memory=200_000_000)

READ = Limits(seconds=6.0, wall=150.0, memory=400_000_000)

_SHARED = ("--model", "pair", *FAST, "--out", "out")


def _config(name: str, changes: Mapping[str, Any]) -> Callable[[Path], tuple[str, ...]]:
    def prepare(case: Path) -> tuple[str, ...]:
        path = case / "pair" / name
        path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))
        return ("lens", "picture.png", *_SHARED)

    return prepare


def _picture(name: str, data: Callable[[], bytes], size: int = 0) -> Callable[[Path], tuple[str, ...]]:
    def prepare(case: Path) -> tuple[str, ...]:
        (case / name).write_bytes(data())
        if size:  # the rest takes no space on the disk
            os.truncate(case / name, size)
        return ("lens", name, "--model", "pair", "--dry-run")

    return prepare


def _options(*options: str) -> Callable[[Path], tuple[str, ...]]:
    return lambda _: ("lens", "picture.png", *_SHARED, *options)


def _in_place(name: str, put: Callable[[Path], object], *options: str) -> Callable[[Path], tuple[str, ...]]:
    def prepare(case: Path) -> tuple[str, ...]:
        path = case / name
        path.unlink(missing_ok=True)
        put(path)
        return ("lens", "picture.png", *_SHARED, *options)

    return prepare


def jpeg_of_scans(side: int, scans: int, *, noise: bool = False) -> bytes:
    """A progressive JPEG whose last scan is there many times."""
    out = io.BytesIO()
    image = Image.effect_noise((side, side), 100).convert("RGB") if noise else Image.new("RGB", (side, side))
    image.save(out, "JPEG", progressive=True)
    data = out.getvalue()
    start = data.rfind(b"\xff\xda")
    return data[:-2] + data[start:-2] * (scans - data.count(b"\xff\xda")) + data[-2:]


def _gif_of_frames(frames: int) -> bytes:
    out = io.BytesIO()
    Image.new("P", (1, 1)).save(out, "GIF")
    data = out.getvalue()
    start = data.rfind(b",", 0, len(data) - 1)
    return data[:start] + data[start:-1] * frames + data[-1:]


def _png_of_size(side: int) -> bytes:
    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    rows = zlib.compress(bytes(10**7), 9)
    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def _yaml_bomb() -> str:
    levels = [f"a{level}: &a{level} [{', '.join([f'*a{level - 1}'] * 10)}]\n" for level in range(1, 12)]
    return "a0: &a0 [x, x]\n" + "".join(levels)


def _endless_list(path: Path) -> None:
    path.touch()
    os.truncate(path, 10**12)


CASES: Mapping[str, Callable[[Path], tuple[str, ...]]] = {
    "config of 10^9 layers": _config("image_encoder/config.json", {"num_hidden_layers": 10**9}),
    "config of 900,000 layers": _config("image_encoder/config.json", {"num_hidden_layers": 900_000}),
    "config of width 10^6": _config("image_encoder/config.json", {"hidden_size": 10**6, "num_attention_heads": 1}),
    "config of 10^9 labels": _config("image_encoder/config.json", {"num_labels": 10**9}),
    "config of 10^9 named labels": _config("image_encoder/config.json", {"id2label": {"0": "a"}, "num_labels": 10**9}),
    "pictures of 30,000 pixels a side": _config(
        "image_processor/preprocessor_config.json", {"size": {"height": 30_000, "width": 30_000}}
    ),
    "position table for 30,000 pixels": _config("image_encoder/config.json", {"image_size": 30_000}),
    "10^6 layers in a UNet's block": _config("decoder/unet/config.json", {"layers_per_block": 10**6}),
    "10^8 noise levels": _config("decoder/scheduler/scheduler_config.json", {"num_train_timesteps": 10**8}),
    "--seeds 1e9": _options("--seeds", str(10**9)),
    "--steps 1e9": _options("--steps", str(10**9)),
    "--controls 1e9": _options("--controls", str(10**9)),
    "--sites of 10^9 layers": _options("--sites", "head.0-999999999.*"),
    "a region of 10^12 patches": _options("--region", "L0H0:patches=0-999999,0-999999"),
    "a card that is a YAML bomb": _in_place("pair/card.yaml", lambda path: path.write_text(_yaml_bomb())),
    "a card of 10^12 bytes": _in_place("pair/card.yaml", _endless_list),
    "a card nested 10^5 deep": _in_place("pair/card.yaml", lambda path: path.write_text("[" * 10**5)),
    "a vocabulary from /dev/zero": _options("--vocabulary", "/dev/zero"),
    "a vocabulary from a pipe": _in_place("texts.txt", os.mkfifo, "--vocabulary", "texts.txt"),
    "a vocabulary of 10^12 bytes": _in_place("texts.txt", _endless_list, "--vocabulary", "texts.txt"),
    "a vocabulary nested 10^6 deep": _in_place(
        "texts.json", lambda path: path.write_text("[" * 10**6), "--vocabulary", "texts.json"
    ),
    "weights from /dev/zero": _in_place("pair/image_encoder/model.safetensors", lambda p: p.symlink_to("/dev/zero")),
    "weights with a header of 2^62 bytes": _in_place(
        "pair/image_encoder/model.safetensors", lambda path: path.write_bytes(struct.pack("<Q", 2**62) + bytes(100))
    ),
    "a GIF of 20 million frames": _picture("frames.gif", lambda: _gif_of_frames(1000), size=340_000_000),
    "a GIF without a frame, of comments": _picture(
        "comments.gif", lambda: b"GIF89a" + bytes(7) + 20_000_000 * b"!\xfe\1a\0" + b";"
    ),
    "a JPEG of 5,000 scans": _picture("scans.jpg", lambda: jpeg_of_scans(3000, 5000)),
    "a JPEG of 90 scans, 4,000 pixels a side": _picture("edge.jpg", lambda: jpeg_of_scans(4000, 90)),
    "a PNG of 30,000 pixels a side": _picture("bomb.png", lambda: _png_of_size(30_000)),
}
"""Name of a hostile input -> puts it into the folder of a case, and gives the command that reads it."""

ACCEPTED: Mapping[str, Callable[[Path], tuple[str, ...]]] = {
    "a GIF of 2 million frames, of which the first is read": _picture("few.gif", lambda: _gif_of_frames(2_000_000)),
    "a JPEG of 100 scans, 2,800 pixels a side": _picture("most.jpg", lambda: jpeg_of_scans(2800, 100, noise=True)),
}
"""Inputs just within the limits, which are read, in up to `READ.seconds`."""


def measured(fuzzer: Fuzzer, name: str, accepted: bool = False) -> tuple[str, list[str]]:
    """A line of the table for an input, and what is wrong with how it ended."""
    case = fuzzer.new_case()
    for shared in ("picture.png", "pair"):
        copy_into(fuzzer.corpus, shared, case)
    arguments = (ACCEPTED if accepted else CASES)[name](case)
    limits = READ if accepted else LIMITS
    outcome = run_in_child(steerlens, arguments, case, limits, fuzzer.before)
    wrong = faults(outcome, limits)
    if (outcome.code == 0) != accepted:
        wrong.append("it is read" if outcome.code == 0 else "it is refused")
    message = (outcome.err.strip().splitlines() or [""])[-1].removeprefix("steerlens: ")
    row = f"| {name} | {outcome.code} | {outcome.seconds:.2f} s | {max(0, outcome.memory) / 1e6:.0f} MB |"
    return f"{row} {message[:120]} |", wrong


def main() -> int:
    """Prints the table; exit code 1 if an input takes too much or is not refused."""
    failed = 0
    sys.stdout.write("| input | exit | processor time | memory | message |\n|---|---|---|---|---|\n")
    with tempfile.TemporaryDirectory() as folder:
        fuzzer = Fuzzer(Path(folder), LIMITS)
        for name, accepted in [*((name, False) for name in CASES), *((name, True) for name in ACCEPTED)]:
            row, wrong = measured(fuzzer, name, accepted)
            failed += bool(wrong)
            sys.stdout.write(row + (f" FAILS: {'; '.join(wrong)}" if wrong else "") + "\n")
            sys.stdout.flush()
    sys.stdout.write(f"{len(CASES)} refused, {len(ACCEPTED)} read, {failed} failed\n")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
