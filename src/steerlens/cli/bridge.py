"""The command `steerlens bridge`: maps the embeddings of an encoder to those of another that has a decoder."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from steerlens.cli.console import ProgressBar, emit_json, say

if TYPE_CHECKING:
    from collections.abc import Sequence

    from steerlens.bridges import Candidate, Measured
    from steerlens.decoders import Decoder
    from steerlens.encoders import Encoder
    from steerlens.zoo import LocatedEncoder

DECODED = 24
"""Default number of held-out pictures to decode."""


@dataclass(frozen=True)
class Fit:
    """Learn from pictures alone to map one encoder's embeddings into the space of another that has a decoder.

    Both encoders see the same pictures; no text and no labels are used. The map is evaluated on pictures that it was
    not fitted on. `--model bridge:OUT` then runs every lens and study of the first encoder through the decoder of the
    second.

    Examples:
      steerlens bridge fit --from my-vit --to emoji --images pictures --out my-bridge
      steerlens bridge fit --from facebook/dinov2-base --to kandinsky-2.2 --images photos --decode 8 --out dino-bridge
      steerlens lens sample --model bridge:dino-bridge
    """

    source: Annotated[str, tyro.conf.arg(name="from")]
    """Encoder to analyse: a folder, a hub id, or the name of a model."""

    target: Annotated[str, tyro.conf.arg(name="to")]
    """Encoder whose decoder to use: the name of a model, the folder of a pair, or an encoder's folder or hub id."""

    images: Path
    """Folder of pictures, including subfolders, of the kind that the encoders were trained on."""

    out: Path
    """Folder of the bridge: bridge.safetensors and card.yaml."""

    held_out: Path | None = None
    """Folder of other pictures to evaluate on. Default: a fifth of the pictures, at most 500, left out of the fit."""

    map: Literal["auto", "ridge", "procrustes", "kernel"] = "auto"
    """Kind of map. auto takes the best on held-out folds, and the kernel only if it is measurably better."""

    decode: int | None = None
    """Number of held-out pictures to decode, from their mapped and from the target's own embeddings, and embed again.
    Default: 24 if the target has a decoder of embeddings. With 0, the decoder is neither used nor fetched."""

    seed: int = 0
    """Seed of the choice of held-out pictures and folds, and first seed of the decoder."""

    batch_size: int = 32
    """Pictures embedded at once."""

    device: str | None = None
    """Device: cpu, cuda, cuda:1, mps. Default: CUDA if available, else the CPU."""

    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """Precision of the models' weights."""

    local_files_only: bool = False
    """Never access the hub; use only files on this machine."""

    json: bool = False
    """Print the result as JSON on standard output, and nothing else."""

    def interrupted(self) -> str:
        """Message about an interrupted fit, which keeps nothing."""
        return "Nothing was written."

    def run(self) -> int:
        """Runs the command and returns the exit code."""
        from steerlens.bridges import BridgeOptions, end_of, make_bridge, refuse_used, save_bridge
        from steerlens.images import picture_files
        from steerlens.progress import run_to_end
        from steerlens.zoo import locate_encoder, open_encoder

        refuse_used(self.out)
        paths = picture_files(self.images)
        others = None if self.held_out is None else picture_files(self.held_out)
        ends = self.source, self.target
        with ProgressBar(quiet=self.json) as progress:
            progress.stage("loading", 2)
            first, second = (locate_encoder(text, local_files_only=self.local_files_only) for text in ends)
            source = open_encoder(first, device=self.device, dtype=self.dtype, name=self.source)
            progress.advance()
            target, decoder = self._target(second)
            progress.advance()
            decode = (0 if decoder is None else DECODED) if self.decode is None else self.decode
            options = BridgeOptions(self.map, decode, self.batch_size, seed=self.seed)
            events = make_bridge(source, target, paths, others, decoder=decoder, options=options)
            new = run_to_end(events, progress.show)
            if self.decode is not None and new.measured.n_decoded < self.decode:
                progress.say(f"--decode {self.decode}: only {new.measured.n_decoded} pictures are held out")
            for note in new.notes:
                progress.say(note)
        pictures = {
            "folder": self.images.name,
            "held_out": "a share of the folder" if self.held_out is None else self.held_out.name,
            "doubles": new.doubles,
            "seed": self.seed,
        }
        save_bridge(self.out, new.fitted, new.measured, end_of(first, source), end_of(second, target), pictures)
        if self.json:
            emit_json(_content(self.out, new.fitted.chosen, new.fitted.candidates, new.measured))
        else:
            say(f"fitted on {new.fitted.n_pictures} pictures")
            _print_measured(new.fitted.chosen, new.fitted.candidates, new.measured)
            say(f"bridge: {self.out}; use it with --model bridge:{self.out}")
        return 0

    def _target(self, located: "LocatedEncoder") -> "tuple[Encoder, Decoder | None]":
        from steerlens.loading import load
        from steerlens.zoo import open_encoder

        if self.decode == 0 or (self.decode is None and not _decodes(self.target)):
            return open_encoder(located, device=self.device, dtype=self.dtype, name=self.target), None
        pair = load(self.target, device=self.device, dtype=self.dtype, local_files_only=self.local_files_only)
        fits = self.decode is not None or pair.decoder.spec.consumes == "image_embedding"
        return pair.encoder, pair.decoder if fits else None


