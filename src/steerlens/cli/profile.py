"""The command `steerlens profile`: describes attention heads over many pictures."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from steerlens.cli.console import ProgressBar, emit_json, say
from steerlens.cli.interrupted import kept
from steerlens.studies.shared import StudySettings

if TYPE_CHECKING:
    from steerlens.profiles import Faithfulness, HeadProfile, Profile, ProfileOptions, ProfilePictures
    from steerlens.studies.shared import ModelLoader
    from steerlens.vocabulary import Vocabulary
    from steerlens.zoo import Pair

_TEXTS, _ABLATED = 6, 16
"""Defaults, which are not complained about where they cannot have an effect."""


@dataclass(frozen=True, eq=False)
class _Prepared:
    """A profile that is ready to run."""

    pair: "Pair"
    shown: "ProfilePictures"
    options: "ProfileOptions"
    words: "Vocabulary | None"
    measured: "tuple[Faithfulness, ...]"


@dataclass(frozen=True)
class Command:
    """Describe attention heads over many pictures.

    For each head: what it writes, on which pictures most, and the effect of ablating it.

    Writes profile.html (opens offline), heads.parquet, pictures.parquet, summary.json, and directions.safetensors for
    steerlens lens --vector. To resume an interrupted profile, give the same command again.

    Examples:
      steerlens profile --images photos --heads L30H4,head.40-47.* --model kandinsky-2.2 --out profile
      steerlens profile --data data --out profile
      steerlens profile --sae sae --images photos --out features
    """

    out: Path
    """Folder of the profile."""

    settings: Annotated[StudySettings, tyro.conf.arg(name="")] = field(default_factory=StudySettings)

    heads: str = "all"
    """Heads to describe: all, or a list of heads and patterns such as L3H4,head.8-11.*."""

    count: int = 128
    """Number of pictures, drawn with the seed; all of them if there are fewer."""

    top: int = 8
    """Number of top pictures of each head."""

    texts: int = _TEXTS
    """Number of texts that describe each head."""

    names: Literal["nearest", "textspan", "omp"] = "nearest"
    """Names of heads besides the nearest texts: textspan, texts that together span what the head writes over the
    pictures; omp, a sparse sum of texts for each of the head's directions. Both state the variance they explain, beside
    that explained by random texts."""

    vocabulary: Path | None = None
    """Texts to choose from: a text file with a text per line, or a folder with vocabulary.json and
    vocabulary.safetensors. Default: the model's own, if it has any."""

    ablate: int = _ABLATED
    """Number of pictures on which every head is ablated in a real forward pass, the costly part; 0 for none."""

    studies: Path | None = None
    """Folder of finished studies of this model (steerlens study lenses, identification), whose figures the cards of
    heads show. Default: the figures that come with steerlens for its own models."""

    strength: str | None = None
    """Steering strength from the neutral base, such as rho=1 or s=40. Default: the model's own."""

    sae: Path | None = None
    """Describe the features of a sparse autoencoder instead of heads: a folder or file (SAELens, ViT-Prisma, saev,
    safetensors). Writes features.html, and a parquet table of all features in the folder features."""

    sae_site: str | None = None
    """With --sae: where the autoencoder reads, such as resid_post.8 or embedding. Default: what its files say."""

    sae_activation: str | None = None
    """With --sae: its activation, if its files do not say: relu, top_k:32 or batch_top_k:THRESHOLD."""

    sae_apply_b_dec: bool = False
    """With --sae: subtract the decoder's bias from its input, if its files do not say. Tensors alone never do; the fit
    tells whether training did."""

    decode: int | None = None
    """With --sae: number of features that are decoded, those with the largest sum of activations. Default: 256."""

    dry_run: bool = False
    """Check all options and inputs, print what would be computed with estimates of time and memory, and stop."""

    def interrupted(self) -> str:
        """Message about the results that an interrupted profile keeps."""
        return kept(self.out) if self.out.exists() and not self.dry_run else "Nothing was written."

    def run(self) -> int:
        """Runs the command and returns the exit code."""
        from steerlens.errors import UsageError
        from steerlens.profiles import profile_heads, write_profile_page
        from steerlens.progress import run_to_end
        from steerlens.studies.shared import load_models

        if self.sae is not None:
            from steerlens.cli.profile_features import run_features

            return run_features(self)
        of_features = (self.sae_site, self.sae_activation, self.sae_apply_b_dec or None, self.decode)
        if any(option is not None for option in of_features):
            raise UsageError("--sae-site, --sae-activation, --sae-apply-b-dec and --decode: features need --sae.")
        if self.dry_run:
            return self._dry_run()
        with ProgressBar(quiet=self.settings.json) as progress:
            progress.stage("loading", 1)
            ready = self._prepare(load_models)
            progress.advance(1)
            events = profile_heads(ready.pair, ready.shown, ready.options, self.out, ready.words, ready.measured)
            profile = run_to_end(events, progress.show)
            progress.stage("page", 1)
            page = write_profile_page(profile, self.out)
            progress.advance(1)
        if self.settings.json:
            emit_json({**profile.to_json(), "page": page})
        else:
            _print_heads(profile, page)
        return 0

    def _prepare(self, load: "ModelLoader") -> "_Prepared":
        """Checks options, and loads pictures and models; computes and writes nothing."""
        from steerlens.lenses import Strength
        from steerlens.profiles import ProfileOptions, check_profile, heads_of, measured_faithfulness
        from steerlens.studies.shared import with_steps
        from steerlens.sweep import default_strength
        from steerlens.zoo import check_vocabulary_files, read_vocabulary

        strength = None if self.strength is None else Strength.parse(self.strength)
        if self.vocabulary is not None:
            check_vocabulary_files(self.vocabulary)
        shown = self.pictures()
        pair = load(self.settings).pair
        spec = pair.encoder.spec
        options = ProfileOptions(
            decode=with_steps(pair.decoder.spec.defaults, self.settings.steps, self.settings.guidance),
            strength=strength or default_strength(pair.card),
            heads=heads_of(self.heads, spec.n_layers, spec.n_heads),
            n_top=self.top,
            n_texts=self.texts,
            n_ablated=self.ablate,
            seed=self.settings.seed,
            names=self.names,
        )
        measured = measured_faithfulness(pair.name, self.studies)
        words = None if self.vocabulary is None else read_vocabulary(self.vocabulary, pair)
        known = pair.vocabulary if words is None else words
        self._refuse_unused(len(shown.pictures), 0 if known is None else len(known.names))
        check_profile(pair, shown, options, words)
        return _Prepared(pair, shown, options, words, measured)

    def _dry_run(self) -> int:
        from steerlens.cli.planned import Planner
        from steerlens.cli.work import tell
        from steerlens.profiles import profile_identity, profile_work
        from steerlens.studies.shared import check_folder

        planner = Planner()
        ready = self._prepare(planner.load)
        loaded = planner.is_loaded
        identity = profile_identity(ready.pair, ready.shown, ready.options, ready.words) if loaded else None
        resumes = check_folder(self.out, identity)
        work = profile_work(ready.pair, ready.shown, ready.options)
        return tell(work, planner.rates(ready.options.decode), self.out, resumes=resumes, json=self.settings.json)

    def _refuse_unused(self, pictures: int, vocabulary: int) -> None:
        """Refuses options that cannot have an effect, unless they are at their defaults.

        Raises:
            UsageError: if there is any, naming the first.
        """
        from steerlens.errors import UsageError

        why = ""
        if self.ablate != _ABLATED and self.ablate > pictures:
            why = f"--ablate {self.ablate}: there are only {pictures} pictures to ablate heads on"
        elif self.texts not in (_TEXTS, 0) and not vocabulary:
            why = f"--texts {self.texts}: no effect, because this model has no texts; give them with --vocabulary"
        elif self.texts != _TEXTS and self.texts > vocabulary:
            why = f"--texts {self.texts}: there are only {vocabulary} texts in the vocabulary"
        elif self.texts == 0 and self.vocabulary is not None:
            why = f"--vocabulary {self.vocabulary}: no effect with --texts 0"
        if why:
            raise UsageError(f"{why}.")

    def pictures(self) -> "ProfilePictures":
        """Draws the pictures.

        Raises:
            UsageError: if there is no source of pictures, or there are two.
        """
        from steerlens.errors import UsageError
        from steerlens.profiles import folder_pictures, scene_pictures

        if (self.settings.images is None) == (self.settings.data is None):
            raise UsageError(
                "give either --images FOLDER, or for scenes of the bundled pair --data DIR, prepared with: "
                "steerlens train prepare --data DIR"
            )
        if self.count < 2:
            raise UsageError(f"a profile needs more pictures than --count {self.count}.")
        if self.settings.images is not None:
            return folder_pictures(self.settings.images, self.count, self.settings.seed)
        if self.settings.data is None:
            raise UsageError("give --images or --data.")
        return scene_pictures(self.settings.data, self.count, self.settings.seed)


def _print_heads(profile: "Profile", page: Path) -> None:
    say(f"{len(profile.heads)} heads over {len(profile.pictures)} pictures ({profile.source})")

    def effect(head: "HeadProfile") -> float:
        value = head.total_unsigned or head.write
        return value.value

    for head in sorted(profile.heads, key=effect, reverse=True)[:6]:
        texts = ", ".join(f"{text.text}{'' if text.stands_out else ' (?)'}" for text in head.texts.get("high", ())[:3])
        moved = (
            "" if head.total_unsigned is None else f"; ablation moves the embedding by {head.total_unsigned.value:.3f}"
        )
        described = f": {texts}" if texts else ""
        named = head.names.get("writes") or head.names.get("high")
        described += "" if named is None else f"; {named}"
        say(f"  {head.site.label}{described}; write {head.write.value:.2f} of the residual{moved}")
    if profile.n_texts:
        say("(?) no further from the other heads than expected by chance")
    say(f"page: {page}")
