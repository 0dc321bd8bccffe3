"""The command `steerlens app`: opens the live explorer in the browser."""

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

if TYPE_CHECKING:
    from collections.abc import Sequence

    from steerlens.app import Explorer, Policy
    from steerlens.app.models import OpenAutoencoder
    from steerlens.app.opening import Opening
    from steerlens.atlas import Atlas
    from steerlens.images import Picture
    from steerlens.saes import SparseAutoencoder
    from steerlens.zoo import Pair


@dataclass(frozen=True)
class Command:
    """Open a page on which heads are steered, decoded and ablated by hand.

    Drop a picture, click a head, drag the strength, type a target: numbers and pictures follow. What is on view can be
    saved as a run, and copied as a command or as Python code.

    Examples:
      steerlens app
      steerlens app --model dinov2-small --images photos/*.png
      steerlens app --run grin
      steerlens app --model emoji --model my-pair
      steerlens app --sae emoji-resid8
    """

    model: tyro.conf.UseAppendAction[tuple[str, ...]] = ()
    """Pair of encoder and decoder, as in steerlens lens. Can be repeated: models then stand side by side. Default:
    that of --run, or emoji."""

    folder: Annotated[Path | None, tyro.conf.arg(name="run")] = None
    """Run directory whose report is the page."""

    images: tuple[Path, ...] = ()
    """Pictures that the page offers; `sample` is the bundled one. Default: those of --run, or the bundled picture."""

    encoder: str | None = None
    """Another encoder, as in steerlens lens."""

    local: Path | None = None
    """Folder with the model's files in the hub's layout, to use instead of a download."""

    neighbours: Path | None = None
    """Index of pictures to use instead of a decoder."""

    device: str | None = None
    """Device: cpu, cuda, cuda:1, mps. Default: CUDA if available, else the CPU."""

    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """Precision of the models' weights."""

    vector: Path | None = None
    """Safetensors file with directions of the residual stream to steer along, as in steerlens lens."""

    sae: tyro.conf.UseAppendAction[tuple[str, ...]] = ()
    """Sparse autoencoder whose features can be steered, [NAME=]FOLDER, as in steerlens lens; emoji-resid8 comes with
    the package. Can be repeated. Neurons need none."""

    sae_site: str | None = None
    """Where the --sae reads, if its files do not say, as in steerlens lens."""

    sae_activation: str | None = None
    """Activation of the --sae, if its files do not say, as in steerlens lens."""

    vocabulary: Path | None = None
    """Labels for the Logit Lens, as in steerlens lens."""

    host: str = "127.0.0.1"
    """Address to listen on. Any but this machine alone asks visitors for the token in the printed URL."""

    port: int = 8420
    """Port to listen on; 0 for any free one."""

    browser: bool = True
    """Do not open the browser."""

    space: bool = False
    """Serve a public Hugging Face Space: anybody may come, with limits on time, size and number, and nothing is
    written. Listens on all addresses, port 7860."""

    def interrupted(self) -> str:
        """Message of a server that was stopped."""
        return "The explorer has stopped; saved runs are in steerlens-runs."

    def run(self) -> int:
        """Serves the explorer until it is interrupted, and returns the exit code."""
        import os

        from steerlens.app import Policy, serve
        from steerlens.cli.console import say
        from steerlens.errors import UsageError

        if self.space and (self.folder is not None or self.host != "127.0.0.1"):
            raise UsageError(
                "--space serves all addresses, with models and pictures alone: leave out --host and --run."
            )
        if self.folder is not None and not (self.folder / "manifest.json").is_file():
            raise UsageError(f"{self.folder} is not a run directory: it has no manifest.json.")
        # Before the models, so that a mistyped name is refused at once.
        given = self._pictures() if self.images else []
        policy = Policy.space() if self.space else None
        named = os.environ.get("SPACE_HOST", "") if self.space else ""
        if not self.space:
            say(f"opening {', '.join(self._models) or 'the model of the run'}; stop with Ctrl-C")
        serve(
            partial(self.open_explorer, given),
            host="0.0.0.0" if self.space else self.host,
            port=7860 if self.space and self.port == 8420 else self.port,
            policy=policy,
            names=frozenset(filter(None, (named.lower(),))),
            browser=self.browser and not self.space,
            say=lambda url: say(f"explorer: {url}"),
            complain=lambda message: say(f"the explorer did not open: {message}"),
        )
        return 0

    def _pictures(self) -> "list[Picture]":
        from steerlens.images import load_pictures
        from steerlens.zoo import is_sample, sample_picture

        return load_pictures(sample_picture() if is_sample(path) else path for path in self.images)

    @property
    def _models(self) -> tuple[str, ...]:
        return self.model or (() if self.folder is not None else ("emoji",))

    def open_explorer(self, given: "Sequence[Picture]", opening: "Opening") -> "Explorer":
        """Opens models and run, offers the given pictures, and reports its progress."""
        from steerlens.app import Policy
        from steerlens.zoo import sample_picture

        run = self._run()
        opening.reach(1)
        explorer = self._with_models(run, Policy.space() if self.space else Policy.local())
        opening.reach(2)
        shown = given or ([] if run is None else [reading.picture for reading in run.readings])
        for picture in shown or [sample_picture()]:
            explorer.inputs.offer(picture)
        explorer.warm()
        return explorer

    def _autoencoders(
        self, pair: "Pair", saes: "Sequence[SparseAutoencoder]", *, several: bool
    ) -> "dict[str, OpenAutoencoder]":
        """The autoencoders of a model by name; among several models, those that fit it."""
        from steerlens.app.models import OpenAutoencoder
        from steerlens.errors import UsageError
        from steerlens.lenses import check_direction

        opened: dict[str, OpenAutoencoder] = {}
        for text, sae in zip(self.sae, saes, strict=True):
            try:
                check_direction(sae, pair.encoder.spec, pair.decoder.spec)
            except UsageError:
                if not several:
                    raise
                continue
            source = text if Path(text).exists() else text.removeprefix(f"{sae.name}=")
            opened[sae.name] = OpenAutoencoder(sae, source, self.sae_site, self.sae_activation)
        return opened

    def _saes(self) -> "Sequence[SparseAutoencoder]":
        from steerlens.cli.lens.settings import SiteSettings

        return SiteSettings(sae=self.sae, sae_site=self.sae_site, sae_activation=self.sae_activation).saes()

    def _run(self) -> "Atlas | None":
        if self.folder is None:
            return None
        from steerlens.runs import load_run

        return load_run(self.folder)

    def _with_models(self, run: "Atlas | None", policy: "Policy") -> "Explorer":
        from steerlens.app import Explorer
        from steerlens.app.models import OpenModel, page_name
        from steerlens.cli.lens.settings import ModelSettings
        from steerlens.errors import UsageError
        from steerlens.lenses import load_directions
        from steerlens.zoo import read_vocabulary

        names = list(dict.fromkeys(self._models))
        if run is not None and not names:
            recorded = run.manifest.get("provenance") or {}
            name = str(recorded.get("name", ""))
            if not name:
                raise UsageError(f"{self.folder} does not say which model made it; name it with --model.")
            names = [name]
        options = {
            name: value
            for name in ("encoder", "local", "neighbours", "device", "dtype")
            if (value := getattr(self, name)) not in (None, "auto")
        }
        models: list[OpenModel] = []
        saes = self._saes()
        for name in names:
            pair = ModelSettings(model=name, **options).load()
            vectors = {} if self.vector is None else load_directions(self.vector, pair.encoder.spec.width)
            models.append(
                OpenModel(
                    name=page_name(name, [model.name for model in models]),
                    pair=pair,
                    arguments={"model": name, **{key: str(value) for key, value in options.items()}},
                    vocabulary=None if self.vocabulary is None else read_vocabulary(self.vocabulary, pair),
                    vocabulary_file=self.vocabulary,
                    vectors=vectors,
                    vector_file=self.vector,
                    autoencoders=self._autoencoders(pair, saes, several=len(names) > 1),
                )
            )
        fitting = {name for model in models for name in model.autoencoders}
        if lost := [sae.name for sae in saes if sae.name not in fitting]:
            raise UsageError(f"the sparse autoencoder {lost[0]} fits none of the models {', '.join(names)}.")
        return Explorer(models, policy, run)
