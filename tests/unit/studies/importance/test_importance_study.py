"""The importance study on a tiny random pair: resumable, repeatable, honest about what it was given."""

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pyarrow.parquet as pq
import pytest
import torch
from studied import finish, picture, quick, subject_set

from steerlens.errors import StoreError, UsageError
from steerlens.images import load_picture
from steerlens.interventions import Scale
from steerlens.lenses import TotalLens, clean_pass
from steerlens.lenses.steering import SteeringLens
from steerlens.lenses.strength import Strength
from steerlens.sites import all_heads
from steerlens.studies.importance.experiment import ImportanceExperiment, importance_study
from steerlens.studies.importance.findings import importance_findings
from steerlens.studies.importance.options import ImportanceOptions
from steerlens.studies.importance.scores import choose
from steerlens.studies.importance.section import importance_section
from steerlens.studies.page import find_studies
from steerlens.studies.shared import run
from steerlens.studies.shared.bench import make_bench
from steerlens.studies.shared.candidates import (
    ONE_FACTOR_NAME,
    PLAIN,
    STRENGTHS,
    TOTAL_LENS,
    diffusion_candidates,
    steering_candidates,
)
from steerlens.studies.shared.effects import Effect
from steerlens.studies.shared.folder import StudyFolder, open_study, rounded
from steerlens.studies.shared.measure import REPORT, measure_effects, read_parts
from steerlens.studies.shared.measurements import CONTROL, PicturePart, PictureTables
from steerlens.studies.shared.oracle import ORACLES, oracle_name
from steerlens.studies.shared.settings import LensSetting, lens_embeddings, relative_strengths
from steerlens.studies.shared.subjects import Subject, SubjectSet, concept_of, folder_subjects, other_concept, split
from steerlens.studies.shared.targets import GIVEN, known_targets, subject_targets, target_for, target_notes
from steerlens.zoo.pair import Pair


@pytest.fixture(scope="module")
def subjects(pair: Pair) -> SubjectSet:
    return subject_set(pair, 2, 3, 5)


def options(pair: Pair) -> ImportanceOptions:
    one = LensSetting("steering", Strength("rho", 1.0))
    return ImportanceOptions(
        quick(pair),
        steering=(one, replace(one, centred=True)),
        diffusion=(LensSetting("diffusion"), LensSetting("diffusion", centred=True)),
    )


