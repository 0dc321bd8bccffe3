"""Options of the study of candidate lenses, and the candidates themselves."""

from dataclasses import dataclass
from typing import Literal, get_args

from steerlens.decoders import DecodeOptions
from steerlens.errors import UsageError
from steerlens.lenses import Strength
from steerlens.sites import Site
from steerlens.studies.shared.ablation import Ablation
from steerlens.studies.shared.sampling import stratified_heads
from steerlens.studies.shared.settings import LensSetting

Kind = Literal["one picture", "contrast pair", "real pictures"]
KINDS: tuple[Kind, ...] = get_args(Kind)
PICTURE, CONTRAST, RETRIEVAL = KINDS


@dataclass(frozen=True)
class CandidateLens:
    """A way of showing a head; its text form reads `real pictures rho=1 centred k=5`.

    Attributes:
        kind: `one picture` steered along the write; a `contrast pair`, steered along it and against it; or
            `real pictures`, the nearest of a bank to the changed embedding and to the opposite change.
        strength: of the change.
        centred: True to subtract the write's mean over reference pictures.
        k: number of real pictures on each side; 0 for decoded pictures.
    """

    kind: Kind
    strength: Strength
    centred: bool = True
    k: int = 0

    def __post_init__(self) -> None:
        if self.kind not in KINDS or (self.kind == RETRIEVAL) != (self.k > 0):
            raise UsageError(f"{self.kind!r} with k={self.k} is no candidate lens: real pictures alone take k above 0.")

    def __str__(self) -> str:
        words = (self.kind, str(self.strength), "centred" if self.centred else "", f"k={self.k}" if self.k else "")
        return " ".join(word for word in words if word)

    @classmethod
    def parse(cls, text: str) -> "CandidateLens":
        """Parses the text form.

        Raises:
            UsageError: if the text describes no candidate.
        """
        for kind in KINDS:
            if text.startswith(f"{kind} "):
                strength, *rest = text.removeprefix(f"{kind} ").split(" ")
                k = int(rest[-1].removeprefix("k=")) if rest and rest[-1].removeprefix("k=").isdecimal() else 0
                candidate = cls(kind, Strength.parse(strength), "centred" in rest, k)
                if str(candidate) == text:
                    return candidate
        raise UsageError(f"{text!r} is no candidate lens.")

    @property
    def towards(self) -> LensSetting:
        """Setting that steers along the write."""
        return LensSetting("steering", self.strength, centred=self.centred)

    @property
    def away(self) -> LensSetting:
        """Setting that steers against the write, as strongly."""
        value = 2 - self.strength.value if self.strength.kind == "s" else -self.strength.value
        return LensSetting("steering", Strength(self.strength.kind, value), centred=self.centred)

    @property
    def requested(self) -> tuple[LensSetting, ...]:
        """Settings whose embeddings it needs."""
        return (self.towards, self.away) if self.kind == CONTRAST else (self.towards,)

    @property
    def decoded(self) -> tuple[LensSetting, ...]:
        """Settings whose pictures it needs."""
        return () if self.kind == RETRIEVAL else self.requested


@dataclass(frozen=True)
class LensesOptions:
    """Options of the study of candidate lenses.

    Attributes:
        decode: decoding options.
        strengths: strengths to choose from.
        neighbours: numbers of real pictures to choose from.
        seeds: seeds of the decoder on the concepts to report on; the selection uses the first.
        ablation: replacement of a head's write.
        n_names: number of names, a random sample; None for all.
        heads_per_picture: number of heads, a random sample with equal shares of the layers; None for all.
        batch: rows of a forward pass.
    """

    decode: DecodeOptions
    strengths: tuple[Strength, ...] = (Strength("rho", 0.5), Strength("rho", 1.0))
    neighbours: tuple[int, ...] = (5, 20)
    seeds: tuple[int, ...] = (0,)
    ablation: Ablation = "mean"
    n_names: int | None = None
    heads_per_picture: int | None = None
    batch: int = 64

    def __post_init__(self) -> None:
        if not self.seeds:
            raise UsageError("the decoder needs at least 1 seed.")
        if not self.strengths or len(set(self.strengths)) < len(self.strengths):
            raise UsageError("the lenses need at least 1 strength, each of them once.")
        if min(self.neighbours, default=0) < 1 or len(set(self.neighbours)) < len(self.neighbours):
            raise UsageError("the numbers of real pictures are 1 or more, each of them once.")
        if self.n_names is not None and self.n_names < 2:
            raise UsageError(f"effects are measured towards at least 2 names, not {self.n_names}.")

    def columns(self, sites: tuple[Site, ...]) -> list[int]:
        """Indices of the studied heads."""
        return stratified_heads(sites, self.heads_per_picture, self.seeds[0])

    def candidates(self, *, bank: bool) -> dict[Kind, tuple[CandidateLens, ...]]:
        """Candidates of each lens; without a bank there are no real pictures.

        The contrast pair and real pictures are centred: the constant part of a write is no news about a picture.
        """
        found: dict[Kind, tuple[CandidateLens, ...]] = {
            PICTURE: tuple(
                CandidateLens(PICTURE, strength, centred) for strength in self.strengths for centred in (False, True)
            ),
            CONTRAST: tuple(CandidateLens(CONTRAST, strength) for strength in self.strengths),
        }
        if bank:
            found[RETRIEVAL] = tuple(
                CandidateLens(RETRIEVAL, strength, k=k) for strength in self.strengths for k in self.neighbours
            )
        return found
