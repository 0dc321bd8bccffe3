"""Pictures with names: fetching, cleaning, splitting, and one compact file of uint8 tensors.

A *concept* is a named thing ("slice of pizza"), a *style* is one artist's drawing of all concepts. Splits are made over
pictures: a tenth of one style is held out (its concepts are still seen in other styles), and some concepts are never
seen in any style. Concepts with a near-duplicate, by name or by picture, are never held out, so that a held-out score
measures generalisation and not the recall of a twin.
"""

from __future__ import annotations

import hashlib
import io
import json
import shutil
import subprocess
import tarfile
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn import functional

from steerlens.errors import SteerlensError
from steerlens.training.checkpoint import write_json

SIZE = 64
TRAIN, HELD_OUT, UNSEEN = 0, 1, 2
DROPPED_CATEGORIES = frozenset({"Flags", "Symbols", "People & Body", "Component"})


@dataclass(frozen=True)
class Source:
    """One openly licensed package of pictures; `package` is its npm name."""

    style: str
    package: str
    version: str
    licence: str
    attribution: str

    @property
    def archive(self) -> str:
        """File name that `npm pack` gives to the package."""
        return f"{self.package.lstrip('@').replace('/', '-')}-{self.version}.tgz"


SOURCES = (
    Source("noto", "emoji-datasource-google", "16.0.0", "Apache-2.0", "Noto Emoji, Google"),
    Source(
        "twemoji", "emoji-datasource-twitter", "16.0.0", "CC-BY-4.0", "Twemoji, Twitter, Inc and other contributors"
    ),
    Source("fluent", "@lobehub/fluent-emoji-3d", "1.1.0", "MIT", "Fluent Emoji, Microsoft; packaged by LobeHub"),
)


@dataclass(frozen=True)
class Concept:
    """One named thing; `key` tells it apart where names do not (a code point, or a file's stem)."""

    name: str
    category: str
    key: str


@dataclass(frozen=True)
class PictureSet:
    """Named pictures in memory.

    Attributes:
        pictures: uint8 (N,4,64,64), straight RGBA in [0,255].
        concept: int64 (N), index into `concepts`.
        style: int64 (N), index into `styles`.
        split: int64 (N), 0 train, 1 held-out picture, 2 unseen concept.
        concepts: what the pictures show, in vocabulary order.
        styles: names of the styles.
        sources: where the pictures came from, with licences.
    """

    pictures: Tensor
    concept: Tensor
    style: Tensor
    split: Tensor
    concepts: tuple[Concept, ...]
    styles: tuple[str, ...]
    sources: tuple[dict[str, str], ...]

    def rows(self, split: int) -> Tensor:
        """Picture indices of a split, int64 (K)."""
        return torch.nonzero(self.split == split)[:, 0]


