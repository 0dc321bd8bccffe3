"""The command `steerlens doctor`: loads a model and checks everything that a lens relies on."""

import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import tyro

from steerlens.cli.console import ProgressBar, emit_json, say
from steerlens.errors import SteerlensError

if TYPE_CHECKING:
    from steerlens.encoders import Encoder
    from steerlens.images import Picture
    from steerlens.zoo import Pair, Probe


@dataclass(frozen=True)
class DoctorCheck:
    """Outcome of a check.

    Attributes:
        name: the property that was checked.
        passed: True if it holds.
        detail: the measured number, or the reason of the failure.
    """

    name: str
    passed: bool
    detail: str


@dataclass(frozen=True)
class Command:
    """Load a model or a bare encoder and check everything that the lenses rely on. Exits with 1 if a check fails.

    The checks: all weights are present, finite, and those of the manifest of the package or the pair; the parts of the
    residual stream add up to the whole; the readout equals the native embedding; the closed form of the Steering Lens
    equals steering and patching with hooks; and a picture that is embedded, decoded and embedded again stays the same.
    A decoder that comes without its encoder (dinov2-small) brings scenes along: they tell whether it fits the encoder's
    weights on this machine, which may not be those it was trained with.

    For an encoder without a decoder, the checks of the decoder are left out. With --reference, the statistics of a
    model's domain are measured and kept, by which steerlens lens recognises pictures of another kind.

    Examples:
      steerlens doctor kandinsky-2.2
      steerlens doctor my-folder --picture sample
      steerlens doctor facebook/dinov2-base
      steerlens doctor my-pair --reference pictures-like-those-of-the-training
    """

    model: tyro.conf.Positional[str] = "emoji"
    """Name of a model, folder of a pair, index of pictures, bridge:PATH, or an encoder: a folder, a hub id, or a name
    of open_clip or timm."""

    picture: Path | None = None
    """Picture to check with; `sample` is a picture in the package. Default: that one, or the first picture of an
    index."""

    local: Path | None = None
    """Folder with the model's files in the hub's layout, to use instead of a download."""

    reference: Path | None = None
    """Folder of at least 100 pictures like those that the model was trained on: measures what they have in common, and
    keeps it for this model (in the cache of this user, so that the model's files stay as they are)."""

    threshold: float | None = None
    """Smallest cosine between the embeddings of a picture and of its reconstruction. Default: the model's, or 0.4."""

    device: str | None = None
    """Device: cpu, cuda, ... Default: CUDA if available, else the CPU."""

    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """Precision of the models' weights."""

    local_files_only: bool = False
    """Never access the hub; use only files on this machine."""

    json: bool = False
    """Print JSON on standard output, and nothing else."""

    def run(self) -> int:
        """Prints the list of checks; returns 1 if any failed, else 0."""
        from steerlens.images import load_picture
        from steerlens.loading import load
        from steerlens.zoo import IndexPair, found_index, has_no_decoder, locate_pair, named_picture, sample_picture

        if self.local is None and has_no_decoder(self.model) and found_index(self.model) is None:
            return self._check_encoder()
        results: list[DoctorCheck] = []
        with ProgressBar(quiet=self.json or not sys.stderr.isatty()) as progress:
            picture = None if self.picture is None else named_picture(self.picture)
            progress.stage("loading")
            pair = load(
                self.model,
                device=self.device,
                dtype=self.dtype,
                local=self.local,
                local_files_only=self.local_files_only,
            )
            results.append(
                DoctorCheck("loads: every weight is present, finite, and of the right shape", True, _sizes(pair))
            )
            progress.stage("checking")
            apart = self.model.startswith("bridge:")  # loading has compared its encoders' files
            if isinstance(pair, IndexPair):
                apart = True  # not the folder of a pair; it shows only its own pictures, so the test uses one of them
                picture = load_picture(pair.decoder.files[0]) if picture is None else picture
            where = self.local, self.local_files_only
            folder = None if apart else locate_pair(self.model, local=where[0], local_files_only=where[1]).folder
            picture = sample_picture() if picture is None else picture
            for check in checks(pair, picture, self.threshold, folder):
                results.append(check)
                progress.advance()
            if self.reference is not None:
                results.append(self._measure_domain(pair, progress))
        passed = all(check.passed for check in results)
        if self.json:
            emit_json(
                {"model": self.model, "passed": passed, "checks": results, "provenance": pair.provenance.to_json()}
            )
            return 0 if passed else 1
        for check in results:
            say(f"{'ok  ' if check.passed else 'FAIL'}  {check.name}: {check.detail}")
        for note in pair.notes:
            say(f"note  {note}")
        say(f"{self.model} is {'fine' if passed else 'not usable: see the lines that say FAIL'}.")
        return 0 if passed else 1

    def _check_encoder(self) -> int:
        """Checks an encoder without a decoder, prints the list, and returns the exit code."""
        from steerlens.errors import UsageError
        from steerlens.zoo import load_encoder, named_picture, sample_picture

        if self.reference is not None:
            raise UsageError(f"--reference measures the domain of a pair, and {self.model} has no decoder.")
        with ProgressBar(quiet=self.json or not sys.stderr.isatty()) as progress:
            picture = sample_picture() if self.picture is None else named_picture(self.picture)
            progress.stage("loading")
            encoder = load_encoder(
                self.model, device=self.device, dtype=self.dtype, local_files_only=self.local_files_only
            )
            spec = encoder.spec
            sizes = f"{spec.n_layers} layers x {spec.n_heads} heads x {spec.width}, embedding {spec.embedding_size}"
            loaded = DoctorCheck(f"loads as {spec.family}: every weight is present, finite and in place", True, sizes)
            results = [loaded, *encoder_checks(encoder, picture)]
        passed = all(check.passed for check in results)
        note = (
            "an encoder without a decoder: to see pictures, index a folder (steerlens neighbours index PICTURES "
            f"--encoder {self.model}), or borrow another encoder's decoder (steerlens bridge fit --from {self.model} "
            "--to emoji --images PICTURES)"
        )
        if self.json:
            emit_json({"model": self.model, "passed": passed, "checks": results, "decoder": None})
            return 0 if passed else 1
        for check in results:
            say(f"{'ok  ' if check.passed else 'FAIL'}  {check.name}: {check.detail}")
        say(f"note  {note}")
        say(f"{self.model} is {'fine' if passed else 'not usable: see the lines that say FAIL'}.")
        return 0 if passed else 1

    def _measure_domain(self, pair: "Pair", progress: ProgressBar) -> DoctorCheck:
        from steerlens.images import load_picture, picture_files
        from steerlens.progress import run_to_end
        from steerlens.zoo import measure_reference, save_reference, user_reference

        folder = Path(self.reference or "")
        images = [load_picture(path).image for path in picture_files(folder)]
        words = f"pictures of {folder.name}"
        reference = run_to_end(measure_reference(pair, images, words), progress.show)
        place = save_reference(reference, user_reference(pair.provenance.sha256))
        return DoctorCheck("the domain is measured", True, f"{reference.count} {words}, kept in {place}")


