"""Studies of features: ablation on real passes, and the importance and overlay studies from end to end."""

from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch
from matplotlib.figure import Figure
from overlaid import overlay_options, overlay_set
from safetensors.torch import load_file, save_file
from studied import finish, importance_options, subject_set
from tiny_saes import tiny_sae
from torch import Tensor

from steerlens.encoders import record_prefix
from steerlens.errors import UsageError
from steerlens.interventions import Resample
from steerlens.lenses.sae_parts import values_on_tokens
from steerlens.progress import run_to_end
from steerlens.saes import EMBEDDING, SparseAutoencoder, TopK, feature_interventions
from steerlens.scores import cosine_similarity
from steerlens.studies.importance.experiment import importance_experiment, importance_study
from steerlens.studies.importance.study import ImportanceStudy
from steerlens.studies.overlay.experiment import overlay_study
from steerlens.studies.overlay.joint import Scene
from steerlens.studies.overlay.study import OverlayStudy
from steerlens.studies.shared import run
from steerlens.studies.shared.ablation import ABLATIONS, Ablation, ablate, attribution, mean_writes, similarity_with
from steerlens.studies.shared.bench import make_bench
from steerlens.studies.shared.components import Components
from steerlens.studies.shared.subjects import SubjectSet
from steerlens.studies.shared.wording import worded, worded_figure
from steerlens.testing.encoder_checks import noise_pictures
from steerlens.testing.tiny_families import tiny_family_encoder
from steerlens.zoo.pair import Pair

ENCODER = tiny_family_encoder("CLIPVisionModelWithProjection", dtype=torch.float64)
PLACES = ("embed", "resid_mid.0", "resid_post.0", "mlp_out.1", "attn_out.1", "head.1.1")
CLOSE = {"rtol": 1e-5, "atol": 1e-6}


def sae_at(place: str) -> SparseAutoencoder:
    return tiny_sae(ENCODER, place).to(dtype=torch.float64)


def by_hand(sae: SparseAutoencoder, inputs: dict[str, Tensor], index: int, put: Tensor) -> Tensor:
    """The feature's write replaced in a full pass: x - write + put at the autoencoder's site."""
    from steerlens.interventions import Patch

    x = ENCODER.record(inputs, [sae.site])[sae.site]
    f = sae.encode(x)
    error = x - sae.decode(f, x)
    f[..., index] = 0
    return ENCODER.embed(inputs, [Patch(sae.site, value=sae.decode(f, x) + error + put)])


@pytest.mark.parametrize("ablation", ABLATIONS)
@pytest.mark.parametrize("place", PLACES)
def test_ablating_features_is_replacing_their_writes_in_full_passes(place: str, ablation: Ablation) -> None:
    sae, inputs = sae_at(place), dict(noise_pictures(ENCODER))
    others = {name: tensor.flip(0) for name, tensor in inputs.items()}
    sites = tuple(sae.feature(index) for index in (3, 8, 21))
    prefix, other = record_prefix(ENCODER, inputs), record_prefix(ENCODER, others)
    means = mean_writes(ENCODER, [others], sites, sae)
    measured = run_to_end(ablate(ENCODER, prefix, sites, ablation, means=means, others=other, batch=4, sae=sae))
    own = Components(sites, sae).record(ENCODER, other, sites)
    for column, site in enumerate(sites):
        put = {
            "zero": torch.zeros_like(own[site]),
            "mean": own[site].mean(dim=0, keepdim=True).expand_as(own[site]),
            "resample": own[site],
        }[ablation]
        torch.testing.assert_close(measured.total[:, column], by_hand(sae, inputs, site.index, put), **CLOSE)


@pytest.mark.parametrize("ablation", ABLATIONS)
@pytest.mark.parametrize("place", ["attn_out.1", "head.0.1"])
def test_features_of_head_values_are_ablated_before_the_output_projection(place: str, ablation: Ablation) -> None:
    sae = tiny_sae(ENCODER, place, space="head_values").to(dtype=torch.float64)
    inputs = dict(noise_pictures(ENCODER))
    others = {name: tensor.flip(0) for name, tensor in inputs.items()}
    sites = tuple(sae.feature(index) for index in (3, 8, 21))
    prefix, other = record_prefix(ENCODER, inputs), record_prefix(ENCODER, others)
    means = mean_writes(ENCODER, [others], sites, sae)
    measured = run_to_end(ablate(ENCODER, prefix, sites, ablation, means=means, others=other, batch=4, sae=sae))
    values = values_on_tokens(ENCODER, others, sae)
    for column, site in enumerate(sites):
        f = sae.encode(values)[..., site.index : site.index + 1]
        put = {"zero": torch.zeros_like(f), "mean": f.mean(dim=0), "resample": f}[ablation]
        wanted = ENCODER.embed(inputs, feature_interventions([Resample(site, value=put)], [sae]))
        torch.testing.assert_close(measured.total[:, column], wanted, **CLOSE)
    assert float((measured.total - measured.clean[:, None]).abs().max()) > 1e-6


