"""Features and neurons in the explorer: listed as a sweep lists them, and reproduced by what is copied."""

import shlex
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from tiny_saes import tiny_sae

import steerlens as sl
from steerlens.app import Explorer, Policy, View
from steerlens.app import explorer as explorer_module
from steerlens.app.answers import Answer
from steerlens.app.models import OpenAutoencoder, OpenModel
from steerlens.app.page import live_meta
from steerlens.app.saving import recipes
from steerlens.app.view import LookRequest, UnitListRequest
from steerlens.cli.main import main
from steerlens.errors import UsageError
from steerlens.images import png_bytes
from steerlens.saes import value_at
from steerlens.zoo import sample_picture


@pytest.fixture(scope="module")
def source(pair: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file with the tensors of an autoencoder, which says neither site nor activation."""
    from safetensors.torch import save_file

    sae, path = tiny_sae(pair.encoder), tmp_path_factory.mktemp("sae") / "tiny.safetensors"
    save_file({name: getattr(sae, name).contiguous() for name in ("W_enc", "W_dec", "b_enc", "b_dec")}, path)
    return path


@pytest.fixture
def explorer(pair: Any, pair_folder: Path, source: Path) -> Explorer:
    opened = OpenAutoencoder(tiny_sae(pair.encoder), str(source), "resid_post.1", "relu")
    model = OpenModel("tiny", pair, {"model": str(pair_folder)}, autoencoders={"tiny": opened})
    explorer = Explorer([model], Policy())
    explorer.inputs.offer(sample_picture())
    return explorer


def listed(explorer: Explorer, view: View, units: str) -> Any:
    return explorer.units(UnitListRequest(view, units))


def first(explorer: Explorer, sample: str, units: str) -> str:
    return listed(explorer, View(sample), units)["units"][0]["key"]


def test_the_list_is_that_of_a_sweep(explorer: Explorer, sample: str) -> None:
    found = listed(explorer, View(sample, strength="rho=2"), "tiny")
    sae = explorer.model().autoencoders["tiny"].sae
    atlas = sl.look(
        explorer.model().pair,
        sample_picture(),
        sites="feature.tiny",
        saes=[sae],
        strength="rho=2",
        lenses=("steering",),
        controls=0,
        steps=1,
    )
    units = atlas.readings[0].units
    assert [unit["key"] for unit in found["units"]] == [str(unit.site) for unit in units]
    assert [unit["effect"] for unit in found["units"]] == pytest.approx([unit.effect for unit in units], abs=1e-4)
    assert [unit["similarity"] for unit in found["units"]] == pytest.approx([u.similarity for u in units], abs=1e-4)
    assert set(found["sites"]) == {unit["key"] for unit in found["units"]}
    assert found["active"] >= len(found["units"]) - 2 and "resid_post.1" in found["sae"]["words"]


def test_an_input_is_surveyed_once_for_all_strengths_and_targets(
    explorer: Explorer, sample: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    surveys: list[str] = []
    survey = explorer_module.strongest_units
    monkeypatch.setattr(explorer_module, "strongest_units", lambda *given: surveys.append(given[1]) or survey(*given))
    red = explorer.inputs.send(png_bytes(Image.new("RGB", (32, 32), "red")), "red.png")
    view = View(sample, strength="rho=1")
    first = listed(explorer, view, "tiny")["units"]
    for changed in (
        replace(view, strength="rho=3"),
        replace(view, target_input=red.id),
        replace(view, seed=3, steps=2, guidance=2.0),
        View(sample, site="head.0.0", lens="total"),
    ):
        units = listed(explorer, changed, "tiny")["units"]
        assert [unit["effect"] for unit in units] == [unit["effect"] for unit in first]
        same = (changed.strength, changed.target_input) == ("rho=1", "")
        assert ([unit["similarity"] for unit in units] == [unit["similarity"] for unit in first]) == same
    assert surveys == ["tiny"]
    listed(explorer, view, "neurons.0")
    listed(explorer, View(red.id), "tiny")
    assert surveys == ["tiny", "neurons.0", "tiny"]


@pytest.mark.parametrize("strength", ["rho=3", "s=4"])
def test_similarities_are_those_of_the_chosen_strength_and_target(
    explorer: Explorer, sample: str, strength: str
) -> None:
    red = explorer.inputs.send(png_bytes(Image.new("RGB", (32, 32), "red")), "red.png")
    listed(explorer, View(sample), "tiny")  # what is kept of another strength and target
    units = listed(explorer, View(sample, strength=strength, target_input=red.id), "tiny")["units"]
    pair, sae = explorer.model().pair, explorer.model().autoencoders["tiny"].sae
    given = {"sites": "feature.tiny", "saes": [sae], "lenses": ("steering",), "controls": 0, "steps": 1}
    atlas = sl.look(pair, sample_picture(), strength=strength, target=red.picture, **given)
    expected = [unit.similarity for unit in atlas.readings[0].units]
    assert [unit["similarity"] for unit in units] == pytest.approx(expected, abs=1e-4)


def test_the_strongest_neurons_of_a_layer(explorer: Explorer, sample: str) -> None:
    keys = [unit["key"] for unit in listed(explorer, View(sample), "neurons.1")["units"]]
    encoder = explorer.model().pair.encoder
    trace = encoder.trace(encoder.preprocess([sample_picture().image]), neurons=True)
    norms = trace.neurons.norms(1)[0].square().mean(0)
    assert keys == [f"neuron.1.{index}" for index in norms.argsort(descending=True)[: len(keys)].tolist()]


@pytest.mark.parametrize(
    ("units", "lens"),
    [
        ("tiny", "steering"),
        ("tiny", "total"),
        ("neurons.0", "steering"),
        ("neurons.0", "control"),
        ("tiny", "ablation"),
    ],
)
def test_a_unit_is_the_cell_that_its_command_and_its_code_compute(
    explorer: Explorer, sample: str, units: str, lens: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    view = View(sample, site=first(explorer, sample, units), lens=lens, strength="rho=2", steps=2)
    events = explorer.look(LookRequest(view))
    shown = next(event.content for event in events if isinstance(event, Answer) and event.kind == "picture")
    copied = recipes(explorer, view, Policy())
    command = shlex.split(copied["command"])
    assert main([*command[1:], "--out", "run", "--device", "cpu", "--dtype", "float32"]) == 0
    (stored,) = sl.load_run("run").cells(lens, view.site)
    assert stored.similarity == pytest.approx(shown["similarity"], abs=2e-3)
    assert stored.fidelity == pytest.approx(shown["fidelity"], abs=2e-3)
    code: dict[str, Any] = {}
    monkeypatch.setattr(sl, "load", lambda *_, **__: explorer.model().pair)
    exec(compile(copied["python"], "copied.py", "exec"), code)
    assert code["result"].similarity == pytest.approx(stored.similarity, abs=2e-3)


def test_what_cannot_be_steered_is_refused(explorer: Explorer, sample: str) -> None:
    sae = explorer.model().autoencoders["tiny"].sae
    encoder = explorer.model().pair.encoder
    trace = encoder.trace(encoder.preprocess([sample_picture().image]))
    active = sae.encode(value_at(sae, trace))[0].any(dim=0)
    silent = int(torch.nonzero(~active)[0])
    for site, words in {
        f"feature.tiny.{silent}": "is silent on this picture",
        "feature.tiny.4000": "features 0 to 39",
        "feature.other.1": "no sparse autoencoder called 'other' is open",
        "neuron.0.99999": "layer 0 has neurons",
        "neuron.9.0": "layers",
    }.items():
        with pytest.raises(UsageError, match=words):
            list(explorer.look(LookRequest(View(sample, site=site), refine=False)))
    with pytest.raises(UsageError, match="alone"):
        list(explorer.ablate(View(sample, members=("head.0.0", "neuron.0.1"))))
    for units, words in {"other": "no sparse autoencoder", "neurons.x": "neuron", "neurons.99": "layers 0 to"}.items():
        with pytest.raises(UsageError, match=words):
            listed(explorer, View(sample), units)
    with pytest.raises(UsageError, match="open are tiny"):
        explorer.recipe(replace(View(sample), site="error.other"))


def test_the_page_knows_what_can_be_chosen(explorer: Explorer) -> None:
    opened = live_meta(explorer, "")["openUnits"]
    assert opened["features"] == {"tiny": 40}
    assert len(opened["neurons"]) == explorer.model().pair.encoder.spec.n_layers