def _decodes(target: str) -> bool:
    """True if a target has a decoder that reads embeddings, as far as is known without loading it."""
    from steerlens.zoo import cards, found_index, has_no_decoder

    known = cards().get(target)
    if known is not None:
        return known.consumes == "image_embedding"
    return not has_no_decoder(target) or found_index(target) is not None


@dataclass(frozen=True)
class Show:
    """Show the encoders of a bridge, and its scores on pictures that it was not fitted on."""

    bridge: Annotated[Path, tyro.conf.Positional]
    """Folder of the bridge."""

    json: bool = False
    """Print JSON on standard output, and nothing else."""

    def run(self) -> int:
        """Prints the card."""
        from steerlens.bridges import read_bridge

        stored = read_bridge(self.bridge)
        if self.json:
            content = _content(self.bridge, stored.bridge.kind, stored.candidates, stored.measured)
            ends = {"from": asdict(stored.source), "to": asdict(stored.target)}
            emit_json({**content, **ends, "pictures": stored.pictures})
            return 0
        for side, end in (("from", stored.source), ("to  ", stored.target)):
            say(f"{side}  {end.source} ({end.family}, embeddings of {end.embedding_size} numbers)")
        say(f"fitted on {stored.pictures['fitted']} pictures of {stored.pictures['folder']}")
        _print_measured(stored.bridge.kind, stored.candidates, stored.measured)
        return 0


def _content(folder: Path, kind: str, candidates: "Sequence[Candidate]", measured: "Measured") -> dict[str, Any]:
    return {"bridge": folder, "kind": kind, "candidates": list(candidates), "measured": measured}


def _print_measured(kind: str, candidates: "Sequence[Candidate]", measured: "Measured") -> None:
    for candidate in candidates:
        mark = "*" if candidate.kind == kind else " "
        penalty = "" if candidate.penalty is None else f"  (penalty {candidate.penalty:.2g})"
        say(f"  {mark} {candidate.kind:10}  cosine on held-out folds {candidate.cosine:.3f}{penalty}")
    say(f"on {measured.n_pictures} held-out pictures:")
    say(f"    cosine with the target's own embedding {measured.cosine:.3f}; mean embedding {measured.baseline:.3f}")
    say(f"    the same without the mean {measured.centred:.3f}")
    say(f"    retrieval {measured.retrieval:.1%} among {measured.n_retrieved}")
    if measured.decoded is not None:
        say(
            f"    decoded and embedded again {measured.decoded:.3f}; from the target's own embedding "
            f"{measured.decoded_own:.3f} ({measured.n_decoded} pictures)"
        )


Command = Annotated[Fit, tyro.conf.subcommand(name="fit")] | Annotated[Show, tyro.conf.subcommand(name="show")]
"""Subcommands of `steerlens bridge`."""
