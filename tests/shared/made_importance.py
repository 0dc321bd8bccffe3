"""Parts of an importance study that was never run: what the tests of its summary share."""

import torch
from torch import Tensor

from steerlens.sites import all_heads
from steerlens.studies.importance.scores import Choices, ScoreChoice
from steerlens.studies.shared.ablation import ABLATIONS
from steerlens.studies.shared.candidates import CENTRED, NEUTRAL, ONE_FACTOR, PLAIN
from steerlens.studies.shared.effects import Effect
from steerlens.studies.shared.measurements import PicturePart, PictureTables

MAIN = Effect("total", "text", "mean")
N, E = 12, 8
SITES = tuple(all_heads(3, 4))


def made_parts(seeds: tuple[int, ...] = (0, 1), judge: bool = False, pictures: int = 6) -> PictureTables:
    """Parts of a study that was never run: every embedding random, the undecoded ones near the truth."""
    generator = torch.Generator().manual_seed(3)

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    def part() -> PicturePart:
        clean, text, other = draw(3, E)
        settings = list(map(str, (*PLAIN, *CENTRED, NEUTRAL, ONE_FACTOR)))
        decoded = {(name, seed): clean + draw(N, E) for name in settings for seed in seeds}
        return PicturePart(
            clean,
            targets={"text": text, "other": other},
            total={ablation: clean + 0.5 * draw(N, E) for ablation in ABLATIONS},
            direct={ablation: clean + 0.5 * draw(N, E) for ablation in ABLATIONS},
            first_order={(ablation, target): draw(N) for ablation in ABLATIONS for target in ("text", "other")},
            norm=draw(N).abs(),
            direct_cosine=draw(N),
            requested={name: clean + draw(N, E) for name in settings},
            decoded={**decoded, ("control", seeds[0]): clean + draw(N, E)},
            judged={(name, seed): draw(N, 5) for name in settings for seed in seeds} if judge else {},
            judged_targets={"input": draw(5), "other": draw(5)} if judge else {},
        )

    return PictureTables([part() for _ in range(pictures)])


def made_choices(compare: str = "text") -> Choices:
    chosen = {
        setting.lens: ScoreChoice(setting, compare, 0.5, {f"{setting}, compared with {compare}": 0.5})
        for setting in PLAIN
    }
    return Choices(chosen, chosen)