@pytest.mark.parametrize("place", ["resid_post.0", "head.1.1"])
def test_attribution_is_the_slope_of_the_effect(place: str) -> None:
    sae, inputs = sae_at(place), dict(noise_pictures(ENCODER))
    sites = tuple(sae.feature(index) for index in (3, 8, 21))
    prefix, target = record_prefix(ENCODER, inputs), torch.randn(3, ENCODER.spec.embedding_size, dtype=torch.float64)
    measured = attribution(ENCODER, inputs, prefix, sites, similarity_with(target), "zero", sae=sae)
    own, step = Components(sites, sae).record(ENCODER, prefix, sites), 1e-4
    for column, site in enumerate(sites):
        shifted = [
            cosine_similarity(by_hand(sae, inputs, site.index, (1 + sign) * own[site]), target)
            for sign in (step, -step)
        ]
        slope = (shifted[0] - shifted[1]) / (2 * step)
        torch.testing.assert_close(measured[:, column].double(), slope.double(), rtol=1e-3, atol=1e-5)


def test_features_ablated_together_and_one_more() -> None:
    sae, inputs = sae_at("resid_post.0"), {name: rows[:1] for name, rows in noise_pictures(ENCODER).items()}
    sites = tuple(sae.feature(index) for index in (3, 8, 21))
    prefix = record_prefix(ENCODER, inputs)
    put = {site: torch.zeros(1, ENCODER.spec.n_tokens, ENCODER.spec.width, dtype=torch.float64) for site in sites}
    E = torch.randn(3, ENCODER.spec.embedding_size)
    scene = Scene(ENCODER, sites, prefix, put, *E, 64, sae)
    x = ENCODER.record(inputs, [sae.site])[sae.site]  # type: ignore[list-item]
    f = sae.encode(x)
    error = x - sae.decode(f, x)
    f[..., [3, 21]] = 0
    from steerlens.interventions import Patch

    wanted = ENCODER.embed(inputs, [Patch(sae.site, value=sae.decode(f, x) + error)])[0].float()  # type: ignore[arg-type]
    torch.testing.assert_close(scene.ablated([[0, 2]])[0], wanted, **CLOSE)
    torch.testing.assert_close(scene.one_more([0], [1, 2])[1], wanted, **CLOSE)


@pytest.fixture(scope="module")
def subjects(pair: Pair) -> SubjectSet:
    return subject_set(pair, 2, 3, 5)


