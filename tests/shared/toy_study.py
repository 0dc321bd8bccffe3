"""A fifth study, small but whole: does the embedding of a picture survive a change of its brightness?

It is what a new study needs at least: options, a part, a summary, an experiment, and the object for the table.
"""

from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar

import torch
from jaxtyping import Float
from matplotlib.figure import Figure
from PIL import ImageEnhance
from torch import Tensor

from steerlens.progress import Progress
from steerlens.scores import cosine_similarity
from steerlens.studies import Study
from steerlens.studies.shared.arguments import StudyArguments
from steerlens.studies.shared.folder import StudyFolder
from steerlens.studies.shared.inputs import load_study_pair, load_subjects
from steerlens.studies.shared.markdown import Bar, Finding, figure, interval, met
from steerlens.studies.shared.parts import Part, TensorName
from steerlens.studies.shared.records import StudySummary
from steerlens.studies.shared.run import Experiment, Output, run_experiment
from steerlens.studies.shared.stats import Estimate, mean_estimate
from steerlens.studies.shared.subjects import SubjectSet
from steerlens.zoo.pair import Pair


@dataclass(frozen=True)
class BrightnessArguments(StudyArguments):
    """Does an embedding survive a change of brightness?"""

    count: int = 4
    """Pictures."""

    factor: float = 0.5
    """Of the brightness."""


@dataclass(frozen=True, eq=False)
class BrightnessPart(Part):
    """Embeddings of one picture, before and after."""

    WHAT: ClassVar[str] = "measurements of brightness"

    before: Annotated[Float[Tensor, "E"], TensorName("before")]
    after: Annotated[Float[Tensor, "E"], TensorName("after")]


@dataclass(frozen=True)
class BrightnessSummary(StudySummary):
    """The mean similarity of both embeddings."""

    n_pictures: int
    similarity: Estimate
    command: str = ""


@dataclass(frozen=True, eq=False)
class BrightnessExperiment(Experiment[list[BrightnessPart], BrightnessSummary]):
    """The study with its pictures."""

    pair: Pair
    subjects: SubjectSet
    factor: float
    command: str = ""

    def identity(self) -> dict[str, Any]:
        return {"study": "brightness", "subjects": self.subjects.identity(), "factor": self.factor}

    def measure(self, folder: StudyFolder) -> Generator[Progress, None, list[BrightnessPart]]:
        everyone, encoder = self.subjects.everyone, self.pair.encoder
        for done, subject in enumerate(everyone):
            yield Progress("embedding", done, len(everyone), "pictures")
            if not folder.has(subject.id):
                darker = ImageEnhance.Brightness(subject.image).enhance(self.factor)
                before, after = encoder.embed(encoder.preprocess([subject.image, darker])).float()
                folder.keep(subject.id, BrightnessPart(before.clone(), after.clone()))
        return folder.read_all(BrightnessPart, (subject.id for subject in everyone))

    def summarise(self, measured: list[BrightnessPart]) -> Generator[Progress, None, BrightnessSummary]:
        yield Progress("statistics", 0, 1)
        table = torch.stack([cosine_similarity(part.before, part.after) for part in measured])[:, None]
        concepts = [subject.concept for subject in self.subjects.everyone]
        return BrightnessSummary(len(measured), mean_estimate(table, concepts, draws=20, heads=False), self.command)

    def output(self, measured: list[BrightnessPart], summary: BrightnessSummary) -> Output:
        drawing = Figure(figsize=(2, 2))
        drawing.subplots().bar([0], [summary.similarity.value])
        rows = [{"picture": subject.id} for subject in self.subjects.everyone]
        return Output(rows, {"similarity": drawing})


class BrightnessStudy(Study[BrightnessArguments, BrightnessSummary]):
    """Brightness, as the command line and the pages see it."""

    name = "brightness"
    title = "Brightness"
    question = "Does the embedding survive a change of brightness?"

    @property
    def arguments(self) -> type[BrightnessArguments]:
        return BrightnessArguments

    def run(self, arguments: BrightnessArguments, command: str) -> Generator[Progress, None, BrightnessSummary]:
        half = arguments.count // 2
        subjects = load_subjects(arguments.settings, half, arguments.count - half)
        pair = load_study_pair(arguments.settings)
        experiment = BrightnessExperiment(pair, subjects, arguments.factor, command)
        return (yield from run_experiment(experiment, arguments.out))

    def read(self, values: Mapping[str, Any], where: str) -> BrightnessSummary:
        return BrightnessSummary.from_json(values, where)

    def lines(self, summary: BrightnessSummary, folder: Path) -> Sequence[str]:
        return [f"similarity: {summary.similarity}", f"written to {folder}"]

    def bars(self, summary: BrightnessSummary) -> Sequence[Bar]:
        return [Bar("brightness", interval(summary.similarity), "above 0", met(summary.similarity.above()))]

    def findings(self, summary: BrightnessSummary) -> Sequence[Finding]:
        return [Finding(f"Embeddings keep {interval(summary.similarity)}.", headline=True)]

    def section(self, summary: BrightnessSummary) -> str:
        return f"    {summary.command}\n\n" + figure("Similarity", "brightness-similarity")