def test_the_study_resumes_to_the_same_summary(
    pair: Pair, subjects: SubjectSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    finish(importance_study(pair, subjects, options(pair), tmp_path / "whole", draws=20))
    monkeypatch.setattr(run, "save_figure", lambda *_: None)  # once is enough
    broken = importance_study(pair, subjects, options(pair), tmp_path / "broken")
    for event in broken:
        if event.stage == "decoding to report" and event.done > event.total / 2:
            break
    broken.close()
    kept = sorted(path.name for path in (tmp_path / "broken" / "parts").iterdir())
    assert [name for name in kept if name.startswith("report")]
    finish(importance_study(pair, subjects, options(pair), tmp_path / "broken", draws=20))
    texts = [(tmp_path / name / "summary.json").read_text() for name in ("whole", "broken")]
    assert texts[0] == texts[1]
    summary = json.loads(texts[0])
    assert summary["n_pictures"] == 3 and summary["choices"]["steering"]["candidates"]
    table = pq.read_table(tmp_path / "whole" / "table.parquet")
    assert table.num_rows == 3 * pair.encoder.spec.n_layers * pair.encoder.spec.n_heads
    assert {"picture", "site", "steering, chosen", "effect: total, unsigned, zero"} <= set(table.column_names)
    assert {"total, plain, not decoded", "steering, plain, not decoded"} <= {row["score"] for row in summary["rows"]}
    part = read_parts(StudyFolder(tmp_path / "whole"), REPORT, subjects.reported)[0]
    inputs, head = pair.encoder.preprocess([subjects.reported[0].image]), all_heads(1, 2)[1]
    factor = 1 + TotalLens(pair.encoder, "rho=1").coefficients(clean_pass(pair.encoder, inputs), [head])[:, 0]
    reacting = pair.encoder.embed(inputs, [Scale(head, factor=factor)])[0]
    torch.testing.assert_close(part.requested[TOTAL_LENS][1].float(), reacting, rtol=1e-3, atol=1e-4)
    manifest = json.loads((tmp_path / "whole" / "study.json").read_text())
    frozen = json.loads((tmp_path / "whole" / "choice.json").read_text())["choices"]
    assert manifest["chosen"] == {
        lens: {"setting": choice["setting"], "compare": choice["compare"]} for lens, choice in frozen.items()
    }
    assert set(frozen) == {"steering", "diffusion", "steering, not decoded", "diffusion, not decoded"}
    folder = str(Path(pair.name).parent).encode()  # studies are made to be shared
    assert len(folder) > 1
    assert not [path for path in (tmp_path / "whole").rglob("*.*") if folder in path.read_bytes()]
    summary_file = tmp_path / "whole" / "summary.json"
    summary_file.write_text(summary_file.read_text().replace('"n_pictures": 3', '"n_pictures": 4'))
    with pytest.raises(StoreError, match=r"summary\.json cannot be read: .*its hash differs"):
        find_studies(tmp_path / "whole")
    for name in ("correlations", "heads", "layers"):
        assert (tmp_path / "whole" / "figures" / f"{name}.png").read_bytes()[:4] == b"\x89PNG"


def test_without_extras_only_plain_and_chosen_settings_are_decoded(
    pair: Pair, subjects: SubjectSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run, "save_figure", lambda *_: None)
    small = replace(options(pair), extras=False)
    told = finish(importance_study(pair, subjects, small, tmp_path / "small", draws=20))
    summary = json.loads((tmp_path / "small" / "summary.json").read_text())
    chosen = {summary["choices"][lens]["setting"] for lens in ("steering", "diffusion")}
    parts = read_parts(StudyFolder(tmp_path / "small"), REPORT, subjects.reported)
    assert {name for name, _ in parts[0].decoded} == {
        *chosen,
        *map(str, PLAIN),
        *map(oracle_name, ORACLES),
        CONTROL,
    }
    scores = {row["score"] for row in summary["rows"]}
    assert ONE_FACTOR_NAME not in scores and f"{ONE_FACTOR_NAME}, not decoded" in scores
    assert "neutral base" not in {one["name"] for one in summary["variants"]}
    assert "`--extras`" in importance_section(told)
    findings = [finding.text for finding in importance_findings(told)]
    assert any("before decoding (pictures need `--extras`)" in text for text in findings)
    assert sum(line.startswith("Best predictor of the effect") for line in findings) == 2
    with pytest.raises(UsageError, match="extras"):
        finish(importance_study(pair, subjects, options(pair), tmp_path / "small", draws=20))


def test_another_study_is_refused(pair: Pair, subjects: SubjectSet, tmp_path: Path) -> None:
    with open_study(tmp_path / "study", {"study": "another"}):
        pass
    with pytest.raises(UsageError, match="holds a study with another"):
        finish(importance_study(pair, subjects, options(pair), tmp_path / "study"))
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "cat.txt").write_text("mine")
    with pytest.raises(UsageError, match="no study of steerlens"):
        finish(importance_study(pair, subjects, options(pair), tmp_path / "photos"))
    with (
        open_study(tmp_path / "open", {}),
        pytest.raises(StoreError, match="another process"),
        open_study(tmp_path / "open", {}),
    ):
        pass


def test_targets_are_never_the_input(pair: Pair, subjects: SubjectSet) -> None:
    bench = make_bench(pair, subjects.reference)
    part = measure_effects(bench, subjects.reported[0], subjects.reported[1], ablations=("zero",))
    assert set(part.targets) == {"text", "other"}
    assert not any(torch.allclose(target, part.clean) for target in part.targets.values())
    nameless = replace(pair, vocabulary=None, texts=None)
    lonely = Subject("p", picture(0), "nothing", None)
    alone = measure_effects(make_bench(nameless, subjects.reference), lonely, subjects.reported[1], ablations=("zero",))
    assert alone.targets == {} and alone.first_order == {} and alone.name_rank is None
    assert part.name_rank is not None and float(part.name_rank) == int(part.name_rank) >= 0


def test_a_label_that_the_model_does_not_know_is_left_out_and_said(pair: Pair, subjects: SubjectSet) -> None:
    strange = replace(subjects, reported=(replace(subjects.reported[0], concept="zzyzx"), *subjects.reported[1:]))
    assert known_targets(pair, strange) == ("other",) and target_for(pair, strange) == "other"
    assert set(subject_targets(pair, strange.reported[0])) == {"other"}
    assert any("'zzyzx'" in note for note in target_notes(pair, strange)) and target_notes(pair, subjects) == ()
    with pytest.raises(UsageError, match="the model knows no 'zzyzx'"):
        target_for(pair, strange, "text")
    alone = replace(strange, reported=(replace(strange.reported[0], other=None), *strange.reported[1:]))
    with pytest.raises(UsageError, match="no target for all pictures"):
        target_for(pair, alone)
    # one text for all pictures needs neither
    name = subjects.reported[1].concept
    assert target_for(pair, alone, GIVEN, name) == GIVEN
    torch.testing.assert_close(subject_targets(pair, alone.reported[0], name)[GIVEN], pair.text_direction(name))
    with pytest.raises(UsageError, match="nowhere"):
        known_targets(pair, subjects, "nowhere")


