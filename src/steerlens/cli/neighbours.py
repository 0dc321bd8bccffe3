"""The command `steerlens neighbours`: your own pictures in place of generated ones."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from steerlens.cli.console import ProgressBar, emit_json, say

if TYPE_CHECKING:
    from steerlens.zoo import LocatedEncoder

_NEAREST = 5
"""Default number of neighbours; a smaller index shows all that it holds."""


@dataclass(frozen=True)
class Index:
    """Index a folder of pictures with an encoder, to show the nearest pictures instead of decoded ones.

    The index is a small folder that can be used as a model. Nothing is invented: every picture shown is one of yours.

    Examples:
      steerlens neighbours index photos --out photos-index
      steerlens neighbours index photos --encoder facebook/dinov2-base --out dino-index
      steerlens lens sample --model photos-index
    """

    pictures: tyro.conf.Positional[Path]
    """Folder of pictures, including its subfolders."""

    out: Path = Path("neighbours-index")
    """Folder of the index. With the default name, in the current or the encoder's folder, steerlens lens PICTURE
    --model ENCODER uses it automatically for an encoder without a decoder."""

    encoder: str = "emoji"
    """Encoder: the name of a model, a hub id or a folder. Models of pictures of any shape (NaFlex) see squares, or with
    ?shape=WIDTHxHEIGHT after their name pictures of that shape."""

    local: Path | None = None
    """Folder with the files of the --encoder's model in the hub's layout, to use instead of a download."""

    batch_size: int = 32
    """Pictures embedded at once."""

    device: str | None = None
    """Device: cpu, cuda, cuda:1, mps. Default: CUDA if available, else the CPU."""

    local_files_only: bool = False
    """Never access the hub; use only files on this machine."""

    json: bool = False
    """Print the result as JSON on standard output, and nothing else."""

    dry_run: bool = False
    """Check all options and inputs, print what would be computed with estimates of time and memory, and stop."""

    def run(self) -> int:
        """Builds the index and returns the exit code."""
        from steerlens.decoders import NeighboursDecoder, Skipped, index_pictures
        from steerlens.errors import UsageError
        from steerlens.images import picture_files
        from steerlens.runs import refuse_run
        from steerlens.zoo import open_encoder

        if self.batch_size < 1:
            raise UsageError(f"--batch-size must be at least 1, not {self.batch_size}.")
        refuse_run(self.out)
        count, skipped = len(picture_files(self.pictures)), list[str]()
        if self.dry_run:
            return self._dry_run(count)
        with ProgressBar(quiet=self.json) as progress:
            progress.stage("loading", 1)
            located = self._located(local_files_only=self.local_files_only)
            encoder = open_encoder(located, device=self.device, name=self.encoder)
            progress.advance(1)
            progress.stage("indexing", count, unit="pictures")
            events = index_pictures(encoder, self.pictures, self.out, source=located.source, batch_size=self.batch_size)
            for event in events:
                if isinstance(event.payload, Skipped):
                    skipped.append(event.payload.reason)
                    progress.say(f"skipped: {event.payload.reason}")
                progress.advance(1)
        index = NeighboursDecoder(self.out)
        summary: dict[str, Any] = {"index": str(self.out), "pictures": len(index.files), "skipped": skipped}
        if self.json:
            emit_json(summary)
        else:
            say(f"indexed with the encoder {self.encoder}{self._unless_given()}")
            say(f"{len(index.files)} pictures indexed; to use them: steerlens lens PICTURE --model {self.out}")
        return 0

    def _located(self, *, local_files_only: bool) -> "LocatedEncoder":
        from steerlens.zoo import locate_encoder, locate_encoder_in

        if self.local is not None:
            return locate_encoder_in(self.encoder, self.local)
        return locate_encoder(self.encoder, local_files_only=local_files_only)

    def _unless_given(self) -> str:
        """Points out the default, which is an encoder of emoji: an index works with its own encoder alone."""
        return " (the default; --encoder names another)" if self.encoder == Index.encoder else ""

    def _dry_run(self, count: int) -> int:
        from steerlens.cli.planned import encoder_rates
        from steerlens.cli.work import tell
        from steerlens.studies.shared import Work
        from steerlens.zoo import open_encoder

        located = self._located(local_files_only=True)
        encoder = open_encoder(located, device=self.device, name=self.encoder)
        work = Work(pictures=count, references=0, heads=0, encoder_passes=count, decoded={})
        say(f"to index with the encoder {self.encoder}{self._unless_given()}", quiet=self.json)
        return tell(work, encoder_rates(encoder), self.out, resumes=False, json=self.json)


@dataclass(frozen=True)
class Find:
    """List the pictures of an index that are closest to a picture, with their cosine similarities.

    Examples:
      steerlens neighbours find photos-index sample
    """

    index: tyro.conf.Positional[Path]
    """Folder of the index."""

    picture: tyro.conf.Positional[Path]
    """Picture whose neighbours to list; `sample` is a picture in the package."""

    count: int = _NEAREST
    """Number of neighbours."""

    device: str | None = None
    """Device: cpu, cuda, cuda:1, mps. Default: CUDA if available, else the CPU."""

    local_files_only: bool = False
    """Never access the hub; use only files on this machine."""

    json: bool = False
    """Print the result as JSON on standard output, and nothing else."""

    def run(self) -> int:
        """Prints the nearest pictures, best first, and returns the exit code."""
        from steerlens.errors import UsageError
        from steerlens.zoo import named_picture, open_index

        if self.count < 1:
            raise UsageError(f"--count must be at least 1, not {self.count}.")
        picture = named_picture(self.picture)
        pair = open_index(self.index, device=self.device, local_files_only=self.local_files_only)
        if self.count != _NEAREST and self.count > len(pair.decoder.files):
            raise UsageError(f"--count {self.count}: the index holds only {len(pair.decoder.files)} pictures.")
        embedding = pair.encoder.embed(pair.encoder.preprocess([picture.image]))
        indices, cosines = pair.decoder.nearest(embedding, self.count)
        files = [str(pair.decoder.files[index]) for index in indices[0].tolist()]
        nearest = [{"file": file, "cosine": cosine} for file, cosine in zip(files, cosines[0].tolist(), strict=True)]
        if self.json:
            emit_json(nearest)
        for row in nearest:
            say(f"{row['cosine']:.3f}  {row['file']}", quiet=self.json)
        return 0


Command = Annotated[Index, tyro.conf.subcommand("index")] | Annotated[Find, tyro.conf.subcommand("find")]
