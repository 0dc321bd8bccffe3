"""The worked example of docs/adapters.md: every block is written, imported and run; nothing here is a copy of it."""

import json
import re
import runpy
import shutil
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import steerlens as sl
from steerlens.errors import ModelError
from steerlens.interventions import Zero
from steerlens.sites import Site
from steerlens.testing import check_decoder, check_encoder, randomise, save_tiny_pair

PAGE = (Path(__file__).parents[3] / "docs" / "adapters.md").read_text(encoding="utf-8")
FILES = {match[1]: match[0] for match in re.finditer(r"(?<=```python\n)# (\w+\.py)\n.*?(?=```)", PAGE, re.DOTALL)}
MAXIMUM_LINES = 150


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The blocks as files that can be imported, and forgotten again afterwards."""
    folder = tmp_path_factory.mktemp("docs")
    for name, code in FILES.items():
        (folder / name).write_text(code, encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(folder))
        yield folder
    for name in FILES:
        sys.modules.pop(name.removesuffix(".py"), None)


def install(files: Path, package: str, group: str) -> None:
    """Registers what the page's block for a group says, as an installed package would."""
    blocks = [tomllib.loads(text) for text in re.findall(r"```toml\n(.*?)```", PAGE, re.DOTALL)]
    groups: dict[str, dict[str, str]] = {}
    for block in blocks:
        groups |= block["project"]["entry-points"]
    info = files / f"{package.replace('-', '_')}-1.0.dist-info"
    info.mkdir()
    lines = "".join(f"{name} = {place}\n" for name, place in groups[group].items())
    (info / "entry_points.txt").write_text(f"[{group}]\n{lines}", encoding="utf-8")
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n", encoding="utf-8")


