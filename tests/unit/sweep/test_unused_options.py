"""Options that cannot change a result are refused, by command line and Python alike; defaults never are."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from steerlens.decoders import DecodeOptions
from steerlens.errors import UsageError
from steerlens.images import Picture
from steerlens.lenses import Strength
from steerlens.loading import load
from steerlens.sweep.look import look
from steerlens.sweep.options import LookOptions
from steerlens.sweep.prepare import make_job, plan_of
from steerlens.sweep.unused import refuse_unused_in_decoding, refuse_unused_labels
from steerlens.testing.tiny_decoders import save_tiny_decoder
from steerlens.zoo.pair import Pair

PICTURE = Picture.from_image(
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (40, 40, 3), dtype=np.uint8)), "noise"
)


@pytest.fixture(scope="module")
def one_pass(tmp_path_factory: pytest.TempPathFactory) -> Pair:
    folder = save_tiny_decoder("rae-dinov2", tmp_path_factory.mktemp("rae") / "tiny")
    return load(folder, dtype="float32", device="cpu")


def plan(**options: Any) -> None:
    plan_of(LookOptions(**options), [PICTURE], 3, 2, Strength("rho", 1.0))


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"lenses": ("diffusion",), "strength": "s=40"}, r"strength s=40: no effect.*without the Steering Lens"),
        ({"lenses": ("diffusion",), "controls": 3}, r"controls 3: no effect"),
        ({"lenses": ("diffusion",), "tokens": "3"}, r"tokens 3: no effect"),
        ({"lenses": ("diffusion",), "strength": "s=4", "controls": 2}, r"strength s=4, controls 2: no effect"),
        ({"sites": "resid_post", "strength": "rho=2"}, r"the sites are all of the residual stream"),
        ({"sites": "resid_post", "effect": ("direct", "total")}, r"effect direct total: no effect"),
        ({"decode": "top:7"}, r"decode top:7: no effect, because there are only 6 sites"),
        ({"sites": "resid_post", "decode": "above:0.3"}, r"decode above:0.3: no effect"),
    ],
)
def test_an_option_without_an_effect_on_the_plan_is_refused(options: dict[str, Any], reason: str) -> None:
    with pytest.raises(UsageError, match=reason):
        plan(**options)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"lenses": ("diffusion",)},
        {"lenses": ("diffusion",), "controls": 0},
        {"sites": "resid_post", "effect": ("direct",)},
        {"sites": "resid_post", "effect": ()},
        {"decode": "top:6"},
        {"decode": "top:0"},
        {"sites": "heads", "lenses": ("steering",), "strength": "s=40", "effect": "total", "controls": 2},
    ],
)
def test_defaults_and_values_that_turn_something_off_are_never_refused(options: dict[str, Any]) -> None:
    plan(**options)


def test_foils_without_a_direct_effect_are_refused() -> None:
    others = [Picture.from_image(Image.new("RGB", (8, 8), color), color) for color in ("red", "blue")]
    with pytest.raises(UsageError, match=r"foils 1: no effect"):
        plan_of(LookOptions(effect="total", foils=1), others, 3, 2, Strength("rho", 1.0))


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("steps", 9),
        ("guidance", 3.0),
        ("scheduler", "ddim"),
        ("guidance_interval", (0.0, 0.5)),
        ("seed", 3),
        ("n_seeds", 2),
    ],
)
def test_a_decoder_of_one_pass_takes_no_options_of_denoising(option: str, value: Any, one_pass: Pair) -> None:
    with pytest.raises(UsageError, match=rf"{option.removeprefix('n_')} .*: no effect, because .* one pass"):
        look(one_pass, PICTURE, **{option: value})
    defaults = one_pass.decoder.spec.defaults
    make_job(one_pass, [PICTURE], LookOptions(steps=defaults.steps, guidance=defaults.guidance, batch_size=2))


def test_an_interval_of_guidance_needs_guidance(pair: Pair) -> None:
    defaults = pair.decoder.spec.defaults
    with pytest.raises(UsageError, match=r"guidance_interval 0 0.5: no effect, because there is no guidance"):
        refuse_unused_in_decoding(LookOptions(guidance=1.0, guidance_interval=(0.0, 0.5)), defaults, "tiny")
    refuse_unused_in_decoding(LookOptions(guidance=2.0, guidance_interval=(0.0, 0.5)), defaults, "tiny")
    refuse_unused_in_decoding(LookOptions(guidance=1.0, guidance_interval=(0.0, 1.0)), defaults, "tiny")


def test_labels_and_a_vocabulary_go_together() -> None:
    with pytest.raises(UsageError, match=r"labels 9: no effect, because this model has no vocabulary"):
        refuse_unused_labels(LookOptions(n_labels=9), vocabulary=0, own=False)
    with pytest.raises(UsageError, match=r"a vocabulary: no effect, because 0 labels"):
        refuse_unused_labels(LookOptions(n_labels=0), vocabulary=9, own=True)
    with pytest.raises(UsageError, match="labels 10: there are only 9 texts"):
        refuse_unused_labels(LookOptions(n_labels=10), vocabulary=9, own=False)
    refuse_unused_labels(LookOptions(), vocabulary=3, own=False)  # the default takes what there is
    for options in (LookOptions(), LookOptions(n_labels=0)):
        refuse_unused_labels(options, vocabulary=0, own=False)


def test_a_local_copy_that_would_replace_another_argument_is_refused(pair_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"local .* cannot be used: .* is a folder itself"):
        load(pair_folder, local=tmp_path)
    with pytest.raises(UsageError, match=r"local .* cannot be used: emoji is in the package"):
        load("emoji", local=pair_folder)
    with pytest.raises(UsageError, match=r"local .* cannot be used: the encoder of an index"):
        load("kandinsky-2.2", local=pair_folder, neighbours=tmp_path)


def test_the_seeds_of_an_index_choose_the_neighbour_and_its_steps_have_no_effect() -> None:
    defaults = DecodeOptions(1, 1.0, "none", (8, 8))
    refuse_unused_in_decoding(LookOptions(seed=1, n_seeds=2), defaults, "index", ranks=True)
    with pytest.raises(UsageError, match=r"steps 5: no effect, because index decodes in one pass"):
        refuse_unused_in_decoding(LookOptions(seed=1, steps=5), defaults, "index", ranks=True)


@pytest.mark.parametrize("local", ["missing", "x" * 5000])
def test_a_local_copy_that_is_not_there_is_told(local: str) -> None:
    with pytest.raises(UsageError, match="there is no folder"):
        load("kandinsky-2.2", local=local)


@pytest.mark.parametrize("sites", ["neuron.1", "neurons"])
def test_more_neurons_than_there_are_is_refused_and_all_of_them_are_not(sites: str, pair: Pair) -> None:
    layers = 1 if sites == "neuron.1" else 3
    count = layers * 32
    with pytest.raises(
        UsageError, match=rf"strongest {count + 1}: there are only {count} neurons in (layer 1|3 layers)"
    ):
        make_job(pair, [PICTURE], LookOptions(sites=sites, strongest=count + 1))
    assert make_job(pair, [PICTURE], LookOptions(sites=sites, strongest=count)).plan.cells
