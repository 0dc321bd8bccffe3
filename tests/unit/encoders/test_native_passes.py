"""Passes of the native model: each hook fires once or the pass is refused, dropout is off, and errors are ours."""

import copy
import warnings
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import prune

from steerlens import load_encoder
from steerlens.borders import native_errors
from steerlens.encoders.clip import CLIPEncoder
from steerlens.encoders.prefix import record_from, record_prefix, resume
from steerlens.errors import ModelError, PictureError, UsageError
from steerlens.interventions import Scale, Zero
from steerlens.sites import Site
from steerlens.testing.tiny import tiny_encoder, tiny_processor, tiny_vision_model
from steerlens.zoo.pair import Pair

HEAD = Site("head", 1, 1)


@pytest.fixture
def pixels() -> Tensor:
    return torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
def test_a_compiled_model_gives_what_the_plain_one_gives(backend: str, pixels: Tensor) -> None:
    native = tiny_vision_model()
    native.compile(backend=backend)
    native(pixels)  # its graph is made without our hooks
    compiled, plain = CLIPEncoder(native, tiny_processor()), CLIPEncoder(tiny_vision_model(), tiny_processor())
    for changes in ([], [Zero(HEAD)], [Scale(Site("mlp_out", 0), factor=3.0)], []):
        assert torch.equal(compiled.embed(pixels, changes), plain.embed(pixels, changes))
    assert compiled.trace(pixels, attention=True).check() < 1e-5
    prefix = record_prefix(compiled, pixels)
    assert not torch.allclose(resume(compiled, prefix, 1, [0], [Zero(HEAD)]), prefix.embedding[:1])


def test_a_hook_that_never_fires_is_told_by_the_name_of_its_module(pixels: Tensor) -> None:
    encoder = tiny_encoder()
    prefix = record_prefix(encoder, pixels)
    block: Any = encoder.model.vision_model.encoder.layers[1]
    block.forward = lambda hidden, *args, **kwargs: hidden  # calls none of its modules
    calls = [
        lambda: encoder.embed(pixels, [Zero(HEAD)]),
        lambda: encoder.record(pixels, [HEAD]),
        lambda: encoder.trace(pixels),
        lambda: encoder.trace(pixels, attention=True),
        lambda: resume(encoder, prefix, 1, [0], [Zero(HEAD)]),
        lambda: record_from(encoder, prefix, [HEAD]),
    ]
    for call in calls:
        with pytest.raises(ModelError, match=r"layers\.1\.self_attn|attention of layer 1"):
            call()
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in encoder.model.modules())


def test_a_module_that_runs_twice_is_refused(pixels: Tensor) -> None:
    encoder = tiny_encoder()
    block: Any = encoder.model.vision_model.encoder.layers[1]
    native = block.mlp.forward
    block.mlp.forward = lambda hidden: native(hidden)
    inner = block.forward

    def twice(*args: Any, **kwargs: Any) -> Any:
        inner(*args, **kwargs)
        return inner(*args, **kwargs)

    block.forward = twice
    with pytest.raises(ModelError, match=r"layers\.1\.mlp.*ran 2 times"):
        encoder.embed(pixels, [Zero(Site("mlp_out", 1))])


def test_training_mode_is_put_off_for_the_pass_and_back_module_by_module(pixels: Tensor) -> None:
    encoder = tiny_encoder()
    layers: Any = encoder.model.vision_model.encoder.layers
    wanted = encoder.embed(pixels), encoder.readout(encoder.trace(pixels).final)
    for layer in layers:
        layer.self_attn.dropout = 0.5
    layers[1].train()
    modes = {name: module.training for name, module in encoder.model.named_modules()}
    assert torch.equal(encoder.embed(pixels), wanted[0])
    assert torch.equal(encoder.readout(encoder.trace(pixels).final), wanted[1])
    encoder.record(pixels, [HEAD])
    record_prefix(encoder, pixels)
    with pytest.raises(UsageError):
        encoder.embed(pixels, [Zero(Site("vector", name="x"))])
    assert {name: module.training for name, module in encoder.model.named_modules()} == modes
    assert layers[1].self_attn.training and not layers[0].training


@pytest.mark.parametrize("error", [ValueError("x"), ImportError("x"), KeyError("x"), RuntimeError("x"), OSError("x")])
def test_whatever_a_library_raises_becomes_one_model_error(error: Exception) -> None:
    with pytest.raises(ModelError, match=r"loading it: .*x") as refused, native_errors("loading it"):
        raise error
    assert refused.value.__cause__ is error


@pytest.mark.parametrize(
    "error", [MemoryError(), torch.OutOfMemoryError("x"), KeyboardInterrupt(), PictureError("x"), UsageError("x")]
)
def test_a_lack_of_memory_an_interrupt_and_our_own_errors_pass(error: BaseException) -> None:
    with pytest.raises(type(error)) as passed, native_errors("loading it"):
        raise error
    assert passed.value is error


def test_shapes_that_the_spec_does_not_describe_are_refused(pixels: Tensor) -> None:
    encoder = tiny_encoder()
    for given in (pixels[:, :1], pixels[..., :8], pixels[0], torch.zeros(1, 3, 32, 32)):
        for call in (encoder.embed, encoder.trace, lambda inputs: record_prefix(encoder, inputs)):
            with pytest.raises(UsageError, match="sees pictures of 3 channels and 16 x 16 pixels"):
                call(given)


def to_meta(model: nn.Module, part: str) -> None:
    for name, module in model.named_modules():
        if name.endswith(part):
            module.to("meta")