def encoder_checks(encoder: "Encoder", picture: "Picture") -> Iterator[DoctorCheck]:
    """Runs the checks that concern the encoder alone, one by one.

    Args:
        encoder: the encoder.
        picture: picture to check with.
    """
    yield _try("the parts of the residual stream add up to the whole", lambda: _decomposition(encoder, picture))
    yield _try("the readout equals the native embedding", lambda: _readout(encoder, picture))
    yield _try("steering in closed form equals steering and patching", lambda: _closed_form(encoder, picture))


def checks(
    pair: "Pair", picture: "Picture", threshold: float | None = None, folder: Path | None = None
) -> Iterator[DoctorCheck]:
    """Runs the checks one by one; a check that raises counts as failed, and the others still run.

    Args:
        pair: the loaded model.
        picture: picture to check with.
        threshold: smallest cosine after decoding and embedding again; by default the card's, or 0.4.
        folder: folder of the pair, if it is a single folder; its manifest.json, if any, lists the expected files.
    """
    if folder is not None and (folder / "manifest.json").is_file():
        yield _try("the files are those published with the pair", lambda: _files(folder))
    from steerlens.zoo import load_probe

    manifest = pair.card.configs if pair.card is not None else None
    if manifest is not None:
        yield _try("names and shapes of the weights are the published ones", lambda: _manifest(pair, manifest))
    yield from encoder_checks(pair.encoder, picture)
    least = threshold if threshold is not None else pair.card.reencoding_cosine if pair.card else 0.4
    yield _try("a decoded picture has the same embedding", lambda: _round_trip(pair, picture, least))
    probe = None if folder is None or pair.decoder.spec.consumes != "image_embedding" else load_probe(folder)
    if folder is not None and probe is not None:
        yield _try("the decoder fits the encoder's weights", lambda: _fit(pair, folder, probe))


def _try(name: str, check: Callable[[], tuple[bool, str]]) -> DoctorCheck:
    try:
        return DoctorCheck(name, *check())
    except SteerlensError as error:
        return DoctorCheck(name, False, str(error))