def test_a_pair_of_image_tokens_is_refused_with_the_reason(pair: Pair, subjects: SubjectSet) -> None:
    reading = SimpleNamespace(spec=replace(pair.decoder.spec, consumes="image_tokens"))
    with pytest.raises(UsageError, match="reads image tokens"):
        make_bench(replace(pair, decoder=reading), subjects.reference)


def test_a_judge_is_known_by_its_weights_and_not_by_where_it_lies(pair: Pair, subjects: SubjectSet) -> None:
    main = Effect("total", "text", "mean")
    moved = SimpleNamespace(model=pair.encoder.model, spec=replace(pair.encoder.spec, name="/elsewhere/judge"))

    def models(judge: object) -> object:
        study = ImportanceExperiment(pair, subjects, options(pair), main, judge)  # type: ignore[arg-type]
        return study.identity()["models"]

    assert models(pair.encoder) == models(moved) and "elsewhere" not in json.dumps(models(moved))
    assert models(None) == {**models(moved), "judge": None}  # type: ignore[dict-item]


def test_every_candidate_makes_other_embeddings_and_either_lens_has_as_many(pair: Pair, subjects: SubjectSet) -> None:
    bench = make_bench(pair, subjects.reference)
    trace = pair.encoder.trace(pair.encoder.preprocess([subjects.selection[0].image]))
    for strengths in ([Strength("rho", 1.0)], list(STRENGTHS), [Strength("s", 40.0), *STRENGTHS]):
        steering = steering_candidates(strengths)
        diffusion = diffusion_candidates(len(steering))
        assert len(set(steering)) == len(set(diffusion)) == 3 * len(strengths)
        for candidates in (steering, diffusion):
            rows = [lens_embeddings(pair.encoder, trace, bench.sites, one, bench.reference)[0] for one in candidates]
            unit = torch.nn.functional.normalize(torch.stack(rows), dim=-1)
            alike = (unit[:, None] * unit[None]).sum(dim=-1).mean(dim=-1)
            off = ~torch.eye(len(rows), dtype=torch.bool)
            assert alike[off].max() < 0.9995, f"{candidates}: {alike}"
    assert any(one.base == "neutral" for one in steering_candidates())
    assert all(one.strength is not None and one.strength.kind == "rho" for one in steering_candidates())
    with pytest.raises(UsageError, match="at most 5 strengths"):
        steering_candidates([Strength("rho", float(n)) for n in range(1, 7)])
    with pytest.raises(UsageError, match="each of them once"):
        steering_candidates([STRENGTHS[0], STRENGTHS[0]])


def test_a_plain_setting_is_the_steering_lens(pair: Pair, subjects: SubjectSet) -> None:
    bench = make_bench(pair, subjects.reference)
    trace = pair.encoder.trace(pair.encoder.preprocess([subjects.selection[0].image]))
    sites = all_heads(pair.encoder.spec.n_layers, pair.encoder.spec.n_heads)
    strength = Strength("rho", 2.0)
    plain = lens_embeddings(pair.encoder, trace, sites, LensSetting("steering", strength), bench.reference)
    torch.testing.assert_close(plain, SteeringLens(pair.encoder, strength).embeddings(trace, sites).float())
    for setting in (
        LensSetting("steering", strength, centred=True),
        LensSetting("steering", strength, base="neutral"),
        LensSetting("diffusion", centred=True),
        LensSetting("diffusion", Strength("rho", 0.5), base="neutral"),
    ):
        other = lens_embeddings(pair.encoder, trace, sites, setting, bench.reference)
        assert other.shape == plain.shape and not torch.allclose(other, plain)
    rhos = relative_strengths(pair.encoder, trace, sites, LensSetting("steering", strength), bench.reference)
    torch.testing.assert_close(rhos, torch.full_like(rhos, 2.0))
    neutral = LensSetting("diffusion", Strength("rho", 0.5), base="neutral")
    written = lens_embeddings(pair.encoder, trace, sites, LensSetting("diffusion"), bench.reference)
    mean = bench.reference.embeddings.mean(dim=0)
    expected = mean + 0.5 * mean.norm() * torch.nn.functional.normalize(written, dim=-1)
    torch.testing.assert_close(lens_embeddings(pair.encoder, trace, sites, neutral, bench.reference), expected)


