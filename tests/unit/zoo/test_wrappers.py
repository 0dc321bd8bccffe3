"""Models taken out of what training libraries put around them, by the real libraries where they are installed."""

import copy
import sys
from importlib.util import find_spec
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import nn

from steerlens.errors import ModelError
from steerlens.loading import load_encoder
from steerlens.testing.encoder_checks import noise_pictures
from steerlens.testing.tiny_families import tiny_family_encoder, tiny_family_processor, tiny_model

# torch's own compiler is imported with this warning.
pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit.script_method` is deprecated:DeprecationWarning")

KIND = "Dinov2Model"


def opened(model: nn.Module) -> Any:
    return load_encoder(model, tiny_family_processor(KIND))


def same(encoder: Any, wanted: Any) -> bool:
    inputs = noise_pictures(wanted)
    return torch.equal(encoder.embed(inputs), wanted.embed(inputs))


def stand_in(monkeypatch: pytest.MonkeyPatch, library: str, name: str, base: type, **members: Any) -> Any:
    """A class with the name and the module of a library's own, which need not be installed."""
    module = ModuleType(f"{library}.stand_in")
    monkeypatch.setitem(sys.modules, module.__name__, module)
    return type(name, (base,), {"__module__": module.__name__, **members})


class Wrapper(nn.Module):
    def __init__(self, inner: nn.Module, attribute: str = "module") -> None:
        super().__init__()
        setattr(self, attribute, inner)


def averaged(model: nn.Module) -> nn.Module:
    return torch.optim.swa_utils.AveragedModel(model)


WRAPPERS = {
    "DataParallel": nn.DataParallel,
    "AveragedModel": averaged,
    "torch.compile": torch.compile,
    "several, nested": lambda model: torch.compile(nn.DataParallel(torch.compile(model))),
}


@pytest.mark.parametrize("name", WRAPPERS)
def test_a_model_is_taken_out_of_what_torch_puts_around_it(name: str) -> None:
    model = tiny_model(KIND)
    encoder = opened(WRAPPERS[name](model))
    assert same(encoder, tiny_family_encoder(KIND))
    assert name == "AveragedModel" or encoder.model is model


def test_a_model_compiled_in_place_is_run_plainly() -> None:
    model = tiny_model(KIND)
    model.compile()
    assert same(opened(model), tiny_family_encoder(KIND))


def test_a_distributed_model_is_taken_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its constructor asks for a process group, which the stand-in does not."""
    kind = stand_in(monkeypatch, "torch", "DistributedDataParallel", Wrapper)
    assert same(opened(kind(tiny_model(KIND))), tiny_family_encoder(KIND))
    sharded = stand_in(monkeypatch, "torch", "FullyShardedDataParallel", Wrapper)
    with pytest.raises(ModelError, match=r"spread over devices .* gather its state_dict"):
        opened(sharded(tiny_model(KIND)))


def test_a_model_of_timm_inside_transformers_is_taken_out(timm: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from steerlens.testing.tiny import tiny_processor
    from steerlens.testing.tiny_vit import SIZE, tiny_eva_model

    kind = stand_in(monkeypatch, "transformers", "TimmWrapperModel", Wrapper)
    encoder: Any = load_encoder(kind(tiny_eva_model(), "timm_model"), tiny_processor(SIZE))
    assert encoder.spec.family == "timm"


def test_a_processor_that_holds_an_image_processor_is_enough() -> None:
    class Processor:
        image_processor = tiny_family_processor(KIND)

    assert same(load_encoder(tiny_model(KIND), Processor()), tiny_family_encoder(KIND))


def lightning_module(monkeypatch: pytest.MonkeyPatch, **children: nn.Module) -> nn.Module:
    if find_spec("pytorch_lightning") is None:
        base = stand_in(monkeypatch, "lightning", "LightningModule", nn.Module)
    else:
        base = __import__("pytorch_lightning").LightningModule
    module = type("Finetuning", (base,), {})()
    for name, child in children.items():
        setattr(module, name, child)
    return module


def test_the_only_model_of_a_lightning_module_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    head, model = nn.Linear(32, 5), nn.DataParallel(tiny_model(KIND))
    assert same(opened(lightning_module(monkeypatch, head=head, backbone=model)), tiny_family_encoder(KIND))
    deeper = lightning_module(monkeypatch, net=nn.Sequential(tiny_model(KIND), head))
    assert same(opened(deeper), tiny_family_encoder(KIND))


def test_a_lightning_module_of_no_model_or_several_is_refused_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ModelError, match=r"Finetuning holds several models \(student, teacher\): give the model"):
        opened(lightning_module(monkeypatch, student=tiny_model(KIND), teacher=tiny_model(KIND, seed=1)))
    with pytest.raises(ModelError, match="Finetuning holds no model that is supported"):
        opened(lightning_module(monkeypatch, head=nn.Linear(2, 2)))


def test_a_module_of_another_kind_is_refused_as_before() -> None:
    with pytest.raises(ModelError, match="no encoder adapter takes a Linear"):
        opened(nn.Linear(2, 2))


class LowRank(nn.Module):
    """What PEFT puts in place of a linear layer, as far as merging goes."""

    def __init__(self, base: nn.Linear) -> None:
        super().__init__()
        self.base_layer = base
        generator = torch.Generator().manual_seed(7)
        self.down = nn.Parameter(0.3 * torch.randn(4, base.in_features, generator=generator))
        self.up = nn.Parameter(0.3 * torch.randn(base.out_features, 4, generator=generator))

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        return self.base_layer(hidden) + hidden @ self.down.T @ self.up.T


def adapted(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A model with low-rank adapters on its output projections, in the real library's wrapper or a stand-in."""
    model = tiny_model(KIND)
    if find_spec("peft") is not None:
        peft = __import__("peft")
        wrapped = peft.get_peft_model(model, peft.LoraConfig(target_modules=["o_proj", "fc1"], r=4))
        generator = torch.Generator().manual_seed(7)
        for name, parameter in wrapped.named_parameters():
            if "lora_B" in name:
                parameter.data = 0.3 * torch.randn(parameter.shape, generator=generator)
        return wrapped.eval()

    def merge_and_unload(self: Any, safe_merge: bool = False) -> nn.Module:
        assert safe_merge
        for block in self.model.encoder.layer:
            low = block.attention.o_proj
            low.base_layer.weight.data += low.up @ low.down
            block.attention.o_proj = low.base_layer
        return self.model

    for block in model.encoder.layer:
        block.attention.o_proj = LowRank(block.attention.o_proj)
    members = {"peft_config": {}, "merge_and_unload": merge_and_unload, "forward": lambda self, **x: self.model(**x)}
    return stand_in(monkeypatch, "peft", "PeftModel", Wrapper, **members)(model, "model")


def test_adapters_of_peft_are_merged_in_a_copy(monkeypatch: pytest.MonkeyPatch) -> None:
    wrapped = adapted(monkeypatch)
    before = copy.deepcopy(wrapped.state_dict())
    encoder = opened(nn.DataParallel(wrapped))
    inputs = noise_pictures(encoder)
    with torch.no_grad():
        wanted = wrapped(**inputs).pooler_output
    torch.testing.assert_close(encoder.embed(inputs), wanted, rtol=1e-5, atol=1e-6)
    assert encoder.trace(inputs).check() <= 1e-5
    assert not torch.allclose(wanted, tiny_family_encoder(KIND).embed(inputs), atol=1e-3)
    assert wrapped.state_dict().keys() == before.keys()
    assert all(torch.equal(value, before[name]) for name, value in wrapped.state_dict().items())


def test_adapters_that_change_no_weights_are_refused_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    def merge_and_unload(self: Any, safe_merge: bool = False) -> nn.Module:
        raise AttributeError("no merge_and_unload for prompts")

    class Config:
        peft_type = "PROMPT_TUNING"

    members = {"peft_config": {"default": Config()}, "merge_and_unload": merge_and_unload}
    kind = stand_in(monkeypatch, "peft", "PeftModel", Wrapper, **members)
    with pytest.raises(ModelError, match=r"PEFT \(PROMPT_TUNING\) cannot be merged .* no merge_and_unload for prompts"):
        opened(kind(tiny_model(KIND), "model"))


def test_a_layer_that_was_adapted_in_place_is_refused_by_its_path() -> None:
    model = tiny_model(KIND)
    model.encoder.layer[1].attention.o_proj = LowRank(model.encoder.layer[1].attention.o_proj)
    with pytest.raises(ModelError, match=r"layer\.1\.attention\.o_proj is a .*LowRank, which is not known"):
        opened(model)