@pytest.mark.parametrize("decoding", [False, True])
def test_the_importance_study_of_features(
    pair: Pair, subjects: SubjectSet, tmp_path: Path, decoding: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if decoding:
        monkeypatch.setattr(run, "save_figure", lambda *_: None)
    sae = tiny_sae(pair.encoder, "resid_post.1", activation=TopK(12))
    chosen = importance_options(pair, decoding=decoding, sae=sae, features=6)
    summary = finish(importance_study(pair, subjects, chosen, tmp_path / "out", draws=20))
    assert summary.n_heads == 6 and summary.setup.components == "features"
    rows = pq.read_table(tmp_path / "out" / "table.parquet").to_pylist()
    assert {row["site"].split(".")[0] for row in rows} == {"feature"} and len(rows) == 6 * 3
    report = ImportanceStudy().report
    lines = "\n".join(report.lines(summary, tmp_path))
    assert "6 features;" in lines and "sparse autoencoder tiny: 40 features of resid_post.1" in lines
    error, bias = summary.remainders
    assert (error.site, bias.site) == ("error.tiny", "bias.tiny")
    effect = summary.remainder_effect
    lost: list[Tensor] = []
    for path in (tmp_path / "out" / "parts").glob("report-*"):
        part = load_file(path)
        goal = part[effect.target or "clean"]
        ablated = part[f"remainder.{effect.ablation}"][0]
        lost.append(cosine_similarity(part["clean"], goal) - cosine_similarity(ablated, goal))
    assert error.effect.value == pytest.approx(float(torch.stack(lost).mean()), abs=1e-6)
    assert abs(error.effect.value) > 1e-3
    assert "Ablating error.tiny alone: " in lines and "Ablating bias.tiny alone: " in lines
    assert "Ablating error.tiny alone: " in report.section(summary)
    if not decoding:
        strip_remainders(tmp_path / "out", 2)
        again = finish(importance_study(pair, subjects, chosen, tmp_path / "out", draws=20))
        for resumed, before in zip(again.remainders, summary.remainders, strict=True):
            assert resumed.effect.value == pytest.approx(before.effect.value, abs=1e-5)
    words = report.section(summary) + "".join(finding.text for finding in report.findings(summary))
    assert " heads" not in words and "importance-heads" in words


def strip_remainders(folder: Path, count: int) -> None:
    """Makes the first parts of a study those of a version that measured neither error nor bias."""
    for path in sorted((folder / "parts").glob("report-*"))[:count]:
        tensors = load_file(path)
        kept = {name: tensor for name, tensor in tensors.items() if not name.startswith("remainder")}
        assert len(kept) < len(tensors)
        save_file(kept, path)
    (folder / "SHA256SUMS").unlink()


def test_the_overlay_study_of_features(pair: Pair, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "save_figure", lambda *_: None)
    sae = tiny_sae(pair.encoder, "resid_post.1")
    chosen = replace(overlay_options(pair), sae=sae, features=8)
    summary = finish(overlay_study(pair, overlay_set(pair), chosen, tmp_path / "out", draws=20))
    assert summary.n_heads == 8 and summary.components == "features"
    assert [row.site for row in summary.remainders] == ["error.tiny", "bias.tiny"]
    assert "Ablating error.tiny alone: " in "\n".join(OverlayStudy().report.lines(summary, tmp_path))
    strip_remainders(tmp_path / "out", 1)
    resumed = finish(overlay_study(pair, overlay_set(pair), chosen, tmp_path / "out", draws=20))
    assert resumed.remainders == summary.remainders, "a study that an earlier version began reports them too"
    old = replace(summary, remainders=())
    assert "Error and bias of the autoencoder were not measured" in OverlayStudy().report.section(old)
    assert "8 features" in OverlayStudy().report.lines(summary, tmp_path)[0]


def test_the_strongest_features_are_those_with_the_largest_mean_write(pair: Pair, subjects: SubjectSet) -> None:
    sae = tiny_sae(pair.encoder, "resid_post.1")
    bench = make_bench(pair, subjects.reference, None, sae, 5)
    trace = pair.encoder.trace(pair.encoder.preprocess(list(subjects.reference)))
    writes = sae.encode(trace.resid_post[:, 1, 0].float()).mean(dim=0) * sae.W_dec.norm(dim=-1)
    assert {site.index for site in bench.sites} == set(writes.topk(5).indices.tolist())


def test_autoencoders_that_cannot_be_studied_are_refused(pair: Pair, subjects: SubjectSet) -> None:
    for sae, words in (
        (tiny_sae(pair.encoder, EMBEDDING), "reads the image embedding, which comes after the forward pass"),
        (replace(tiny_sae(pair.encoder), b_enc=torch.full((40,), -1e4)), "0 features of tiny are active"),
    ):
        with pytest.raises(UsageError, match=words):
            importance_experiment(pair, subjects, importance_options(pair, decoding=False, sae=sae, features=6))
            make_bench(pair, subjects.reference, None, sae, 5)


def test_words_of_features() -> None:
    text = "Each head's write; heads of ![x](importance-heads.png), --heads, 3 heads. Head by head"
    wanted = "Each feature's write; features of ![x](importance-heads.png), --heads, 3 features. Feature by feature"
    assert worded(text, "features") == wanted and worded(text, "heads") == text


def test_words_of_figures_are_those_of_features() -> None:
    figure = Figure()
    axes = figure.subplots()
    axes.set_title("ablating a head")
    axes.set_yticks([0, 1], ["size of the head's write", "random"], fontsize=7)
    worded_figure(figure, "features")
    figure.canvas.draw()
    ticks = axes.get_yticklabels()
    assert [tick.get_text() for tick in ticks] == ["size of the feature's write", "random"]
    assert axes.get_title() == "ablating a feature" and ticks[0].get_fontsize() == 7