def test_the_choice_finds_the_score_that_knows_the_effect() -> None:
    """Made parts: one setting's pictures say what ablation does, the other's are noise."""
    generator = torch.Generator().manual_seed(0)
    good, bad = LensSetting("diffusion"), LensSetting("diffusion", centred=True)
    parts: list[PicturePart] = []
    for _ in range(5):
        clean, text = torch.randn(2, 8, generator=generator)
        total = clean + 0.3 * torch.randn(12, 8, generator=generator)
        effect = torch.cosine_similarity(clean, text, dim=0) - torch.cosine_similarity(total, text[None], dim=1)
        made = effect[:, None] * text + 0.01 * torch.randn(12, 8, generator=generator) + clean
        parts.append(
            PicturePart(
                clean,
                targets={"text": text},
                total={"mean": total},
                decoded={
                    (f"candidate.{good}", 0): made,
                    (f"candidate.{bad}", 0): torch.randn(12, 8, generator=generator),
                },
            )
        )
    choice = choose(PictureTables(parts), [bad, good], Effect("total", "text", "mean"))
    assert choice.setting == good and choice.compare == "text" and choice.correlation > 0.8
    assert len(choice.candidates) == 4  # two settings, compared with the input and with the text
    with pytest.raises(StoreError, match="no decoded pictures"):
        PictureTables(parts).decoded_scores("steering rho=1", "input")


def test_folders_are_read_by_concept(tmp_path: Path) -> None:
    for place, name in enumerate(("cat/a.png", "cat/b.png", "red_dog 1.png", "red_dog 2.png", "owl.png", "x/1.png")):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        picture(place).save(tmp_path / name)
    assert concept_of(tmp_path / "red_dog 2.png", tmp_path) == "red dog"
    found = folder_subjects(tmp_path, 2, 2, seed=0)
    chosen, reported = ({subject.concept for subject in side} for side in (found.selection, found.reported))
    assert not chosen & reported and chosen | reported <= {"cat", "red dog", "owl", "x"}
    for subject in found.everyone:
        assert (subject.other is not None) == (subject.concept in ("cat", "red dog"))
    assert folder_subjects(tmp_path, 2, 2, seed=0).identity() == found.identity()
    assert folder_subjects(tmp_path, 2, 2, seed=1).identity() != found.identity()
    with pytest.raises(UsageError, match="too few"):
        folder_subjects(tmp_path, 3, 5)
    with pytest.raises(UsageError, match="not a folder"):
        folder_subjects(tmp_path / "none", 1, 1)


def test_another_target_picture_is_another_study(subjects: SubjectSet) -> None:
    first = subjects.reported[0]
    for other in (None, picture(999)):
        changed = replace(subjects, reported=(replace(first, other=other), *subjects.reported[1:]))
        assert changed.identity() != subjects.identity()


def test_only_pictures_that_are_drawn_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for place in range(30):
        (tmp_path / f"c{place // 3}").mkdir(exist_ok=True)
        picture(place).save(tmp_path / f"c{place // 3}" / f"{place}.png")
    read: list[Path] = []

    def counting(path: Path) -> object:
        read.append(path)
        return load_picture(path)

    monkeypatch.setattr("steerlens.studies.shared.subjects.load_picture", counting)
    found = folder_subjects(tmp_path, 2, 3, n_reference=4)
    assert len(found.reference) == 4 and len(read) == 2 * (2 + 3) + 4


def test_splits_never_share_a_concept() -> None:
    made = [Subject(f"{n}", picture(n), f"c{n // 3}") for n in range(12)]
    chosen, reported = split(made, 4, 6, seed=3)
    assert len(chosen) == 4 and len(reported) == 6
    assert not {one.concept for one in chosen} & {one.concept for one in reported}
    assert other_concept(made, 1).concept != made[1].concept
    with pytest.raises(UsageError, match="two concepts"):
        other_concept(made[:3], 0)


def test_json_has_no_nan() -> None:
    assert rounded({"a": float("nan"), "b": (0.123456, -0.0), "c": "x"}) == {"a": None, "b": [0.1235, 0.0], "c": "x"}


def test_options_refuse_what_makes_no_study(pair: Pair) -> None:
    good = options(pair)
    with pytest.raises(UsageError, match="at least 2 seeds"):
        replace(good, seeds=(0,))
    with pytest.raises(UsageError, match="same number of settings"):
        replace(good, diffusion=good.diffusion[:1])
    with pytest.raises(UsageError, match="takes a strength"):
        LensSetting("steering")
    with pytest.raises(UsageError, match="takes a strength"):
        LensSetting("diffusion", Strength("rho", 1.0))
    with pytest.raises(UsageError, match="takes a strength"):
        LensSetting("diffusion", base="neutral")