@pytest.mark.parametrize("part", ["", "layers.1.mlp.fc1", "self_attn.out_proj", "post_layernorm"])
def test_weights_that_hold_no_numbers_are_refused(part: str) -> None:
    model = tiny_vision_model()
    to_meta(model, part)
    with pytest.raises(ModelError, match="meta device"):
        CLIPEncoder(model, tiny_processor())


class OtherTensor(torch.Tensor):
    """A tensor of a library's own kind, as torchao puts one in the place of a weight."""


@pytest.mark.parametrize("part", ["layers.1.mlp.fc1", "layers.0.self_attn.out_proj", "visual_projection"])
def test_quantised_weights_are_refused_by_name(part: str, pair: Pair) -> None:
    for network in (tiny_vision_model(), copy.deepcopy(pair.decoder.unet)):
        name = part if hasattr(network, "vision_model") else "conv_in"
        (module,) = [module for place, module in network.named_modules() if place.endswith(name)]
        module.weight = nn.Parameter(module.weight.detach().as_subclass(OtherTensor), requires_grad=False)
        with pytest.raises(ModelError, match=rf"{name}\.weight is a .*OtherTensor, not a plain tensor \(quantised"):
            if name == part:
                CLIPEncoder(network, tiny_processor())
            else:
                replace(pair, decoder=with_network(pair.decoder, network))


def with_network(decoder: Any, network: nn.Module) -> Any:
    other = copy.copy(decoder)
    other.unet = network
    return other


def quantised_linear(linear: nn.Linear) -> nn.Linear:
    class Linear8bit(nn.Linear):
        """Eight-bit weights, as bitsandbytes has them."""

        def forward(self, input: Tensor) -> Tensor:
            return nn.functional.linear(input, self.weight.to(input) * self.scale, self.bias)

    other = Linear8bit(linear.in_features, linear.out_features)
    other.scale = float(linear.weight.detach().abs().max()) / 127
    whole = (linear.weight.detach() / other.scale).round().to(torch.int8)
    other.weight, other.bias = nn.Parameter(whole, requires_grad=False), linear.bias
    return other


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("self_attn.out_proj", "out_proj is a .*Linear8bit, which is not known"),
        ("return_dict", "forward pass failed: .*tuple"),
        ("one channel", "forward pass failed: .*1 channels"),
        ("two classes", "forward pass failed|shape"),
    ],
)
def test_models_that_behave_otherwise_end_with_one_model_error(change: str, words: str, pixels: Tensor) -> None:
    model = tiny_vision_model()
    for module in list(model.modules()):
        for name, inner in list(module.named_children()):
            if name == change.rpartition(".")[2] and isinstance(inner, nn.Linear):
                setattr(module, name, quantised_linear(inner))
            elif change == "one channel" and isinstance(inner, nn.Conv2d):
                sizes = (1, inner.out_channels, inner.kernel_size, inner.stride)
                setattr(module, name, nn.Conv2d(*sizes, bias=inner.bias is not None))
            elif change == "two classes" and name == "visual_projection":
                setattr(module, name, nn.Linear(3, 2))
    if change == "return_dict":
        for module in model.modules():
            if hasattr(module, "config"):
                module.config.return_dict = False
    with pytest.raises(ModelError, match=words):
        CLIPEncoder(model, tiny_processor()).trace(pixels)


@pytest.mark.parametrize("name", ["pruned", "weight norm", "spectral norm"])
def test_weights_that_are_computed_before_each_pass_are_never_those_of_the_last(name: str, pixels: Tensor) -> None:
    model = tiny_vision_model()
    block = model.vision_model.encoder.layers[1]
    for module in (block.self_attn.out_proj, block.mlp.fc2):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # these are deprecated, and still in use
            if name == "pruned":
                prune.random_unstructured(module, "weight", 0.5)
                prune.random_unstructured(module, "bias", 0.5)
            else:
                (nn.utils.weight_norm if name == "weight norm" else nn.utils.spectral_norm)(module)
    encoder = load_encoder(model, tiny_processor(), name="mine")
    interventions = [Zero(Site("head", 1, 1)), Zero(Site("neuron", 1, index=3))]
    encoder.embed(pixels)
    with torch.no_grad():
        for weight in block.parameters():
            weight.mul_(3)
    for change in interventions:
        at_once = encoder.embed(pixels, [change])
        encoder.embed(pixels)
        torch.testing.assert_close(at_once, encoder.embed(pixels, [change]))
        with torch.no_grad():
            for weight in block.parameters():
                weight.mul_(0.5)
    assert encoder.trace(pixels).check() < 1e-5


def test_a_block_that_cannot_take_up_rows_in_the_middle_runs_whole(pixels: Tensor) -> None:
    encoder = tiny_encoder()
    last, changes = encoder.spec.n_layers - 1, [Zero(Site("attn_out", encoder.spec.n_layers - 1))]
    plain = record_prefix(encoder, pixels)
    wanted = resume(encoder, plain, last, [0, 0], changes)
    block: Any = encoder.model.vision_model.encoder.layers[last]

    def in_place(hidden: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        hidden = hidden.clone()
        hidden += block.self_attn(hidden_states=block.layer_norm1(hidden), **kwargs)[0]
        hidden += block.mlp(block.layer_norm2(hidden))
        return hidden

    block.forward = in_place
    prefix = record_prefix(encoder, pixels)
    assert plain.shortcuts and not prefix.shortcuts
    torch.testing.assert_close(resume(encoder, prefix, last, [0, 0], changes), wanted)
