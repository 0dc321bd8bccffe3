"""The explorer: its answers are those of the sweep, and what it copies reproduces them."""

import shlex
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

import steerlens as sl
from steerlens.app import Explorer, Policy, View
from steerlens.app.answers import Answer
from steerlens.app.recipe import Recipe, as_command, as_python
from steerlens.app.saving import recipes, save
from steerlens.app.view import LookRequest
from steerlens.cli.main import main
from steerlens.errors import PictureError, UsageError
from steerlens.images import png_bytes
from steerlens.scores import cosine_similarity


def answers(events: Any) -> dict[str, Any]:
    """Content of the last answer of each kind."""
    return {event.kind: event.content for event in events if isinstance(event, Answer)}


def picture(explorer: Explorer, view: View) -> Any:
    return answers(explorer.look(LookRequest(view)))["picture"]


def views(sample: str) -> list[View]:
    base = View(sample, strength="rho=2")
    return [
        base,
        replace(base, site="head.1.1"),
        replace(base, site="head.1.1", lens="diffusion"),
        replace(base, site="head.1.1", lens="control", draw=1),
        replace(base, site="mlp_out.0", strength="s=-2", seed=3),
        replace(base, site="attn_out.1", steps=4, guidance=1.5),
        replace(base, site="resid_post.0", lens="diffusion"),
        replace(base, site="head.0.1", lens="total"),
        replace(base, site="head.0.1", lens="ablation"),
        replace(base, members=("head.0.0", "mlp_out.1")),
        replace(base, members=("head.0.0", "head.1.1"), lens="ablation"),
        replace(base, site="head.1.0", patches=(0, 1)),
        replace(base, members=("head.1.0", "head.1.1"), patches=(0, 3)),
        replace(base, site="head.1.0", target_input=sample),
    ]


