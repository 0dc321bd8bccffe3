"""The overlay study on tiny random pairs, from end to end: resuming, choices, the judge, the page."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch
from overlaid import overlay_options, overlay_set
from safetensors.torch import load_file
from studied import finish, stored

import steerlens
from steerlens.decoders.redecoding import redecode
from steerlens.errors import StoreError, UsageError
from steerlens.progress import run_to_end
from steerlens.scores import cosine_similarity
from steerlens.studies.overlay.areas import RANDOM
from steerlens.studies.overlay.conclusion import overlay_claims, overlay_conclusion
from steerlens.studies.overlay.experiment import overlay_experiment, overlay_study
from steerlens.studies.overlay.findings import overlay_bars, overlay_findings
from steerlens.studies.overlay.joint import RANDOM_ORDERS, REFERENCE, objective, points
from steerlens.studies.overlay.options import OverlayOptions
from steerlens.studies.overlay.orders import CHANGE, is_decoded_order
from steerlens.studies.overlay.parts import OverlayPart
from steerlens.studies.overlay.pictures import OverlaySet
from steerlens.studies.overlay.results import OverlaySummary
from steerlens.studies.overlay.scores import comparisons, judged_comparison, lens_score, overlay_text
from steerlens.studies.overlay.section import overlay_orders, overlay_section
from steerlens.studies.overlay.terminal import overlay_lines
from steerlens.studies.shared import run as run_file
from steerlens.studies.shared.bench import make_bench
from steerlens.studies.shared.judge import judge_name
from steerlens.studies.shared.markdown import interval
from steerlens.studies.shared.partial import LAYER, NORM
from steerlens.studies.shared.run import run_experiment
from steerlens.studies.shared.settings import lens_embeddings
from steerlens.studies.shared.undecoded import NoDecoder
from steerlens.testing.tiny import save_tiny_pair
from steerlens.zoo.pair import Pair


@pytest.fixture(scope="module")
def pair(pair_of_many_heads: Pair) -> Pair:
    return pair_of_many_heads


@pytest.fixture(scope="module")
def pairs(pair: Pair) -> OverlaySet:
    return overlay_set(pair)


@pytest.fixture(scope="module")
def options(pair: Pair) -> OverlayOptions:
    return overlay_options(pair)


def test_the_study_resumes_to_the_same_summary(
    pair: Pair, pairs: OverlaySet, options: OverlayOptions, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = finish(overlay_study(pair, pairs, options, tmp_path / "whole", draws=20))
    monkeypatch.setattr(run_file, "save_figure", lambda *_: None)  # once is enough
    broken = overlay_study(pair, pairs, options, tmp_path / "broken")
    for event in broken:
        if event.stage == "decoding to report" and event.done > event.total / 2:
            break
    broken.close()
    kept = {path.name: path.read_bytes() for path in (tmp_path / "broken" / "parts").iterdir()}
    assert "report-pair2.safetensors" in kept and "report-pair3.safetensors" not in kept
    finish(overlay_study(pair, pairs, options, tmp_path / "broken", draws=20))
    texts = [(tmp_path / name / "summary.json").read_text() for name in ("whole", "broken")]
    assert texts[0] == texts[1]
    assert all((tmp_path / "broken" / "parts" / name).read_bytes() == data for name, data in kept.items())

    summary = json.loads(texts[0])
    assert summary["n_pairs"] == 2 and summary["n_heads"] == 12 and summary["ablation"] == "resample"
    rows = {row["name"]: row for row in summary["orders"]}
    assert rows[REFERENCE]["area"]["value"] == 1 and rows[RANDOM]["area"]["value"] == 0
    assert summary["bar"] == rows["steering, chosen"]["area"]
    for lens in ("steering", "diffusion"):
        assert (
            len(summary["choices"][lens]["candidates"]) == 6
        )  # two settings, compared with picture, objective and name
        undecoded = summary["choices"][f"{lens}, not decoded"]
        assert undecoded["candidates"].keys() == summary["choices"][lens]["candidates"].keys()
        assert undecoded["area"] == max(undecoded["candidates"].values())
        assert {f"{lens}, plain", f"{lens}, plain, not decoded", f"{lens}, chosen"} <= rows.keys()
        assert {f"{lens}, chosen, not decoded", f"{lens}, chosen, the same not decoded"} <= rows.keys()
    # Nothing ablated is the picture with the overlay; all heads ablated is the base, whatever the order.
    for line in whole.curves["projection"].values():
        assert line.values[0] == pytest.approx(1, abs=1e-4) and line.values[-1] == pytest.approx(0, abs=1e-4)
    for lines in whole.decoded.values():
        assert len({(line.values[0], line.values[-1]) for line in lines.values()}) == 1 and len(lines) == 6
    table = pq.read_table(tmp_path / "whole" / "table.parquet")
    n_orders = len(rows) - 1 + RANDOM_ORDERS
    assert table.num_rows == 2 * n_orders * len(points(12))
    figures = {path.stem for path in (tmp_path / "whole" / "figures").glob("*.svg")}
    assert figures == {"plain", "trajectories", "decoded", "orders", "retained", "strip-0"}
    assert {NORM, LAYER, CHANGE} <= rows.keys() and rows[CHANGE]["area"]["value"] > -9
    # Retaining goes the other way: no head is the base, all heads are the picture with the overlay.
    for line in whole.retained_curves["projection"].values():
        assert line.values[0] == pytest.approx(0, abs=1e-4) and line.values[-1] == pytest.approx(1, abs=1e-4)
    assert whole.retained[REFERENCE].value == 1 and "steering, chosen" in whole.retained
    assert summary["conclusion"]["next_step"] and len(summary["conclusion"]["sentences"]) == 5
    frozen = tmp_path / "whole" / "choice.json"
    assert set(json.loads(frozen.read_text())["choices"]) == set(summary["choices"])
    text = overlay_orders(stored(whole))
    assert (
        "| order | normalised area | of the projection |" in text
        and "**Few groups of pairs without a common concept (1)" in text
    )
    projected = next(row.projection for row in stored(whole).orders if row.name == "steering, chosen")
    assert f"| {interval(projected)} |" in text.split("| Steering Lens, chosen |")[1].splitlines()[0]
    (tmp_path / "whole" / "SHA256SUMS").unlink()  # as in studies of 0.1.0, which kept no hashes
    frozen.write_text(json.dumps({"choices": {"steering": {"setting": "steering rho=9", "compare": "text"}}}))
    with pytest.raises(StoreError, match="says that steering rho=9 was chosen for steering; now it would be"):
        finish(overlay_study(pair, pairs, options, tmp_path / "whole"))

    with pytest.raises(UsageError, match="holds a study with another options"):
        finish(overlay_study(pair, pairs, replace(options, ablation="zero"), tmp_path / "whole"))
    with pytest.raises(UsageError, match="another pairs"):
        finish(overlay_study(pair, replace(pairs, reported=pairs.selection), options, tmp_path / "whole"))


def test_without_a_decoder_orders_come_from_requested_embeddings_alone(
    pair: Pair, pairs: OverlaySet, options: OverlayOptions, tmp_path: Path
) -> None:
    bare = replace(pair, decoder=NoDecoder(pair.encoder.spec.embedding_size))
    experiment = overlay_experiment(bare, pairs, replace(options, decode=bare.decoder.spec.defaults), draws=20)
    assert experiment.work().n_decoded == 0
    summary = finish(run_experiment(experiment, tmp_path / "bare"))
    assert not summary.decodes and not summary.attenuation and not list(summary.missing())
    names = {row.name for row in summary.orders}
    assert not any(is_decoded_order(name) for name in names)
    assert {"steering, chosen, not decoded", "diffusion, plain, not decoded", NORM, CHANGE, LAYER, REFERENCE} <= names
    assert set(summary.choices) == {"steering, not decoded", "diffusion, not decoded"}
    assert summary.bar == summary.area("steering, chosen, not decoded") and "decoded" not in summary.curves
    # The same figures as those of the study that decodes too, since both choose by the same embeddings.
    whole = finish(overlay_study(pair, pairs, options, tmp_path / "whole", draws=20))
    for name, choice in summary.choices.items():
        assert choice.area == pytest.approx(whole.choices[name].area, abs=1e-4)
    undecoded = "steering, chosen, not decoded"
    for name in (NORM, CHANGE, undecoded):
        assert summary.area(name).value == pytest.approx(whole.area(name).value, abs=1e-4)
    assert summary.retained[undecoded].value == pytest.approx(whole.retained[undecoded].value, abs=1e-4)
    figures = {path.stem for path in (tmp_path / "bare" / "figures").glob("*.svg")}
    assert figures == {"plain", "trajectories", "orders", "retained"}
    again = stored(summary)
    said = [finding.text for finding in overlay_findings(again)]
    assert "without a decoder, the Steering Lens orders heads" in said[0] and len(said) == 5
    assert said[3].startswith("The same before decoding and without tuning")
    conclusion = overlay_conclusion(again)
    assert conclusion is not None and "in the order of the Steering Lens, not decoded," in conclusion.sentences[0]
    assert "untuned and not decoded, it " in conclusion.sentences[1]
    assert "decoding" not in overlay_section(again).split("## Orders")[1].split("## Retaining")[1]
    assert [bar.bar for bar in overlay_bars(again)] == ["aim: 0.7", "reported", "reported"]
    assert [bar.bar for bar in overlay_bars(whole)][:4] == ["interval above 0", "aim: 0.4", "aim: 0.85", "aim: 0.7"]
    assert any("chosen, not decoded" in line for line in overlay_lines(again, tmp_path))
    assert all(claim.how == "before decoding" for claim in overlay_claims(again))
    # Pairs that share pictures are no independent samples: three groups of them decide nothing.
    few, enough = (replace(again, n_concepts=9, n_groups=number) for number in (3, 9))
    words = overlay_conclusion(few)
    assert words is not None and "few groups of pairs without a common concept (3)" in words.sentences[0]
    assert all(claim.narrow for claim in overlay_claims(few)) and not any(
        claim.narrow for claim in overlay_claims(enough)
    )
    assert again.n_groups >= 1 and replace(again, n_concepts=9, n_groups=-1).caution == enough.caution == ""


def test_an_outside_judge_orders_heads_too(
    pair: Pair, pairs: OverlaySet, options: OverlayOptions, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run_file, "save_figure", lambda *_: None)
    judged = make_bench(pair, pairs.reference)
    judge: Any = steerlens.load(save_tiny_pair(tmp_path / "judge", seed=3, embedding_size=8)).encoder
    one = replace(options, steering=options.steering[:1], diffusion=options.diffusion[:1], strips=0, seeds=2)
    summary = finish(overlay_study(pair, pairs, one, tmp_path / "study", judge=judge, draws=20))
    both = {f"{lens}, {how}, judged" for lens in ("steering", "diffusion") for how in ("chosen", "plain")}
    assert both <= {row.name for row in summary.orders}
    paired = {"steering minus diffusion, chosen, judged", "steering minus diffusion, plain, judged"}
    assert paired | {"steering, chosen, minus the same judged"} <= summary.differences.keys()
    found = judge_name(judge)
    assert found is not None and summary.judge == found and found.name == "judge"
    assert json.loads((tmp_path / "study" / "study.json").read_text())["models"]["judge"] == found.sha256
    values = json.loads((tmp_path / "study" / "summary.json").read_text())
    text = overlay_orders(OverlaySummary.from_json(values, "summary.json"))
    assert f"outside encoder, judge (weights {found.sha256[:12]})" in text
    tensors = load_file(tmp_path / "study" / "parts" / "report-pair2.safetensors")
    part, setting = OverlayPart.from_tensors(tensors, "part"), str(one.steering[0])
    assert part.decoded[setting].shape == (2, 12, pair.encoder.spec.embedding_size)
    # The judge's objective, by its own view of base, overlay and reference pictures.
    seen = [judge.embed(judge.preprocess([one]))[0] for one in (pairs.reported[0].base, pairs.reported[0].overlay)]
    mean = judge.embed(judge.preprocess(list(pairs.reference))).mean(dim=0)
    for compare in ("objective", "text"):
        torch.testing.assert_close(
            lens_score(part, setting, judged_comparison(compare), "judged"),
            objective(part.judged[setting], *seen, mean).mean(dim=0),
            atol=1e-5,
            rtol=1e-4,
        )
    assert set(summary.judged_by) == {"steering", "diffusion"}
    # The mean of two seeds, each of which decodes what one alone would.
    by_seed = [
        lens_score(replace(part, decoded={setting: rows[None]}), setting, "overlay") for rows in part.decoded[setting]
    ]
    torch.testing.assert_close(lens_score(part, setting, "overlay"), (by_seed[0] + by_seed[1]) / 2)
    assert not torch.equal(*by_seed)
    asked = lens_embeddings(
        judged.encoder,
        pair.encoder.trace(pair.encoder.preprocess([pairs.reported[0].both])),
        judged.sites,
        one.steering[0],
        judged.reference,
    )[0]
    alone = run_to_end(redecode(pair.encoder, pair.decoder, asked[3:4], [1], one.decode))
    # A batch of another size rounds otherwise, which may change an 8-bit level here and there.
    likeness = cosine_similarity(part.decoded[setting][:, 3], alone.embeddings)
    assert float(likeness[1]) > 0.9995 > float(likeness[0])
    # The same judge from elsewhere is the same judge.
    judge.declare(replace(judge.spec, name="elsewhere"))
    finish(overlay_study(pair, pairs, one, tmp_path / "study", judge=judge, draws=5))
    with pytest.raises(UsageError, match="another models"):
        finish(overlay_study(pair, pairs, one, tmp_path / "study"))


def test_names_are_compared_only_where_all_are_known(pair: Pair, pairs: OverlaySet) -> None:
    assert comparisons(pair, pairs.selection) == ("overlay", "objective", "text")
    strange = replace(pairs.selection[0], overlay_concept="IMG 0042")
    assert comparisons(pair, [*pairs.selection, strange]) == ("overlay", "objective")
    assert overlay_text(replace(pair, vocabulary=None, texts=None), pairs.selection[0]) is None


def test_both_lenses_choose_from_as_many_settings(options: OverlayOptions) -> None:
    with pytest.raises(UsageError, match="same number of settings"):
        replace(options, diffusion=options.diffusion[:1])
    with pytest.raises(UsageError, match="at least 1 seed"):
        replace(options, seeds=0)
