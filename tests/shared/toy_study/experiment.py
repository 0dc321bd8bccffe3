"""The brightness study from end to end."""

from collections.abc import Generator
from dataclasses import dataclass
from typing import Any

from steerlens.progress import Progress
from steerlens.studies.shared.folder import StudyFolder
from steerlens.studies.shared.judge import pair_name
from steerlens.studies.shared.run import Experiment, Output
from steerlens.studies.shared.subjects import SubjectSet
from steerlens.studies.shared.work import Work
from steerlens.zoo.pair import Pair
from toy_study.figures import similarity_figure
from toy_study.measure import BrightnessPart, measure
from toy_study.summary import BrightnessSummary, summarise


@dataclass(frozen=True, eq=False)
class BrightnessExperiment(Experiment[list[BrightnessPart], BrightnessSummary]):
    """The study with its pictures."""

    pair: Pair
    subjects: SubjectSet
    factor: float
    command: str = ""

    def identity(self) -> dict[str, Any]:
        return {"study": "brightness", "subjects": self.subjects.identity(), "factor": self.factor}

    def work(self) -> Work:
        studied = len(self.subjects.everyone)
        return Work(studied, 0, 0, 2 * studied, {})

    def measure(self, folder: StudyFolder) -> Generator[Progress, None, list[BrightnessPart]]:
        subjects = self.subjects.everyone
        yield from measure(self.pair.encoder, subjects, self.factor, folder)
        return folder.read_all(BrightnessPart, (subject.id for subject in subjects))

    def summarise(self, measured: list[BrightnessPart]) -> Generator[Progress, None, BrightnessSummary]:
        yield Progress("statistics", 0, 1)
        concepts = [subject.concept for subject in self.subjects.everyone]
        return summarise(measured, concepts, self.command, pair_name(self.pair))

    def output(self, measured: list[BrightnessPart], summary: BrightnessSummary) -> Output:
        rows = [{"picture": subject.id} for subject in self.subjects.everyone]
        return Output(rows, {"similarity": similarity_figure(summary)})