@pytest.mark.parametrize("index", range(14))
def test_a_view_is_the_cell_that_its_command_and_its_code_compute(
    explorer: Explorer, sample: str, index: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    view = views(sample)[index]
    shown = picture(explorer, view)
    copied = recipes(explorer, view, Policy())
    recipe = explorer.recipe(view)

    command = shlex.split(copied["command"])
    assert main([*command[1:], "--out", "run", "--device", "cpu", "--dtype", "float32"]) == 0
    atlas = sl.load_run("run")
    cells = atlas.cells(recipe.cell(explorer.job_of(recipe).plan).lens, recipe.site)
    stored = cells[view.draw if view.lens == "control" else 0]
    assert stored.similarity == pytest.approx(shown["similarity"], abs=2e-3)
    assert stored.fidelity == pytest.approx(shown["fidelity"], abs=2e-3)

    code: dict[str, Any] = {}
    monkeypatch.setattr(sl, "load", lambda *_, **__: explorer.model().pair)
    exec(compile(copied["python"], "copied.py", "exec"), code)
    assert code["result"].similarity == pytest.approx(stored.similarity, abs=2e-3)
    assert Path("view.png").stat().st_size > 0


def test_numbers_come_before_pictures_and_a_known_view_comes_at_once(explorer: Explorer, sample: str) -> None:
    request = LookRequest(View(sample, site="head.1.1", steps=6))
    kinds = [event.kind for event in explorer.look(request) if isinstance(event, Answer)]
    assert kinds == ["numbers", "preview", "picture"]
    assert [type(event) for event in explorer.look(request)] == [Answer, Answer]
    dragged = LookRequest(View(sample, site="head.1.0", steps=6), refine=False)
    assert [event.kind for event in explorer.look(dragged) if isinstance(event, Answer)] == ["numbers", "preview"]


def test_scores_of_all_parts_are_the_cosines_of_the_lens(explorer: Explorer, sample: str) -> None:
    scores = explorer.scores(View(sample, strength="rho=3"))
    pair = explorer.model().pair
    inputs = pair.encoder.preprocess([sl.sample_picture().image])
    trace = pair.encoder.trace(inputs)
    for sites, values in (
        ("heads", [value for layer in scores["heads"] for value in layer]),
        ("mlp_out", scores["mlps"]),
        ("attn_out", scores["attention"]),
    ):
        steered = sl.SteeringLens(pair.encoder, "rho=3").embeddings(trace, sites)[0]
        assert torch.tensor(values) == pytest.approx(cosine_similarity(steered, trace.embedding[0]).numpy(), abs=1e-4)
    assert scores["input"] == pytest.approx(1)


def test_an_ablation_is_the_real_forward_pass(explorer: Explorer, sample: str) -> None:
    told = answers(explorer.ablate(View(sample, members=("head.0.0", "head.1.1"))))
    pair = explorer.model().pair
    inputs = pair.encoder.preprocess([sl.sample_picture().image])
    clean = pair.encoder.embed(inputs)[0]
    without = pair.encoder.embed(inputs, [sl.Zero("head.0.0"), sl.Zero("head.1.1")])[0]
    assert told["ablation"]["cosine"] == pytest.approx(float(cosine_similarity(clean, without)), abs=1e-4)
    assert told["ablation"]["change"] == pytest.approx(float((without - clean).norm() / clean.norm()), abs=1e-3)
    pictures = told["ablation-pictures"]
    assert pictures["before"]["src"].startswith("data:image/") and "fidelity" in pictures["after"]
    with pytest.raises(UsageError, match="nothing is ablated"):
        list(explorer.ablate(View(sample)))


def test_the_ablation_of_every_head_is_the_real_forward_pass_and_goes_on_where_it_stopped(
    explorer: Explorer, sample: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun = explorer.ablate_all(View(sample))
    first = next(begun).content
    begun.close()
    told = [first, *(event.content for event in explorer.ablate_all(View(sample, target="no such text")))][1:]
    assert told[0] == first and [entry["layer"] for entry in told] == list(range(3))
    pair = explorer.model().pair
    inputs = pair.encoder.preprocess([sl.sample_picture().image])
    clean = pair.encoder.embed(inputs)[0]
    for layer in range(3):
        for head in range(2):
            without = pair.encoder.embed(inputs, [sl.Zero(f"head.{layer}.{head}")])[0]
            effect = 1 - float(cosine_similarity(clean, without))
            assert told[layer]["effects"][head] == pytest.approx(effect, abs=2e-5)
    assert max(effect for entry in told for effect in entry["effects"]) > 1e-4
    monkeypatch.setattr(type(pair.encoder), "embed", None)
    assert [event.content for event in explorer.ablate_all(View(sample))] == told, "measured once"


def test_a_strip_shows_each_strength(explorer: Explorer, sample: str) -> None:
    strengths = ("rho=-1", "rho=0", "rho=4")
    told = answers(explorer.look(LookRequest(View(sample, site="head.1.1"), False, strengths)))
    assert [entry["strength"] for entry in told["strip"]["strengths"]] == list(strengths)
    assert [entry["rho"] for entry in told["strip"]["strengths"]] == pytest.approx([-1, 0, 4], abs=1e-3)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"site": "head.9.0"}, "layers"),
        ({"site": "head.0.99"}, "heads"),
        ({"site": "resid_post.0"}, "Steering Lens"),
        ({"site": "head.0.0", "patches": (10_000,)}, "no patch"),
        ({"site": "mlp_out.0", "patches": (0,)}, "only a head"),
        ({"members": ("head.0.0", "attn_out.0")}, "count twice"),
        ({"site": "vector.smile"}, "no direction"),
        ({"site": "head.0.0", "model": "other"}, "no model"),
        ({"site": "head.0.0", "input": "0" * 12}, "not on the server"),
        ({"site": "head.0.0", "target_input": "0" * 12}, "not on the server"),
    ],
)
def test_what_the_model_does_not_have_is_refused(
    explorer: Explorer, sample: str, change: dict[str, Any], words: str
) -> None:
    with pytest.raises(UsageError, match=words):
        picture(explorer, replace(View(sample), **change))


def test_pictures_are_checked_kept_once_and_make_room(sample: str, explorer: Explorer) -> None:
    store = explorer.inputs
    red = png_bytes(Image.new("RGB", (40, 30), "red"))
    entry = store.send(red, "C:\\me\\..\\red apple!.png")
    assert entry.picture.name == "red-apple" and store.send(red, "again.png") is entry
    assert store.get(entry.id).picture.image.size == (40, 30)
    for data, words in ((b"", "empty"), (b"no picture", "picture"), (b"0" * 20_000_001, "at most")):
        with pytest.raises(PictureError, match=words):
            store.send(data, "x.png")
    for number in range(70):
        store.send(png_bytes(Image.new("RGB", (8, 8), (number, 0, 0))), f"{number}.png")
    assert len(store.all()) == 65 and store.get(sample).example
    with pytest.raises(UsageError, match="drop it"):
        store.get(entry.id)


