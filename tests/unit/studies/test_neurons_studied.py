"""Studies of neurons in place of heads: ablation on real passes, importance and overlay from end to end."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch
from overlaid import overlay_options, overlay_set
from PIL import Image
from safetensors.torch import save_file
from studied import finish, importance_options, subject_set
from tiny_saes import tiny_sae
from torch import Tensor

from steerlens.cli.lens.settings import SiteSettings
from steerlens.cli.main import main
from steerlens.encoders import record_prefix
from steerlens.errors import UsageError
from steerlens.interventions import Resample
from steerlens.progress import run_to_end
from steerlens.scores import cosine_similarity
from steerlens.sites import Site
from steerlens.studies.importance.arguments import ImportanceArguments
from steerlens.studies.importance.experiment import importance_study
from steerlens.studies.importance.study import ImportanceStudy
from steerlens.studies.overlay.experiment import overlay_study
from steerlens.studies.overlay.study import OverlayStudy
from steerlens.studies.shared import run
from steerlens.studies.shared.ablation import ABLATIONS, Ablation, ablate, attribution, mean_writes, similarity_with
from steerlens.studies.shared.bench import make_bench
from steerlens.studies.shared.inputs import study_sae
from steerlens.studies.shared.wording import worded
from steerlens.testing.encoder_checks import noise_pictures
from steerlens.testing.tiny_families import tiny_family_encoder
from steerlens.zoo.pair import Pair

ENCODER = tiny_family_encoder("CLIPVisionModelWithProjection", dtype=torch.float64)
SITES = (Site("neuron", 0, index=3), Site("neuron", 0, index=8), Site("neuron", ENCODER.spec.n_layers - 1, index=1))
CLOSE = {"rtol": 1e-5, "atol": 1e-6}


@pytest.mark.parametrize("ablation", ABLATIONS)
def test_ablating_neurons_is_replacing_their_activations_in_full_passes(ablation: Ablation) -> None:
    inputs = dict(noise_pictures(ENCODER))
    others = {name: tensor.flip(0) for name, tensor in inputs.items()}
    prefix, other = record_prefix(ENCODER, inputs), record_prefix(ENCODER, others)
    means = mean_writes(ENCODER, [others], SITES)
    measured = run_to_end(ablate(ENCODER, prefix, SITES, ablation, means=means, others=other, batch=4))
    for column, site in enumerate(SITES):
        fc2 = ENCODER.layers()[site.layer].neuron_module()
        kept: list[Tensor] = []
        hook = fc2.register_forward_pre_hook(lambda _, args, kept=kept: kept.append(args[0].detach().clone()))
        ENCODER.embed(others)
        hook.remove()
        own = kept[0][..., site.index]
        put = {"zero": 0 * own, "mean": own.mean(dim=0).expand_as(own), "resample": own}[ablation]

        def change(_: object, args: tuple[Tensor, ...], index: int = site.index, put: Tensor = put) -> tuple[Tensor]:
            values = args[0].clone()
            values[..., index] = put
            return (values,)

        hook = fc2.register_forward_pre_hook(change)
        wanted = ENCODER.embed(inputs)
        hook.remove()
        torch.testing.assert_close(measured.total[:, column], wanted, **CLOSE)
        assert float((wanted - measured.clean).abs().max()) > 1e-6


def test_attribution_is_the_slope_of_the_effect() -> None:
    inputs = dict(noise_pictures(ENCODER))
    prefix, target = record_prefix(ENCODER, inputs), torch.randn(3, ENCODER.spec.embedding_size, dtype=torch.float64)
    measured, step = attribution(ENCODER, inputs, prefix, SITES, similarity_with(target), "zero"), 1e-4
    own = ENCODER.record(inputs, SITES)
    for column, site in enumerate(SITES):
        moved = [
            cosine_similarity(ENCODER.embed(inputs, [Resample(site, value=(1 + sign) * own[site])]), target)
            for sign in (step, -step)
        ]
        slope = (moved[0] - moved[1]) / (2 * step)
        torch.testing.assert_close(measured[:, column].double(), slope.double(), rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("decoding", [False, True])
def test_the_importance_study_of_neurons(
    pair: Pair, tmp_path: Path, decoding: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run, "save_figure", lambda *_: None)
    subjects = subject_set(pair, 2, 3, 5)
    summary = finish(
        importance_study(
            pair, subjects, importance_options(pair, decoding=decoding, neurons=6), tmp_path / "out", draws=20
        )
    )
    assert summary.n_heads == 6 and summary.setup.components == "neurons" and not summary.remainders
    rows = pq.read_table(tmp_path / "out" / "table.parquet").to_pylist()
    studied = {row["site"] for row in rows}
    assert len(rows) == 6 * 3 and {site.split(".")[0] for site in studied} == {"neuron"}
    trace = pair.encoder.trace(pair.encoder.preprocess(list(subjects.reference)), neurons=True)
    norms = torch.stack([trace.neurons.norms(layer).sum(dim=(0, 1)) for layer in range(pair.encoder.spec.n_layers)])
    width = norms.shape[1]
    wanted = {f"neuron.{place // width}.{place % width}" for place in norms.flatten().topk(6).indices.tolist()}
    assert studied == wanted, "those with the largest mean write"
    report = ImportanceStudy().report
    words = "\n".join(report.lines(summary, tmp_path)) + report.section(summary)
    words += "".join(finding.text for finding in report.findings(summary))
    assert "6 neurons;" in words and " heads" not in words and "importance-heads" in words


def test_the_overlay_study_of_neurons(pair: Pair, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "save_figure", lambda *_: None)
    chosen = replace(overlay_options(pair), neurons=8)
    summary = finish(overlay_study(pair, overlay_set(pair), chosen, tmp_path / "out", draws=20))
    assert summary.n_heads == 8 and summary.components == "neurons" and not summary.remainders
    assert "8 neurons" in OverlayStudy().report.lines(summary, tmp_path)[0]


def test_numbers_of_neurons_that_make_no_study_are_refused(
    pair: Pair, pair_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    count = sum(modules.neurons().n_neurons for modules in pair.encoder.layers())  # type: ignore[attr-defined]
    with pytest.raises(UsageError, match=f"there are only {count} neurons in this encoder"):
        make_bench(pair, subject_set(pair, 2, 3, 5).reference, neurons=count + 1)
    command = ["study", "importance", "--model", str(pair_folder), "--images", str(tmp_path), "--out", str(tmp_path)]
    for given, words in (
        (["--neurons", "3"], "it needs at least 4 of them, not 3"),
        (["--neurons", "-8"], "it needs at least 4 of them, not -8"),
        (["--neurons", "8", "--sae", "emoji-resid8"], "not both"),
        (["--neurons", "8", "--features", "9"], "--features: no effect"),
    ):
        assert main([*command, *given]) == 2
        assert words in capsys.readouterr().err


def test_a_dry_run_names_the_components(
    pair: Pair, pair_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for number in range(6):
        Image.effect_noise((20, 20), 90).convert("RGB").save(tmp_path / f"{'abc'[number % 3]} {number}.png")
    sae = tiny_sae(pair.encoder)
    save_file({"W_enc": sae.W_enc, "W_dec": sae.W_dec}, tmp_path / "sae.safetensors")
    command = ["study", "importance", "--model", str(pair_folder), "--images", str(tmp_path), "--choose", "0"]
    command += ["--no-decoder", "--dry-run", "--out", str(tmp_path / "out")]
    plain = ["--sae", str(tmp_path / "sae.safetensors"), "--sae-site", "resid_post.1", "--sae-activation", "relu"]
    for given, words in (
        (["--neurons", "5"], "5 neurons in each"),
        ([*plain, "--features", "6"], "6 features in each"),
        ([], f"{len(pair.encoder.layers()) * pair.encoder.spec.n_heads} heads in each"),  # type: ignore[attr-defined]
    ):
        assert main([*command, *given]) == 0
        assert words in capsys.readouterr().out


def test_the_bias_of_plain_tensors_is_subtracted_where_asked_for(pair: Pair, tmp_path: Path) -> None:
    sae, path = tiny_sae(pair.encoder), tmp_path / "sae.safetensors"
    save_file({"W_enc": sae.W_enc, "W_dec": sae.W_dec, "b_dec": sae.b_dec}, path)
    given: dict[str, Any] = {"sae_site": "resid_post.1", "sae_activation": "relu"}
    for subtracted in (False, True):
        of_lens = SiteSettings(sae=(str(path),), sae_apply_b_dec=subtracted, **given).saes()[0]
        of_study = study_sae(ImportanceArguments(tmp_path, sae=path, sae_apply_b_dec=subtracted, **given))
        assert of_study is not None
        assert of_lens.apply_b_dec_to_input == of_study.apply_b_dec_to_input == subtracted
    with pytest.raises(UsageError, match="--sae-apply-b-dec: no effect"):
        study_sae(ImportanceArguments(tmp_path, sae_apply_b_dec=True))


def test_words_of_neurons() -> None:
    assert worded("Each head's write; --heads, 3 heads", "neurons") == "Each neuron's write; --heads, 3 neurons"
