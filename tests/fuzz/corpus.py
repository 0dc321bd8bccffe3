"""The corpus: one small valid input of every kind, made once, and what is mutated of it for each kind."""

import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from random import Random

import numpy as np
import torch
import yaml
from mutations import mutate_file, mutated_bytes, mutated_value
from PIL import Image
from safetensors.torch import save_file

from steerlens.testing.tiny import save_tiny_pair

FAST = ("--sites", "head.0.0,resid_post.1", "--lens", "diffusion", "--steps", "1", "--no-cache")

_FORMATS = ("png", "jpg", "gif", "tif", "webp", "bmp")

CARD = """\
title: a tiny pair
licence: none
paper: "2503.12345"
consumes: image_embedding
embedding_size: 12
layers: 2
heads: 2
gigabytes: 0.001
strength: rho=1
reencoding_cosine: 0.5
defaults:
  scheduler: ddpm
  steps: 2
  guidance: 1.0
  size: [8, 8]
"""


def make_corpus(folder: Path, command: Callable[[Sequence[str]], int]) -> None:
    """Makes the valid inputs in a folder, by the commands themselves where they write them."""
    pixels = np.random.default_rng(0).integers(0, 255, (24, 20, 3), dtype=np.uint8)
    folder.mkdir(parents=True)
    (folder / "pictures").mkdir()
    for suffix in _FORMATS:
        Image.fromarray(pixels).save(folder / "pictures" / f"noise.{suffix}")
    Image.fromarray(pixels).save(folder / "picture.png")
    save_tiny_pair(folder / "pair", layers=2)
    (folder / "texts.txt").write_text("a cat\na dog\n" * 3)
    save_file({"one": torch.ones(16), "two": torch.eye(16)[:2]}, folder / "vector.safetensors")
    picture, pair = str(folder / "picture.png"), str(folder / "pair")
    if command(("lens", picture, "--model", pair, *FAST, "--out", str(folder / "run"))) != 0:
        raise RuntimeError("the corpus cannot be made")
    index_pictures = (
        "neighbours",
        "index",
        str(folder / "pictures"),
        "--encoder",
        pair,
        "--out",
        str(folder / "index"),
    )
    if command(index_pictures) != 0:
        raise RuntimeError("the index cannot be made")


def copy_into(corpus: Path, name: str, case: Path) -> Path:
    """Copies a file or folder of the corpus into the folder of a case, and returns its path there."""
    source, target = corpus / name, case / name
    return Path(shutil.copytree(source, target)) if source.is_dir() else Path(shutil.copy(source, target))


def pictures(corpus: Path, case: Path, rng: Random) -> tuple[str, ...]:
    """A mutated picture is priced, which reads it."""
    source = rng.choice(sorted((corpus / "pictures").iterdir()))
    path = Path(shutil.copy(source, case / source.name))
    mutate_file(path, rng)
    return ("lens", path.name, "--model", str(corpus / "pair"), "--dry-run")


def _model(corpus: Path, case: Path, rng: Random, pattern: str) -> tuple[str, ...]:
    pair = copy_into(corpus, "pair", case)
    mutate_file(rng.choice(sorted(pair.rglob(pattern))), rng)
    return ("lens", str(corpus / "picture.png"), "--model", "pair", *FAST, "--out", "out")


def configs(corpus: Path, case: Path, rng: Random) -> tuple[str, ...]:
    """A config of the pair is mutated, and the pair is loaded and used."""
    return _model(corpus, case, rng, "*config.json" if rng.random() < 0.8 else "model_index.json")


def weights(corpus: Path, case: Path, rng: Random) -> tuple[str, ...]:
    """Weights of the pair are mutated, and the pair is loaded and used."""
    return _model(corpus, case, rng, "*model.safetensors")


def vocabularies(corpus: Path, case: Path, rng: Random) -> tuple[str, ...]:
    """A vocabulary, a list of texts, or a file of directions is mutated, and a sweep reads it."""
    kind = rng.randrange(4)
    given = ("lens", str(corpus / "picture.png"), "--model", str(corpus / "pair"), *FAST, "--out", "out")
    if kind == 0:
        mutate_file(copy_into(corpus, "texts.txt", case), rng, replace=0.3)
        return (*given, "--vocabulary", "texts.txt")
    if kind == 1:
        mutate_file(copy_into(corpus, "vector.safetensors", case), rng)
        return (*given, "--vector", "vector.safetensors")
    for name in ("vocabulary.json", "vocabulary.safetensors"):
        shutil.copy(corpus / "pair" / name, case / name)
    mutate_file(case / ("vocabulary.json" if kind == 2 else "vocabulary.safetensors"), rng)
    return (*given, "--vocabulary", "vocabulary.json")