def fetch(directory: Path, sources: tuple[Source, ...] = SOURCES) -> list[Path]:
    """Fetch the packages that are not there yet with the ordinary npm client; returns the archives.

    Raises:
        SteerlensError: npm is missing or fails.
    """
    directory.mkdir(parents=True, exist_ok=True)
    missing = [source for source in sources if not (directory / source.archive).exists()]
    npm = shutil.which("npm")
    if missing and npm is None:
        wanted = ", ".join(f"{source.package}@{source.version}" for source in missing)
        raise SteerlensError(f"npm is missing: install it, or put the `npm pack` archives of {wanted} into {directory}")
    for source in missing:
        command = [str(npm), "pack", f"{source.package}@{source.version}", "--silent"]
        done = subprocess.run(command, cwd=directory, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise SteerlensError(f"{' '.join(command[1:])} failed: {done.stderr.strip()[-400:]}")
    return [directory / source.archive for source in sources]


def to_tensor(image: Image.Image, size: int = SIZE) -> Tensor:
    """Straight RGBA uint8 (4,size,size); the picture is padded to a square, resized in premultiplied alpha."""
    image = image.convert("RGBA")
    side = max(image.size)
    square = Image.new("RGBA", (side, side), (0, 0, 0, 0))
    square.paste(image, ((side - image.width) // 2, (side - image.height) // 2))
    raw = torch.frombuffer(bytearray(square.tobytes()), dtype=torch.uint8).reshape(side, side, 4)
    rgba = raw.permute(2, 0, 1).float() / 255
    alpha = rgba[3:]
    premultiplied = torch.cat([rgba[:3] * alpha, alpha])[None]
    if side != size:
        premultiplied = functional.interpolate(premultiplied, size=(size, size), mode="bilinear", antialias=True)
    colour, alpha = premultiplied[0, :3], premultiplied[0, 3:]
    straight = torch.where(alpha > 1 / 512, colour / alpha.clamp_min(1 / 512), torch.zeros_like(colour))
    return (torch.cat([straight, alpha]).clamp(0, 1) * 255).round().to(torch.uint8)


def clean_name(name: str) -> str:
    """Lower case, single spaces, no underscores."""
    return " ".join(name.replace("_", " ").lower().split())


def _code(text: str) -> str:
    """A code point sequence without variation selectors, which packages write differently."""
    return "-".join(part for part in text.lower().split("-") if part != "fe0f")


def _read_emoji(directory: Path) -> Iterator[tuple[Concept, str, Tensor]]:
    """(concept, style, picture) of every kept emoji of the three packages."""
    wanted: dict[str, Concept] = {}
    for source in SOURCES:
        path = directory / source.archive
        if not path.exists():
            raise SteerlensError(f"missing archive {path}: run `steerlens train prepare --data {directory}`")
        with tarfile.open(path) as archive:
            members = {member.name: member for member in archive.getmembers() if member.isfile()}

            def read(name: str, archive: tarfile.TarFile = archive) -> bytes:
                handle = archive.extractfile(name)
                if handle is None:
                    raise SteerlensError(f"cannot read {name}")
                return handle.read()

            if not wanted:
                names: set[str] = set()
                entries = json.loads(read("package/emoji.json"))
                for entry in sorted(entries, key=lambda entry: entry["sort_order"]):
                    name = clean_name(entry["name"])
                    if entry["category"] not in DROPPED_CATEGORIES and name not in names:
                        names.add(name)
                        code = _code(entry["unified"])
                        wanted[code] = Concept(name, entry["category"], entry["unified"])
            folder = {"noto": "package/img/google/64/", "twemoji": "package/img/twitter/64/"}.get(source.style)
            folder = folder or "package/assets/"
            for name in sorted(members):
                if name.startswith(folder):
                    concept = wanted.get(_code(name.removeprefix(folder).rsplit(".", 1)[0]))
                    if concept is not None:
                        yield concept, source.style, to_tensor(Image.open(io.BytesIO(read(name))))


def _read_folder(directory: Path) -> Iterator[tuple[Concept, str, Tensor]]:
    """(concept, style, picture) of `style/name.png` or `name.png`; PNG or WebP with transparency serve best."""
    for path in sorted(directory.rglob("*")):
        if path.suffix.lower() in {".png", ".webp", ".jpg", ".jpeg"}:
            style = path.parent.name if path.parent != directory else "own"
            name = clean_name(path.stem.replace("-", " "))
            yield Concept(name, style, name), style, to_tensor(Image.open(path))


def _signature(pictures: Tensor) -> Tensor:
    """float (N,768): premultiplied 16 x 16 thumbnails, for finding near-duplicates."""
    rgba = pictures.float() / 255
    small = functional.adaptive_avg_pool2d(torch.cat([rgba[:, :3] * rgba[:, 3:], rgba[:, 3:]], dim=1), 16)
    return small.flatten(1)


def near_duplicates(
    pictures: Tensor, concept: Tensor, style: Tensor, names: Tensor, *, picture: float = 0.06, name: float = 0.85
) -> Tensor:
    """bool (C): concepts that have a near-duplicate among the other concepts, by picture or by name.

    Args:
        pictures: uint8 (N,4,64,64).
        concept: int64 (N).
        style: int64 (N).
        names: float (C,E), unit-norm text embeddings of the names.
        picture: root mean square distance of 16 x 16 thumbnails under which two pictures are near-duplicates.
        name: cosine above which two names are.
    """
    similar = names @ names.T
    similar.fill_diagonal_(-1)
    twin = (similar > name).any(dim=1)
    features = _signature(pictures)
    for index in style.unique():
        rows = torch.nonzero(style == index)[:, 0]
        distance = torch.cdist(features[rows], features[rows]) / features.shape[1] ** 0.5
        distance[concept[rows][:, None] == concept[rows][None]] = 1
        twin[concept[rows[(distance < picture).any(dim=1)]]] = True
    return twin


def split_pictures(
    concept: Tensor, style: Tensor, twin: Tensor, *, held_style: int, held_share: float, unseen: int, seed: int
) -> Tensor:
    """int64 (N): the split of every picture; see `PictureSet.split`.

    A held-out picture needs its concept in another style; with a single style, held-out pictures cannot exist.
    """
    generator = torch.Generator().manual_seed(seed)
    split = torch.full_like(concept, TRAIN)
    count = int(twin.numel())
    eligible = torch.nonzero(~twin)[:, 0]
    order = eligible[torch.randperm(eligible.numel(), generator=generator)]
    never = order[: min(unseen, max(count // 5, 1))]
    split[torch.isin(concept, never)] = UNSEEN
    styles_of = torch.zeros(count, dtype=torch.long).index_add_(0, concept, torch.ones_like(concept))
    free = (style == held_style) & (split == TRAIN) & ~twin[concept] & (styles_of[concept] > 1)
    candidates = torch.nonzero(free)[:, 0]
    wanted = round(held_share * int((style == held_style).sum()))
    split[candidates[torch.randperm(candidates.numel(), generator=generator)][:wanted]] = HELD_OUT
    return split


def prepare(
    directory: Path,
    out: Path,
    embed_names: Callable[[list[str]], Tensor],
    *,
    pictures: Path | None = None,
    held_share: float = 0.1,
    unseen: int = 50,
    seed: int = 0,
) -> PictureSet:
    """Read, clean, split and save pictures into `out`; the default reads the emoji packages of `directory`.

    Args:
        directory: where the packages' archives lie.
        out: folder for `pictures.safetensors` and `pictures.json`.
        embed_names: text encoder, list of C names -> float (C,E) of unit norm.
        pictures: a folder of your own instead: `style/name.png`, or `name.png`.
        held_share: share of the last style's pictures to hold out.
        unseen: concepts to hold out in every style.
        seed: of the split.

    Raises:
        SteerlensError: no pictures were found, or an archive is missing.
    """
    found = list(_read_folder(pictures) if pictures is not None else _read_emoji(directory))
    if len(found) < 2:
        raise SteerlensError(f"found {len(found)} pictures in {pictures or directory}: at least 2 are needed")
    styles = [source.style for source in SOURCES] if pictures is None else sorted({style for _, style, _ in found})
    concepts = list(dict.fromkeys(concept for concept, _, _ in found if pictures is None))
    if pictures is not None:
        concepts = list({concept.name: concept for concept, _, _ in found}.values())
    index = {concept.name: number for number, concept in enumerate(concepts)}
    tensors = torch.stack([picture for _, _, picture in found])
    concept_ids = torch.tensor([index[concept.name] for concept, _, _ in found])
    style_ids = torch.tensor([styles.index(style) for _, style, _ in found])
    names = embed_names([concept.name for concept in concepts])
    twin = near_duplicates(tensors, concept_ids, style_ids, names)
    split = split_pictures(
        concept_ids, style_ids, twin, held_style=len(styles) - 1, held_share=held_share, unseen=unseen, seed=seed
    )
    sources: list[dict[str, str]] = []
    if pictures is None:
        for source in SOURCES:
            digest = hashlib.sha256((directory / source.archive).read_bytes()).hexdigest()
            sources.append({**asdict(source), "sha256": digest})
    result = PictureSet(tensors, concept_ids, style_ids, split, tuple(concepts), tuple(styles), tuple(sources))
    out.mkdir(parents=True, exist_ok=True)
    table = {"pictures": tensors, "concept": concept_ids, "style": style_ids, "split": split}
    save_file(table, out / "pictures.safetensors")
    write_json(
        out / "pictures.json",
        {
            "concepts": [asdict(concept) for concept in concepts],
            "styles": styles,
            "sources": sources,
            "near_duplicates": [concept.name for number, concept in enumerate(concepts) if bool(twin[number])],
            "seed": seed,
        },
    )
    return result


def load(folder: Path) -> PictureSet:
    """Load what `prepare` saved.

    Raises:
        SteerlensError: the folder holds no prepared pictures.
    """
    if not (folder / "pictures.json").exists():
        raise SteerlensError(f"{folder} holds no prepared pictures: run `steerlens train prepare` first")
    table = load_file(folder / "pictures.safetensors")
    facts = json.loads((folder / "pictures.json").read_text())
    return PictureSet(
        table["pictures"],
        table["concept"],
        table["style"],
        table["split"],
        tuple(Concept(**concept) for concept in facts["concepts"]),
        tuple(facts["styles"]),
        tuple(facts["sources"]),
    )