def _sizes(pair: "Pair") -> str:
    spec, decoder = pair.encoder.spec, pair.decoder.spec
    return (
        f"{spec.n_layers} layers x {spec.n_heads} heads x {spec.width}, embedding {spec.embedding_size}; "
        f"pictures of {decoder.defaults.size[0]} x {decoder.defaults.size[1]}"
    )


def _manifest(pair: "Pair", name: str) -> tuple[bool, str]:
    from steerlens.zoo import differences, read_manifest, shapes_of

    manifest = read_manifest(name)
    models = {"image_encoder": "encoder.model", "unet": "decoder.unet", "movq": "decoder.movq"}
    lines: list[str] = []
    for component, path in models.items():
        owner, attribute = path.split(".")
        lines += differences(component, shapes_of(getattr(getattr(pair, owner), attribute)), manifest)
    if lines:
        return False, f"{len(lines)} differences, first: {lines[0]}"
    return True, f"{sum(len(manifest[component]) for component in models)} tensors"


def _files(folder: Path) -> tuple[bool, str]:
    import hashlib

    from steerlens.storage import read_json

    listed: Mapping[str, Mapping[str, object]] = read_json(folder / "manifest.json", "manifest").get("files", {})
    decisive = {name: entry for name, entry in listed.items() if name.endswith((".safetensors", ".json"))}
    for name, entry in decisive.items():
        file = folder / name
        if not file.is_file():
            return False, f"{name} is missing"
        if hashlib.sha256(file.read_bytes()).hexdigest() != entry.get("sha256"):
            return False, f"{name} is not the file that manifest.json lists"
    return bool(decisive), f"{len(decisive)} files, by SHA-256" if decisive else "manifest.json lists no files"


def _decomposition(encoder: "Encoder", picture: "Picture") -> tuple[bool, str]:
    trace = encoder.trace(encoder.preprocess([picture.image]))
    return True, f"relative error {trace.check():.1e}"  # raises if the error is too large


def _readout(encoder: "Encoder", picture: "Picture") -> tuple[bool, str]:
    from steerlens.scores import cosine_distance

    inputs = encoder.preprocess([picture.image])
    native = encoder.embed(inputs)
    distance = cosine_distance(encoder.readout(encoder.trace(inputs).final), native)
    return distance <= _tolerance(encoder), f"cosine distance {distance:.1e}"


def _closed_form(encoder: "Encoder", picture: "Picture") -> tuple[bool, str]:
    from steerlens.lenses import SteeringLens, Strength, steer_and_patch
    from steerlens.scores import cosine_distance
    from steerlens.sites import Site

    inputs, factor = encoder.preprocess([picture.image]), 10.0
    site = Site("head", encoder.spec.n_layers // 2, 0)
    lens = SteeringLens(encoder, Strength("s", factor))
    closed = lens.embeddings(encoder.trace(inputs), [site])[:, 0]
    distance = cosine_distance(closed, steer_and_patch(encoder, inputs, site, factor))
    return distance <= _tolerance(encoder), f"cosine distance {distance:.1e} at {site.label}, s={factor:g}"


def _round_trip(pair: "Pair", picture: "Picture", least: float) -> tuple[bool, str]:
    from steerlens.decoders import clean_conditioning, decode
    from steerlens.scores import cosine_similarity

    inputs = pair.encoder.preprocess([picture.image])
    embedding = pair.encoder.embed(inputs).float()
    pictures = decode(pair.decoder, clean_conditioning(pair.encoder, pair.decoder, inputs), [0])
    again = pair.encoder.embed(pair.encoder.preprocess_tensor(pictures)).float()
    cosine = float(cosine_similarity(embedding, again)[0])
    return cosine >= least, f"cosine {cosine:.2f} with {picture.name} (at least {least:g})"


def _fit(pair: "Pair", folder: Path, probe: "Probe") -> tuple[bool, str]:
    from steerlens.zoo import measure_fit, trained_weights

    measured = measure_fit(pair.encoder, pair.decoder, probe)
    trained = trained_weights(folder)
    own = {name.rpartition("/")[2]: value for name, value in pair.provenance.sha256.items() if "image_encoder" in name}
    same = all(own.get(name) == value for name, value in trained.items())
    weights = "the weights are those of its training" if same else "the weights are another file than its training's"
    return measured.fit >= probe.least, (
        f"re-encoded cosine {measured.fit:.2f} on {len(probe.scenes)} scenes, their mean subtracted (at least "
        f"{probe.least:.2f}; {probe.figure:.2f} in training); {weights}, embeddings agree to {measured.agreement:.4f}"
    )


def _tolerance(encoder: "Encoder") -> float:
    """Largest cosine distance that rounding explains, in the encoder's precision."""
    import torch

    return 1e-6 if encoder.dtype in (torch.float32, torch.float64) else 1e-2