def test_saved_views_are_runs_that_their_commands_resume(
    explorer: Explorer, sample: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    entry = explorer.inputs.send(png_bytes(Image.new("RGB", (32, 32), "blue")), "blue.png")
    view = View(entry.id, site="head.1.1", strength="rho=2")
    events = [event for event in save(explorer, [view, view]) if isinstance(event, Answer)]
    assert len(events) == 1
    told = events[0].content
    assert (tmp_path / told["folder"] / "report.html").is_file()
    command = shlex.split(told["command"])
    assert main([*command[1:], "--device", "cpu", "--dtype", "float32"]) == 0
    said = capsys.readouterr()
    assert "already" in said.err + said.out
    assert list(tmp_path.iterdir()) == [tmp_path / "steerlens-runs"]


def test_a_run_s_pictures_are_its_own(pair: Any, pair_folder: Path) -> None:
    from steerlens.app.models import OpenModel
    from steerlens.app.page import live_input, live_meta

    atlas = sl.look(pair, sl.sample_picture(), sites="head.1.*", progress=False)
    explorer = Explorer([OpenModel("tiny", pair, {"model": str(pair_folder)})], Policy(), atlas)
    explorer.inputs.offer(atlas.readings[0].picture)
    id = atlas.readings[0].id
    assert live_meta(explorer, "")["strength"] == str(atlas.plan.strength)
    data = live_input(explorer, View(id))
    assert "head.1.1" in data["sites"] and data["clean"][0]["src"]
    assert live_input(explorer, View(id, target_input=id))["sites"] == {}


def test_views_of_a_run_s_inputs_have_the_run_s_target_unless_they_name_another(pair: Any, pair_folder: Path) -> None:
    from steerlens.app.models import OpenModel
    from steerlens.app.page import live_input, live_meta

    atlas = sl.look(pair, sl.sample_picture(), sites="head.1.*", target="red apple", strength="rho=2", progress=False)
    explorer = Explorer([OpenModel("tiny", pair, {"model": str(pair_folder)})], Policy(), atlas)
    explorer.inputs.offer(atlas.readings[0].picture)
    other = explorer.inputs.send(png_bytes(Image.new("RGB", (40, 40), "teal")), "teal.png").id
    id = atlas.readings[0].id
    assert live_meta(explorer, "")["live"]["ofRun"] == {"inputs": [id], "text": "red apple", "input": ""}
    text = pair.text_direction("red apple")
    of_input, of_other = (float(cosine_similarity(trace_of(pair, explorer, one), text)) for one in (id, other))
    view = View(id, site="head.1.1", strength="rho=2")
    for named in (view, replace(view, target="red apple")):
        assert live_input(explorer, named)["sites"], "the run's own pictures"
        assert explorer.scores(named)["input"] == pytest.approx(of_input, abs=1e-4)
        stored = atlas.cells("steering", "head.1.1")[0]
        assert picture(explorer, named)["similarity"] == pytest.approx(stored.similarity, abs=1e-4)
        assert "--target" in as_command(explorer.recipe(named), "sample")
    itself = replace(view, target_input=id)
    assert live_input(explorer, itself)["sites"] == {} and explorer.scores(itself)["input"] == pytest.approx(1)
    assert explorer.scores(View(other))["input"] == pytest.approx(1), "other inputs are compared with themselves"
    assert of_other != pytest.approx(1)


def trace_of(pair: Any, explorer: Explorer, id: str) -> torch.Tensor:
    return pair.encoder.embed(pair.encoder.preprocess([explorer.inputs.get(id).picture.image]))[0]


def test_a_run_compared_with_a_picture_that_is_not_at_hand_is_not_mixed_with_live_scores(
    pair: Any, pair_folder: Path
) -> None:
    from steerlens.app.models import OpenModel
    from steerlens.app.page import live_input, live_meta

    target = Image.new("RGB", (40, 40), "teal")
    atlas = sl.look(pair, sl.sample_picture(), sites="head.1.*", target=target, progress=False)
    explorer = Explorer([OpenModel("tiny", pair, {"model": str(pair_folder)})], Policy(), atlas)
    explorer.inputs.offer(atlas.readings[0].picture)
    id = atlas.readings[0].id
    assert live_meta(explorer, "")["live"]["ofRun"] is None
    told = live_input(explorer, View(id))
    assert told["target"] == "the input itself" and told["sites"] == {}


def test_a_copied_text_is_one_word_of_a_shell(explorer: Explorer, sample: str) -> None:
    recipe = Recipe(
        View(sample, site="head.0.0", target="it's; rm -rf $HOME"), explorer.model(), explorer.inputs.get(sample)
    )
    words: Sequence[str] = shlex.split(as_command(recipe, "sample"))
    assert "--target=it's; rm -rf $HOME" in words
    compile(as_python(recipe, "sample"), "copied.py", "exec")
