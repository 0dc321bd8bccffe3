"""The decoder that invents nothing: it shows indexed pictures, the nearest by an obvious oracle, and no other."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from steerlens.cli.main import main
from steerlens.conditioning import Conditioning
from steerlens.decoders.base import DecodeOptions, decode
from steerlens.decoders.neighbours import NeighboursDecoder, Skipped, build_index, index_pictures
from steerlens.errors import ModelError, UsageError
from steerlens.images import load_picture
from steerlens.loading import load
from steerlens.report.html import report_page
from steerlens.report.scales import similarity_scale
from steerlens.sweep.look import look
from steerlens.testing.checks import check_decoder
from steerlens.testing.tiny import save_tiny_pair, tiny_encoder
from steerlens.zoo.cost import UncountedError
from steerlens.zoo.indexes import found_index

N = 7


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photos")
    (folder / "sub").mkdir()
    rng = np.random.default_rng(0)
    for index in range(N):
        pixels = rng.integers(0, 256, (4, 4, 3), dtype=np.uint8)
        image = Image.fromarray(pixels).resize((16, 16), Image.Resampling.NEAREST)
        image.save((folder / "sub" if index % 2 else folder) / f"{index}.png")
    (folder / "broken.jpg").write_bytes(b"no picture")
    (folder / "notes.txt").write_text("no picture either")
    (folder / "copy.png").write_bytes((folder / "0.png").read_bytes())
    return folder


@pytest.fixture(scope="module")
def index(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("index")
    build_index(tiny_encoder(), photos, out)
    return out


def embeddings(count: int = 4) -> torch.Tensor:
    return torch.randn(count, 12, generator=torch.Generator().manual_seed(2))


def test_every_embedding_becomes_the_picture_that_comes_closest(index: Path) -> None:
    decoder, encoder, values = NeighboursDecoder(index), tiny_encoder(), embeddings()
    own = [encoder.embed(encoder.preprocess([Image.open(file).convert("RGB")]))[0] for file in decoder.files]
    pictures = decode(decoder, Conditioning("image_embedding", values), [0] * len(values))
    for row, picture in zip(values, pictures, strict=True):
        cosines = [float(torch.nn.functional.cosine_similarity(row, other, dim=0)) for other in own]
        nearest = decoder.files[int(np.argmax(cosines))]
        wanted = np.asarray(Image.open(nearest).convert("RGB"))
        assert np.array_equal((picture.permute(1, 2, 0) * 255).round().numpy().astype(np.uint8), wanted)
    indices, similarities = decoder.nearest(values, 3)
    assert indices.shape == (4, 3) and bool((similarities.diff(dim=1) <= 0).all())
    assert decoder.nearest(values, 100)[0].shape == (4, N)


def test_an_indexed_picture_comes_back_as_itself(index: Path) -> None:
    decoder = NeighboursDecoder(index)
    indices, similarities = decoder.nearest(decoder.embeddings)
    assert indices[:, 0].tolist() == list(range(N))
    torch.testing.assert_close(similarities, torch.ones(N, 1), rtol=0, atol=1e-5)


def test_it_passes_the_checks_of_a_decoder(index: Path) -> None:
    values = NeighboursDecoder(index).embeddings[:4]
    check_decoder(NeighboursDecoder(index), values).require()


def test_what_cannot_be_read_is_passed_over_and_told_and_copies_are_indexed_once(photos: Path, tmp_path: Path) -> None:
    events = list(index_pictures(tiny_encoder(), photos, tmp_path, batch_size=2))
    assert [event.done for event in events] == list(range(1, N + 3)) and events[0].total == N + 2
    assert [event.payload.reason for event in events if isinstance(event.payload, Skipped)] == [
        str(photos / "broken.jpg") + _REASON
    ]
    decoder = NeighboursDecoder(tmp_path)
    assert len(decoder.files) == N
    assert {file.name for file in decoder.files} == {f"{index}.png" for index in range(N)}


_REASON = " is not a readable picture (PNG, JPEG, WEBP, GIF, TIFF, BMP and some others are, unless of rare colours)."


def test_pictures_are_cropped_and_scaled_to_the_size_asked_for(tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    folder.mkdir()
    wide = Image.new("RGB", (60, 20), "red")
    wide.paste((0, 0, 255), (20, 0, 40, 20))
    wide.save(folder / "wide.png")
    decoder = build_index(tiny_encoder(), folder, tmp_path / "index")
    options = DecodeOptions(1, 1.0, "none", (10, 10))
    picture = decode(decoder, Conditioning("image_embedding", embeddings(1)), [0], options)[0]
    assert torch.equal(picture, torch.tensor([0.0, 0.0, 1.0])[:, None, None].expand(3, 10, 10))


def test_pictures_that_changed_or_went_away_are_refused(photos: Path, index: Path, tmp_path: Path) -> None:
    moved = tmp_path / "moved"
    (moved / "sub").mkdir(parents=True)
    decoder = NeighboursDecoder(index, pictures=moved)
    request: Any = (decoder, Conditioning("image_embedding", decoder.embeddings[:1]), [0])
    with pytest.raises(UsageError, match="there is no file"):
        decode(*request)
    Image.new("RGB", (16, 16)).save(moved / decoder.files[0].relative_to(moved))
    with pytest.raises(ModelError, match="has changed since it was indexed"):
        decode(*request)
    with pytest.raises(UsageError, match=r"are not in .* any more"):
        NeighboursDecoder(index, pictures=tmp_path / "nowhere")


def test_broken_indexes_are_refused(index: Path, tmp_path: Path, photos: Path) -> None:
    with pytest.raises(UsageError, match="holds no index"):
        NeighboursDecoder(tmp_path)
    content = json.loads((index / "neighbours.json").read_text())
    tensors = (index / "neighbours.safetensors").read_bytes()
    for text, data, words in (
        ("{", tensors, "cannot be read"),
        (json.dumps({**content, "pictures": content["pictures"][1:]}), tensors, "do not belong together"),
        (json.dumps({**content, "sha256": "0"}), tensors, "do not belong together"),
        (json.dumps({**content, "format": 2}), tensors, "do not belong together"),
        (json.dumps(content), tensors[:-4], "cannot be read"),
        (json.dumps({"format": 1}), tensors, "cannot be read"),
        (json.dumps({**content, "size": [30_000, 30_000]}), tensors, "more than the 2,048"),
        (json.dumps({**content, "size": [16]}), tensors, "two whole numbers"),
        (json.dumps({**content, "pictures": [{"file": "a.png"}]}), tensors, "cannot be read"),
        *(
            (json.dumps({**content, "pictures": [{"file": name, "sha256": "0"}]}), tensors, "lies outside the folder")
            for name in ("/etc/passwd", "../a.png", "sub/../../a.png", "")
        ),
    ):
        (tmp_path / "neighbours.json").write_text(text)
        (tmp_path / "neighbours.safetensors").write_bytes(data)
        with pytest.raises(ModelError, match=words):
            NeighboursDecoder(tmp_path)
    with pytest.raises(ModelError, match="is zero"):
        NeighboursDecoder(index).nearest(torch.zeros(1, 12))
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match="holds no picture"):
        build_index(tiny_encoder(), tmp_path / "empty", tmp_path / "out")
    with pytest.raises(UsageError, match="is not a folder"):
        build_index(tiny_encoder(), tmp_path / "nowhere", tmp_path / "out")
    (tmp_path / "empty" / "a.png").write_bytes(b"x")
    with pytest.raises(UsageError, match="can be read as a picture"):
        build_index(tiny_encoder(), tmp_path / "empty", tmp_path / "out")


def test_the_command_indexes_and_the_index_is_a_model(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    encoder, out = save_tiny_pair(tmp_path / "pair"), tmp_path / "index"
    assert main(["neighbours", "index", str(photos), "--encoder", str(encoder), "--out", str(out), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["pictures"], len(told["skipped"])) == (N, 1)
    for pair in (load(out), load("neighbours", local=out), load(out, encoder=tiny_encoder())):
        assert pair.decoder.spec.family == "neighbours" and pair.encoder.spec.embedding_size == 12
        json.dumps(pair.provenance.to_json())
    assert main(["neighbours", "find", str(out), str(photos / "0.png"), "--count", "2", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert len(found) == 2 and found[0]["cosine"] == pytest.approx(1, abs=1e-4) and found[0]["file"].endswith("0.png")
    with pytest.raises(ModelError, match=r"was made with .* gives its first picture another embedding"):
        load(out, encoder=tiny_encoder(seed=5))
    with pytest.raises(ModelError, match="reads embeddings of size 12, the encoder gives 7: they do not fit"):
        load(out, encoder=tiny_encoder(embedding_size=7))
    with pytest.raises(UsageError, match="steerlens neighbours index"):
        load("neighbours")
    with pytest.raises(UsageError, match="holds no index"):
        load("neighbours", local=photos)


def test_an_encoder_without_a_decoder_finds_the_index_that_it_made(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder, other = (save_tiny_pair(tmp_path / name, seed=seed) for seed, name in enumerate(("one", "two")))
    for pair in (encoder, other):
        shutil.rmtree(pair / "decoder")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ModelError, match=rf"steerlens neighbours index PICTURES --encoder {encoder}"):
        load(encoder)
    # By its default name in the folder where one is, and told.
    assert main(["neighbours", "index", str(photos), "--encoder", str(encoder), "--json"]) == 0
    pair = load("one")
    assert pair.decoder.spec.family == "neighbours"
    assert pair.encoder.spec.name == str(encoder) or pair.encoder.spec.name == "one"
    assert any("decoder: neighbours" in note and str(N) in note for note in pair.notes)
    # Another encoder's index is none of its own, unless it is given, and then it is refused.
    with pytest.raises(ModelError, match="a decoder is lacking"):
        load(other)
    with pytest.raises(ModelError, match="gives its first picture another embedding"):
        load(other, neighbours="neighbours-index")
    # In the encoder's own folder it is found from anywhere.
    shutil.move(tmp_path / "neighbours-index", encoder / "neighbours-index")
    assert load(encoder).decoder.spec.family == "neighbours"


def test_an_index_can_be_given_in_place_of_a_decoder(photos: Path, tmp_path: Path) -> None:
    pair, index = save_tiny_pair(tmp_path / "pair"), tmp_path / "index"
    assert main(["neighbours", "index", str(photos), "--encoder", str(pair), "--out", str(index), "--json"]) == 0
    assert load(pair).decoder.spec.family != "neighbours", "a pair's own decoder comes first"
    assert load(pair, neighbours=index).decoder.spec.family == "neighbours"
    with pytest.raises(UsageError, match=rf"steerlens neighbours index {photos} --encoder {pair}"):
        load(pair, neighbours=photos)
    with pytest.raises(UsageError, match="in place of a decoder"):
        load("bridge:anything", neighbours=index)


def test_an_encoder_of_the_hub_is_told_what_to_do() -> None:
    with pytest.raises(UsageError, match="neighbours index PICTURES --encoder owner/no-such-encoder"):
        load("owner/no-such-encoder")


def test_an_index_that_does_not_say_where_its_encoder_is_asks_for_it(index: Path) -> None:
    with pytest.raises(UsageError, match="does not say where its encoder is"):
        load(index)
    assert load(index, encoder=tiny_encoder()).decoder.spec.embedding_size == 12


def test_indexes_that_lead_in_a_circle_are_refused(index: Path, tmp_path: Path) -> None:
    content = json.loads((index / "neighbours.json").read_text())
    for name, other in (("a", "b"), ("b", "a"), ("alone", "alone")):
        place = Path(shutil.copytree(index, tmp_path / name))
        content["encoder"]["source"] = str(tmp_path / other)
        (place / "neighbours.json").write_text(json.dumps(content))
    for name in ("a", "alone"):
        with pytest.raises(ModelError, match="leads back to it; make it again with an encoder"):
            load(tmp_path / name)


def test_the_weights_behind_an_index_are_a_part_of_what_identifies_it(photos: Path, tmp_path: Path) -> None:
    pair, index = save_tiny_pair(tmp_path / "pair"), tmp_path / "index"
    assert main(["neighbours", "index", str(photos), "--encoder", str(pair), "--out", str(index), "--json"]) == 0
    hashes = load(index).provenance.sha256
    assert {name.split("/")[0] for name in hashes} == {"neighbours", "image_encoder", "image_processor"}
    config = pair / "image_encoder" / "config.json"
    config.write_text(config.read_text(encoding="utf-8") + "\n", encoding="utf-8")
    again = load(index).provenance.sha256
    assert {name for name in hashes if hashes[name] != again[name]} == {"image_encoder/config.json"}


def test_doctor_examines_an_index(photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pair, index = save_tiny_pair(tmp_path / "pair"), tmp_path / "index"
    assert main(["neighbours", "index", str(photos), "--encoder", str(pair), "--out", str(index), "--json"]) == 0
    for command in ([str(index)], ["neighbours", "--local", str(index)]):
        capsys.readouterr()
        assert main(["doctor", *command, "--device", "cpu", "--json"]) == 0
        told = json.loads(capsys.readouterr().out)
        assert told["passed"] and told["checks"][-1]["name"] == "a decoded picture has the same embedding"


def test_a_hub_id_and_the_commit_of_an_index_name_one_encoder(
    index: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(index, tmp_path / "neighbours-index")
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "neighbours-index" / "neighbours.json"
    content = json.loads(file.read_text(encoding="utf-8"))
    for made_with, asked, same in (
        ("a/b@1", "a/b", True),
        ("a/b", "a/b@1", True),
        ("a/b@1", "a/b@1", True),
        ("a/b@1", "a/b@2", False),
        ("a/b@1", "hf-hub:a/b", False),
        ("a/b", "a/c", False),
    ):
        content["encoder"]["source"] = made_with
        file.write_text(json.dumps(content), encoding="utf-8")
        assert (found_index(asked) is not None) == same, (made_with, asked)


def test_seeds_choose_among_the_nearest(index: Path) -> None:
    decoder, values = NeighboursDecoder(index), embeddings(1)
    indices, _ = decoder.nearest(values, 3)
    pictures = decode(decoder, Conditioning("image_embedding", values.expand(3, -1)), [0, 1, 2])
    for place, picture in zip(indices[0].tolist(), pictures, strict=True):
        assert torch.equal(picture, decoder.picture(place, decoder.spec.defaults.size))
    with pytest.raises(UsageError, match=f"seeds go from 0 to {N - 1}"):
        decode(decoder, Conditioning("image_embedding", values), [N])


def test_an_input_is_not_its_own_neighbour(photos: Path, tmp_path: Path) -> None:
    pair_folder = save_tiny_pair(tmp_path / "pair")
    out = tmp_path / "index"
    assert main(["neighbours", "index", str(photos), "--encoder", str(pair_folder), "--out", str(out)]) == 0
    pair = load(out)
    assert isinstance(pair.decoder, NeighboursDecoder)
    own = load_picture(photos / "2.png")
    atlas = look(pair, [photos / "2.png"], sites="resid_post", lenses="diffusion")
    clean = np.asarray(atlas.clean()[0].image)
    assert not np.array_equal(clean, np.asarray(own.image))
    assert atlas.manifest["left_out"] == [own.sha256]
    other = look(pair, np.asarray(own.image) // 2, sites="resid_post", lenses="diffusion")
    assert "left_out" not in other.manifest
    with pytest.raises(UsageError, match="every picture of the index"):
        pair.decoder.leaving_out(pair.decoder.known(load_picture(file).sha256 for file in pair.decoder.files))


def test_a_report_speaks_of_retrieved_pictures(photos: Path, tmp_path: Path) -> None:
    pair_folder = save_tiny_pair(tmp_path / "pair")
    build_index(load(pair_folder).encoder, photos, tmp_path / "index", source=str(pair_folder))
    atlas = look(load(tmp_path / "index"), photos / "2.png", sites="resid_post,head.1.*", strength="rho=1", n_seeds=2)
    page = report_page(atlas)
    assert "retrieved pictures" in page and "the 2 nearest pictures" in page and "nothing is drawn" in page
    for word in ("decoded pictures", "Clean reconstruction", "The decoder redraws", "invented"):
        assert word not in page.partition("<script")[0], word
    values = [score.similarity for lens in ("diffusion", "steering") for score in atlas.ranked(lens)]
    low, high = similarity_scale(atlas, ("diffusion", "steering"))
    assert low <= min(values) and max(values) <= high and high - low < max(values) - min(values) + 0.11


def test_a_dry_run_times_one_picture_and_checks_what_the_run_would(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pair_folder = save_tiny_pair(tmp_path / "pair")
    build_index(load(pair_folder).encoder, photos, tmp_path / "index", source=str(pair_folder))
    command = ["lens", str(photos / "2.png"), "--model", str(tmp_path / "index"), "--out", str(tmp_path / "run")]
    capsys.readouterr()
    assert main([*command, "--sites", "resid_post", "--lens", "diffusion", "--dry-run", "--json"]) == 0
    estimate = json.loads(capsys.readouterr().out)
    assert estimate["pictures_to_decode"] == 3 and estimate["seconds_per_picture"] > 0
    assert main([*command, "--dry-run"]) == 0
    assert "from one picture decoded now" in capsys.readouterr().out
    assert main([*command, "--dry-run", "--vocabulary", str(tmp_path / "none.txt")]) == 2
    assert "none.txt" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_a_dry_run_of_a_model_that_is_not_here_fetches_nothing(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def uncounted(*_: Any) -> Any:
        raise UncountedError("not counted")

    monkeypatch.setattr("steerlens.cli.lens.dry_run.price", uncounted)
    capsys.readouterr()
    assert main(["lens", str(photos / "2.png"), "--model", "rae-dinov2", "--dry-run", "--json"]) == 0
    estimate = json.loads(capsys.readouterr().out)
    assert estimate["seconds"] is None and estimate["download_gigabytes"] > 1