class DoubledLinear(nn.Linear):
    """Writes more than its weight says, as the layers of fine-tuning libraries do."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        return 2 * super().forward(input)


def model_and_adapter(files: Path) -> tuple[Any, Any, Any]:
    from plain_vit import PlainViT  # type: ignore[import-not-found]
    from plain_vit_encoder import PlainViTEncoder  # type: ignore[import-not-found]
    from torchless import transform  # type: ignore[import-not-found]

    return PlainViT, PlainViTEncoder, transform


def test_every_python_block_is_a_file_and_the_scripts_run(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert PAGE.count("```python") == len(FILES)
    scripts = sorted(name for name in FILES if name.startswith("check_"))
    assert scripts == ["check_paint.py", "check_plain_vit.py"]
    for script in scripts:
        runpy.run_path(str(files / script))
    printed = capsys.readouterr().out
    assert "FAILED" not in printed
    assert "Trace(1 picture, 2 layers x 4 heads, 4 readout tokens, width 32)" in printed


def test_the_adapter_is_one_file_of_few_lines() -> None:
    for name in ("plain_vit_encoder.py", "paint_decoder.py"):
        assert len(FILES[name].splitlines()) < MAXIMUM_LINES


@pytest.mark.parametrize("options", [{}, {"registers": 0}, {"layers": 1, "heads": 1, "size": 24}], ids=str)
def test_the_adapter_is_right_for_other_sizes_too(files: Path, options: dict[str, int]) -> None:
    model, adapter, _ = model_and_adapter(files)
    encoder = adapter(randomise(model(**options)), None)
    pixels = torch.randn(3, 3, *encoder.spec.image_size, generator=torch.Generator().manual_seed(0))
    encoder.processor = lambda image: torch.zeros(3, *encoder.spec.image_size)
    report = check_encoder(encoder, {"pixel_values": pixels})
    assert report.passed, str(report)
    assert report.relative_error <= 1e-5


def test_the_adapter_is_found_by_its_entry_point(files: Path) -> None:
    model, adapter, transform = model_and_adapter(files)
    with pytest.raises(ModelError, match="no encoder adapter takes a PlainViT"):
        sl.load_encoder(model(), transform)
    install(files, "plain-vit", "steerlens.encoders")
    encoder = sl.load_encoder(randomise(model()), transform, name="mine")
    assert type(encoder) is adapter
    assert encoder.spec.name == "mine"
    picture = sl.sample_picture().image
    inputs = encoder.preprocess([picture])
    lens = sl.SteeringLens(encoder, sl.Strength.parse("rho=1"))
    site = Site.parse("L1H3")
    steered = lens.embeddings(encoder.trace(inputs), [site])[:, 0]
    assert not torch.allclose(steered, encoder.embed(inputs))
    assert not torch.allclose(encoder.embed(inputs, [Zero(site)]), encoder.embed(inputs))


def test_a_decoder_is_found_by_its_entry_point_and_its_files_are_known_again(files: Path, tmp_path: Path) -> None:
    pair = save_tiny_pair(tmp_path / "pair")
    shutil.rmtree(pair / "decoder")
    weights = pair / "decoder" / "inner" / "weights.npz"
    weights.parent.mkdir(parents=True)
    weights.write_bytes(b"1")
    config = {"_class_name": "PaintPipeline", "embedding_size": 12}
    (pair / "decoder" / "config.json").write_text(json.dumps(config), encoding="utf-8")
    with pytest.raises(ModelError, match="no adapter is called 'PaintPipeline'"):
        sl.load(pair)
    install(files, "paint", "steerlens.decoders")
    loaded = sl.load(pair, device="cpu")
    assert type(loaded.decoder).__name__ == "PaintDecoder"
    inputs = loaded.encoder.preprocess([sl.sample_picture().image])
    pictures = sl.decode(loaded.decoder, sl.Conditioning("image_embedding", loaded.encoder.embed(inputs)), [0])
    assert pictures.shape == (1, 3, 8, 8)
    hashes = loaded.provenance.sha256
    assert {"decoder/config.json", "decoder/inner/weights.npz", "image_encoder/model.safetensors"} < set(hashes)
    # Other weights are another decoder.
    weights.write_bytes(b"2")
    again = sl.load(pair, device="cpu").provenance.sha256
    assert {name for name in hashes if hashes[name] != again[name]} == {"decoder/inner/weights.npz"}


def test_a_decoder_that_is_given_needs_no_adapter_for_the_one_in_the_folder(files: Path, tmp_path: Path) -> None:
    from paint_decoder import PaintDecoder  # type: ignore[import-not-found]

    pair = save_tiny_pair(tmp_path / "pair")
    (pair / "decoder" / "model_index.json").write_text('{"_class_name": "NobodysPipeline"}', encoding="utf-8")
    with pytest.raises(ModelError, match="no adapter is called 'NobodysPipeline'"):
        sl.load(pair)
    assert type(sl.load(pair, decoder=PaintDecoder(12)).decoder) is PaintDecoder


def test_the_adapter_refuses_what_it_does_not_know(files: Path) -> None:
    model, adapter, transform = model_and_adapter(files)
    changed = model()
    changed.blocks[1].gain1 = nn.Identity()
    with pytest.raises(ModelError, match=r"blocks\.1\.gain1 is a .*Identity, which is not known in a PlainViT"):
        adapter(changed, transform)
    tuned = model()
    tuned.blocks[0].attention.out = DoubledLinear(32, 32)
    with pytest.raises(ModelError, match=r"blocks\.0\.attention\.out is a .*DoubledLinear, which is not known"):
        adapter(tuned, transform)
    larger = model()
    larger.neck = nn.Identity()
    with pytest.raises(ModelError, match="neck is there unexpectedly"):
        adapter(larger, transform)


def test_a_mistake_in_the_adapter_is_found_by_the_checks(files: Path) -> None:
    model, adapter, transform = model_and_adapter(files)

    class WithoutScale(adapter):  # type: ignore[misc]
        def layers(self) -> Any:
            from dataclasses import replace

            return [replace(modules, scale=None) for modules in super().layers()]

    report = check_encoder(WithoutScale(randomise(model()), transform))
    assert any("add up to the final residual" in check.name and not check.passed for check in report.checks)


def test_the_decoder_of_the_page_needs_its_own_seeds(files: Path) -> None:
    from paint_decoder import PaintDecoder  # type: ignore[import-not-found]

    assert check_decoder(PaintDecoder(12), stochastic=True).passed
    assert not check_decoder(PaintDecoder(12), stochastic=False).passed
