"""The work that a dry run states is the work that a study does: pictures decoded, and passes of the encoder."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from overlaid import overlay_options, overlay_set
from studied import finish, picture, quick, subject_set

from steerlens.encoders import NativeEncoder
from steerlens.lenses import Strength
from steerlens.profiles import ProfileOptions, folder_pictures, profile_heads, profile_work
from steerlens.sites import all_heads
from steerlens.studies.decoder.experiment import decoder_experiment
from steerlens.studies.decoder.options import DecoderOptions, sweep
from steerlens.studies.identification.experiment import identification_experiment
from steerlens.studies.identification.options import IdentificationOptions
from steerlens.studies.importance.experiment import importance_experiment
from steerlens.studies.importance.options import ImportanceOptions
from steerlens.studies.lenses.experiment import lenses_experiment
from steerlens.studies.lenses.options import LensesOptions
from steerlens.studies.overlay.experiment import overlay_experiment
from steerlens.studies.shared.candidates import diffusion_candidates, steering_candidates
from steerlens.studies.shared.run import Experiment, run_experiment
from steerlens.studies.shared.undecoded import NoDecoder
from steerlens.studies.shared.work import Work
from steerlens.studies.strength.experiment import strength_experiment
from steerlens.studies.strength.options import StrengthOptions
from steerlens.zoo.pair import Pair

_RHO = Strength("rho", 1.0)


class _Counts:
    """Decoded pictures, and passes of the encoder over one picture."""

    decoded = 0
    passes = 0.0


class _CountingDecoder:
    """A decoder that counts the pictures it decodes."""

    def __init__(self, decoder: Any, counts: _Counts) -> None:
        self.spec, self._decoder, self._counts = decoder.spec, decoder, counts

    def decode_batches(self, conditioning: Any, seeds: Any, options: Any = None) -> Any:
        self._counts.decoded += len(conditioning.values)
        return self._decoder.decode_batches(conditioning, seeds, options)


@contextmanager
def _counted(pair: Pair) -> Iterator[tuple[Pair, _Counts]]:
    """The pair with counters on its decoder and on every block of its encoder."""
    encoder, counts = pair.encoder, _Counts()
    assert isinstance(encoder, NativeEncoder)
    share = 1 / encoder.spec.n_layers

    def forward(module: Any, args: tuple[Any, ...], output: Any) -> None:
        hidden = output[0] if isinstance(output, tuple) else output
        counts.passes += share * hidden.shape[0]
        if hidden.requires_grad:
            counts.passes += 2 * share * hidden.shape[0]  # the backward pass that follows

    hooks = [modules.block.register_forward_hook(forward) for modules in encoder.layers()]
    try:
        yield replace(pair, decoder=_CountingDecoder(pair.decoder, counts)), counts
    finally:
        for hook in hooks:
            hook.remove()


def _importance(pair: Pair) -> Experiment[Any, Any]:
    steering = steering_candidates([_RHO])
    options = ImportanceOptions(quick(pair), steering=steering, diffusion=diffusion_candidates(3))
    return importance_experiment(pair, subject_set(pair, 2, 3, 8), options, draws=20)


def _overlay(pair: Pair) -> Experiment[Any, Any]:
    return overlay_experiment(pair, overlay_set(pair), overlay_options(pair), draws=20)


def _overlay_without_decoder(pair: Pair) -> Experiment[Any, Any]:
    bare = replace(pair, decoder=NoDecoder(pair.encoder.spec.embedding_size))
    options = replace(overlay_options(pair), decode=bare.decoder.spec.defaults)
    return overlay_experiment(bare, overlay_set(pair), options, draws=20)


def _strength(pair: Pair) -> Experiment[Any, Any]:
    options = StrengthOptions(quick(pair), (_RHO, Strength("s", 5.0)), heads_per_picture=6)
    return strength_experiment(pair, subject_set(pair, 2, 2, 40), options, draws=20)


def _decoder(pair: Pair) -> Experiment[Any, Any]:
    settings = sweep(quick(pair), [1, 2], [1.0, 2.0], ["ddim"])
    options = DecoderOptions(settings, _RHO, seeds=(0, 1), reference_steps=3, reference_seeds=2, heads=6)
    return decoder_experiment(pair, subject_set(pair, 2, 2, 4), options, draws=20)


def _identification(pair: Pair) -> Experiment[Any, Any]:
    options = IdentificationOptions(quick(pair), _RHO, heads_per_picture=6)
    return identification_experiment(pair, subject_set(pair, 0, 4, 8), options, draws=20)


def _lenses_without_decoder(pair: Pair) -> Experiment[Any, Any]:
    bare = replace(pair, decoder=NoDecoder(pair.encoder.spec.embedding_size))
    options = LensesOptions(bare.decoder.spec.defaults, strengths=(_RHO,), heads_per_picture=6)
    return lenses_experiment(bare, subject_set(pair, 2, 3, 8), options, draws=20)


def _lenses(pair: Pair) -> Experiment[Any, Any]:
    options = LensesOptions(quick(pair), strengths=(_RHO,), heads_per_picture=6)
    return lenses_experiment(pair, subject_set(pair, 2, 3, 8), options, draws=20)


_OVERLAYS, _LENSES = (_overlay, _overlay_without_decoder), (_lenses, _lenses_without_decoder)


@pytest.mark.parametrize("make", [_importance, *_OVERLAYS, _strength, _decoder, _identification, *_LENSES])
def test_a_study_does_the_work_that_it_states(
    make: Callable[[Pair], Experiment[Any, Any]], pair_of_many_heads: Pair, tmp_path: Path
) -> None:
    with _counted(pair_of_many_heads) as (pair, counts):
        experiment = make(pair)
        work = experiment.work()
        assert not counts.passes and not counts.decoded
        finish(run_experiment(experiment, tmp_path / "study"))
    # Passes along an order of the overlay study begin at the first ablated layer, which is not known ahead.
    _agree(
        work,
        counts,
        exact=make in (_strength, _decoder, _identification),
        least=0.7 if make in _OVERLAYS else 0.87,
    )


def test_a_profile_does_the_work_that_it_states(pair_of_many_heads: Pair, tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    for number in range(20):
        picture(number).save(tmp_path / "photos" / f"{number}.png")
    with _counted(pair_of_many_heads) as (pair, counts):
        shown = folder_pictures(tmp_path / "photos", 20, 0)
        options = ProfileOptions(quick(pair), _RHO, all_heads(3, 4)[:5], n_top=2, n_ablated=3)
        work = profile_work(pair, shown, options)
        finish(profile_heads(pair, shown, options, tmp_path / "profile"))
    _agree(work, counts, exact=True, least=0.87)


def _agree(work: Work, counts: _Counts, *, exact: bool, least: float) -> None:
    if exact:
        assert counts.decoded == work.n_decoded
    # A setting that is chosen may have been decoded already.
    assert 0.6 * work.n_decoded <= counts.decoded <= work.n_decoded
    passes = work.encoder_passes + counts.decoded  # every decoded picture is embedded again, but for those of figures
    assert least * passes <= counts.passes <= 1.13 * passes
