"""The corpus: one small valid input of every kind, made once, and what is mutated of it for each kind."""

import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from random import Random

import numpy as np
import torch
import yaml
from mutations import mutate_file, mutated_bytes, mutated_tensors, mutated_value
from PIL import Image
from safetensors.torch import save_file

from steerlens.testing.tiny import save_tiny_pair

FAST = ("--sites", "head.0.0,resid_post.1", "--lens", "diffusion", "--steps", "1", "--no-cache")

_FORMATS = ("png", "jpg", "gif", "tif", "webp", "bmp")

EXPLORER = "explorer-requests"
"""Name of a command of the fuzzer's own."""

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
    save_file({"one": torch.arange(16.0), "two": torch.eye(16)[:2]}, folder / "vector.safetensors")
    _make_autoencoders(folder / "autoencoders", width=16)
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
    if command(("runs", "publish", str(folder / "run"), "--out", str(folder / "site"))) != 0:
        raise RuntimeError("the site cannot be made")


def _make_autoencoders(folder: Path, width: int, features: int = 24) -> None:
    """Writes a sparse autoencoder in the layout of each library that is read."""
    rows = torch.nn.functional.normalize(torch.randn(features, width), dim=1)
    weights = {"W_enc": rows.T.contiguous(), "W_dec": rows, "b_enc": torch.zeros(features), "b_dec": torch.zeros(width)}
    for name in ("saelens", "prisma", "plain", "saev", "overcomplete"):
        (folder / name).mkdir(parents=True)
    config = {"architecture": "topk", "k": 4, "d_in": width, "d_sae": features, "apply_b_dec_to_input": False}
    config |= {"hook_name": "blocks.1.hook_resid_post", "normalize_activations": "layer_norm"}
    (folder / "saelens" / "cfg.json").write_text(json.dumps(config))
    save_file(weights, folder / "saelens" / "sae_weights.safetensors")
    config = {"hook_point_layer": 1, "layer_subtype": "hook_resid_post", "activation_fn_str": "topk"}
    (folder / "prisma" / "config.json").write_text(json.dumps({**config, "activation_fn_kwargs": {"k": 4}}))
    torch.save({"state_dict": weights}, folder / "prisma" / "weights.pt")
    save_file({**weights, "threshold": torch.full((features,), 0.1)}, folder / "plain" / "plain.safetensors")
    with (folder / "saev" / "saev.pt").open("wb") as stream:
        activation = {"cls": "BatchTopK", "params": {"top_k": 4}}
        stream.write(json.dumps({"schema": 5, "cfg": {"activation": activation}}).encode() + b"\n")
        torch.save({**weights, "activation.threshold": torch.tensor(0.1)}, stream)
    layers = {"encoder.final_block.0.weight": rows, "dictionary._weights": rows, "thresholds": torch.zeros(features)}
    torch.save(layers, folder / "overcomplete" / "overcomplete.pt")


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


def autoencoders(corpus: Path, case: Path, rng: Random) -> tuple[str, ...]:
    """A file of a sparse autoencoder is mutated, and its features are looked at."""
    folder = copy_into(
        corpus / "autoencoders", rng.choice(("saelens", "prisma", "plain", "saev", "overcomplete")), case
    )
    path = rng.choice(sorted(folder.iterdir()))
    if path.suffix == ".pt" and rng.random() < 0.7:
        mutated_tensors(path, rng)
    else:
        mutate_file(path, rng)
    source = path if rng.random() < 0.5 or folder.name in ("plain", "saev", "overcomplete") else folder
    site = () if rng.random() < 0.3 else ("--sae-site", "resid_post.1")
    activation = () if rng.random() < 0.7 else ("--sae-activation", rng.choice(("relu", "top_k:3", "batch_top_k:0.1")))
    chosen = ("--sites", "features", "--strongest", "2", "--lens", "steering", "--steps", "1", "--no-cache")
    models = ("lens", str(corpus / "picture.png"), "--model", str(corpus / "pair"), "--out", "out")
    return (*models, "--sae", str(source.relative_to(case)), *site, *activation, *chosen)


def second_order(corpus: Path, case: Path, rng: Random) -> tuple[str, ...]:
    """Weights or a config of the pair are mutated, and neurons are followed through later attention."""
    pair = copy_into(corpus, "pair", case) / "image_encoder"
    # Whole weights in a third of all cases, so that many get as far as the computation.
    files = ("config.json",) if rng.random() < 0.3 else ("config.json", "model.safetensors")
    mutate_file(pair / rng.choice(files), rng)
    sites = rng.choice(("neurons", "neuron.0", "neuron.0.3,neuron.1.2", "neuron.1", "neuron.0.99999,neurons"))
    given = ("lens", str(corpus / "picture.png"), "--model", "pair", "--sites", sites, "--lens", "steering")
    return (*given, "--strongest", rng.choice(("1", "3", "500")), "--steps", "1", "--no-cache", "--out", "out")


def sites(corpus: Path, case: Path, rng: Random) -> tuple[str, ...]:
    """A run or the marker of a site is mutated, and the run is published in the place of the site."""
    run = copy_into(corpus, "run", case)
    copy_into(corpus, "site", case).rename(case / "out")
    kind = rng.randrange(3)
    if kind == 0:
        mutate_file(case / "out" / "site.json", rng)
    elif kind == 1:
        mutate_file(run / "manifest.json", rng)
    else:
        mutate_file(rng.choice(sorted(path for path in run.rglob("*.parquet"))), rng)
    (run / "SHA256SUMS").unlink(missing_ok=True)
    title = rng.choice(("", "a title", "</title><script>", "x" * 5000, "\x1b[31m\u202e"))
    url = rng.choice(("", "https://example.org/a", "https://[::1", "javascript:x", "https://a b/", "//x"))
    force = ("--force",) if rng.random() < 0.9 else ()
    named = (*(("--title", title) if title else ()), *(("--url", url) if url else ()))
    return ("runs", "publish", "run", "--out", "out", *named, *force)


def explorer(corpus: Path, case: Path, rng: Random) -> tuple[str, ...]:
    """Ten hostile requests are sent to the server of an explorer (`explorer_command` in `fuzzing.py`)."""
    del corpus, case
    return (EXPLORER, str(rng.randrange(10**9)), "10")


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
    "autoencoders": autoencoders,
    "second order": second_order,
    "sites": sites,
    "explorer": explorer,
}
"""What mutates an input of each kind in a case's folder, and gives the command that reads it."""