def cards(corpus: Path, case: Path, rng: Random) -> tuple[str, ...]:
    """A card of the pair's own folder is mutated, and the pair is priced and loaded."""
    pair = copy_into(corpus, "pair", case)
    content, kind = yaml.safe_load(CARD), rng.randrange(3)
    if kind == 0:
        text = mutated_bytes(CARD.encode(), rng)
    else:
        text = yaml.safe_dump(mutated_value(content, rng), allow_unicode=False).encode("utf-8", "replace")
    if kind == 2:
        text += rng.choice((b"x: &a [1]\ny: [*a, *a]\n", b"x: !!python/name:os.system\n", b"[" * 2000, b"? ? ? ?\n"))
    (pair / "card.yaml").write_bytes(text)
    return ("lens", str(corpus / "picture.png"), "--model", "pair", *FAST, "--out", "out")


def indexes(corpus: Path, case: Path, rng: Random) -> tuple[str, ...]:
    """An index of pictures is mutated, and decodes."""
    index = copy_into(corpus, "index", case)
    mutate_file(rng.choice(sorted(index.glob("neighbours.*"))), rng)
    return ("lens", str(corpus / "picture.png"), "--model", "index", *FAST, "--out", "out")


def _run_command(rng: Random) -> tuple[str, ...]:
    form = rng.choice(("png", "parquet", "report"))
    return rng.choice(
        (
            ("runs", "show", "run"),
            ("runs", "merge", "run", "--out", "out"),
            ("runs", "export", "run", "--format", form, "--out", "out"),
        )
    )


def manifests(corpus: Path, case: Path, rng: Random) -> tuple[str, ...]:
    """The manifest of a run is mutated, and the run is shown, merged or exported."""
    run = copy_into(corpus, "run", case)
    mutate_file(rng.choice(sorted(run.glob("*.json"))), rng)
    if rng.random() < 0.5:  # a run without hashes is not known by its fingerprint either
        (run / "SHA256SUMS").unlink(missing_ok=True)
    return _run_command(rng)


def parquet(corpus: Path, case: Path, rng: Random) -> tuple[str, ...]:
    """A part of a run is mutated, and the run is shown, merged or exported."""
    run = copy_into(corpus, "run", case)
    mutate_file(
        rng.choice(sorted(path for path in run.rglob("*.*") if path.suffix in (".parquet", ".safetensors"))), rng
    )
    if rng.random() < 0.75:  # without hashes, as runs of 0.1.0 are, damage must be found by reading
        (run / "SHA256SUMS").unlink(missing_ok=True)
    return _run_command(rng)


_OPTIONS = (
    *("--sites", "--strength", "--tokens", "--decode", "--seed", "--seeds", "--controls", "--labels", "--steps"),
    *(
        "--guidance",
        "--guidance-interval",
        "--scheduler",
        "--batch-size",
        "--target",
        "--vector",
        "--group",
        "--region",
    ),
    *("--vocabulary", "--device", "--dtype", "--model", "--encoder", "--local", "--engine", "--workers", "--lens"),
    *("--preview", "--no-cache", "--json", "--out", "--compile", "--neighbours", "--worker-gpus", "--address"),
)

_VALUES = (
    *("0", "-1", "1e9", str(10**9), str(10**30), "nan", "inf", "", " ", "\x1b[31m", "x" * 5000, "../../victim", "/"),
    *("heads", "all", "head.0-999999999.*", "L0H0", "head.*.*", "resid_post.*", "s=40", "rho=nan", "rho=1e308", "40"),
    *("top:1", "top:1000000000", "above:2", "late=head.0-1.*", "L0H0:0,0,8,8", "L0H0:patches=0-999999,0", "cls", "cpu"),
    *("cuda:99", "emoji", "kandinsky-2.2", "owner/name@x", "/dev/zero", "picture.png", "ddim", "local", "0 1", "out"),
)


def command_lines(corpus: Path, case: Path, rng: Random) -> tuple[str, ...]:
    """Options and values are drawn at random; nothing is computed, only priced."""
    shutil.copy(corpus / "picture.png", case / "picture.png")
    drawn: list[str] = []
    for _ in range(rng.randint(1, 4)):
        drawn.append(rng.choice(_OPTIONS))
        drawn += [rng.choice(_VALUES) for _ in range(rng.choice((0, 1, 1, 1, 2)))]
    return ("lens", "picture.png", "--model", str(corpus / "pair"), "--dry-run", "--local-files-only", *drawn)


KINDS: Mapping[str, Callable[[Path, Path, Random], tuple[str, ...]]] = {
    "pictures": pictures,
    "configs": configs,
    "weights": weights,
    "vocabularies": vocabularies,
    "cards": cards,
    "indexes": indexes,
    "manifests": manifests,
    "parquet": parquet,
    "command lines": command_lines,
}
"""What mutates an input of each kind in a case's folder, and gives the command that reads it."""
