"""Head profiles: measurements against slow, plain ones, texts against planted directions, and a whole run twice."""

import json
import shutil
from copy import deepcopy
from pathlib import Path
from typing import Any, cast

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from studied import finish, quick, subject_set

from steerlens.errors import StoreError, UsageError
from steerlens.interventions import Mean
from steerlens.lenses import LinearAttribution
from steerlens.lenses.components import load_directions
from steerlens.lenses.strength import Strength
from steerlens.naming import NamesMethod, omp, text_span
from steerlens.profiles.faithfulness import Faithfulness, measured_faithfulness
from steerlens.profiles.measure import (
    Axes,
    ablation_means,
    measure_ablation,
    measure_axes,
    measure_batch,
    measure_means,
    native,
    oriented,
)
from steerlens.profiles.options import ProfileOptions, heads_of
from steerlens.profiles.page import profile_page, write_profile_page
from steerlens.profiles.pictures import ProfilePicture, ProfilePictures, folder_pictures
from steerlens.profiles.study import profile_heads, profile_identity
from steerlens.profiles.summary import Profile, variance_share
from steerlens.profiles.texts import chance_level, describe, excess
from steerlens.progress import run_to_end
from steerlens.runs import fingerprint
from steerlens.scores import cosine_similarity
from steerlens.sites import Site, all_heads
from steerlens.studies.identification.experiment import identification_study
from steerlens.studies.identification.options import IdentificationOptions
from steerlens.studies.lenses.experiment import lenses_study
from steerlens.studies.lenses.options import LensesOptions
from steerlens.vocabulary import TextVocabulary
from steerlens.zoo.pair import Pair


@pytest.fixture(scope="module")
def photos(pair: Pair, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photos")
    rng, concepts = np.random.default_rng(0), pair.vocabulary.names if pair.vocabulary else ()
    for number in range(6):
        # The last label is a text that the pair does not know.
        place = folder / (concepts[number % 2] if number < 5 else "nothing known")
        place.mkdir(exist_ok=True)
        Image.fromarray(rng.integers(0, 255, (20, 20, 3), dtype=np.uint8)).save(place / f"{number}.png")
    return folder


def test_means_are_those_of_all_pictures_whatever_the_batch(pair: Pair, photos: Path) -> None:
    pictures = folder_pictures(photos, 5).pictures
    means = run_to_end(measure_means(pair.encoder, pictures, 2))
    trace = pair.encoder.trace(pair.encoder.preprocess([picture.open() for picture in pictures]))
    heads = all_heads(trace.n_layers, trace.n_heads)
    torch.testing.assert_close(means.writes, trace.stack(heads).mean(dim=0), rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(means.final, trace.final.mean(dim=0), rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(means.embedding, trace.embedding.mean(dim=0), rtol=1e-4, atol=1e-6)


def test_what_a_picture_measures_is_what_plain_code_measures(pair: Pair, photos: Path) -> None:
    encoder, pictures = pair.encoder, folder_pictures(photos, 6).pictures
    means = run_to_end(measure_means(encoder, pictures, 6))
    trace = encoder.trace(encoder.preprocess([picture.open() for picture in pictures]))
    texts = torch.randn(6, encoder.spec.embedding_size, generator=torch.Generator().manual_seed(1))
    texts[2] = torch.nan
    axes = Axes(*torch.randn(2, *means.writes.shape, generator=torch.Generator().manual_seed(2)))
    got = measure_batch(encoder, trace, means, axes, Strength("rho", 0.5), texts)
    neutral = encoder.readout(means.final[None])[0]
    for column, site in enumerate(all_heads(trace.n_layers, trace.n_heads)):
        for row in range(6):
            write, final, clean = trace.at(site)[row], trace.final[row], trace.embedding[row]
            about = write - means.writes[column]
            visible, base = (vector - vector.mean(-1, keepdim=True) for vector in (about, means.final))
            rest = final - final.mean(-1, keepdim=True)
            moved = encoder.readout((means.final + 0.5 * base.norm() / visible.norm() * about)[None])[0] - neutral
            ablated = encoder.readout((final - about)[None])[0]
            wanted = {
                "write": visible.norm() / rest.norm(),
                "axis": (visible * axes.axis[column]).sum() / rest.norm(),
                "chance": (visible * axes.chance[column]).sum() / rest.norm(),
                "similarity": cosine_similarity(moved, clean - means.embedding),
                "unsigned": 1 - cosine_similarity(ablated, clean),
                "effect": cosine_similarity(clean, texts[row]) - cosine_similarity(ablated, texts[row]),
            }
            for name, value in wanted.items():
                torch.testing.assert_close(got[name][row, column], value, rtol=1e-3, atol=1e-5, equal_nan=True)
    assert got["effect"][2].isnan().all()
    for column, site in enumerate(all_heads(trace.n_layers, trace.n_heads)):
        about = trace.at(site) - means.writes[column]
        about = about - about.mean(dim=-1, keepdim=True)
        wanted = (about * axes.axis[column]).sum(dim=(1, 2)).square().sum() / about.square().sum()
        assert variance_share(got, "axis", column) == pytest.approx(float(wanted), rel=1e-3)


def test_ablation_is_a_true_forward_pass_with_the_mean_in_place(pair: Pair, photos: Path) -> None:
    encoder, pictures = native(pair.encoder), folder_pictures(photos, 4).pictures
    heads = (Site("head", 0, 1), Site("head", 2, 0))
    means = ablation_means(encoder, pictures, 3, heads)
    inputs = encoder.preprocess([picture.open() for picture in pictures])
    texts = torch.randn(1, encoder.spec.embedding_size, generator=torch.Generator().manual_seed(1))
    got = measure_ablation(encoder, pictures[1:2], heads, means, texts)
    one = encoder.preprocess([pictures[1].open()])
    for column, site in enumerate(heads):
        mean = encoder.record(inputs, [site])[site].mean(dim=0)
        ablated, clean = encoder.embed(one, [Mean(site, value=mean)]), encoder.embed(one)
        torch.testing.assert_close(
            got["unsigned"][:, column], 1 - cosine_similarity(ablated, clean), rtol=1e-2, atol=2e-6
        )
        lost = cosine_similarity(clean, texts) - cosine_similarity(ablated, texts)
        torch.testing.assert_close(got["effect"][:, column], lost, rtol=1e-2, atol=2e-6)


def test_an_axis_is_the_first_principal_component_of_centred_writes(pair: Pair, photos: Path) -> None:
    encoder, pictures = pair.encoder, folder_pictures(photos, 6).pictures
    means = run_to_end(measure_means(encoder, pictures, 6))
    axes = run_to_end(measure_axes(encoder, pictures, 4, means))
    trace = encoder.trace(encoder.preprocess([picture.open() for picture in pictures]))
    about = trace.stack(all_heads(trace.n_layers, trace.n_heads)) - means.writes
    about = about - about.mean(dim=-1, keepdim=True)
    for column in range(about.shape[1]):
        rows = about[:, column].flatten(1).double()
        _, sizes, directions = torch.linalg.svd(rows, full_matrices=False)
        along = (rows @ axes.axis[column].flatten().double()).square().sum()
        # Where the two strongest are alike, power iteration ends between them: the variance is what counts.
        assert along >= 0.97 * sizes[0].square()
        if sizes[1] < 0.6 * sizes[0]:
            assert abs(float(directions[0] @ axes.axis[column].flatten().double())) > 0.99
        assert axes.axis[column].norm() == pytest.approx(1, abs=1e-4)
        assert (rows @ axes.chance[column].flatten().double()).square().sum() < along


def test_an_axis_points_to_the_few_that_are_far_out() -> None:
    places = torch.tensor([[-0.1, 0.1], [-0.1, 0.1], [-0.1, 0.1], [0.3, -0.3]])
    assert oriented(places).tolist() == [1.0, -1.0]


def test_a_text_that_fits_every_head_describes_none() -> None:
    generator = torch.Generator().manual_seed(0)
    scores = 0.01 * torch.randn(60, 50, generator=generator)
    chance = 0.01 * torch.randn(60, 50, generator=generator)
    scores[:, 0] += 0.5  # generic: close to all heads
    chance[:, 0] += 0.5
    scores[3, 7] += 0.2  # what head 3 alone says
    described, level = describe([f"text {index}" for index in range(50)], scores, chance, 2)
    assert described[3][0].text == "text 7"
    assert described[3][0].stands_out
    # One of 50 texts comes first by chance for about one of 60 heads; without the control it would for 59.
    assert sum(texts[0].text == "text 0" for texts in described) <= 5
    # Chance alone lets the best text of about one head in twenty stand out.
    assert sum(texts[0].stands_out for texts in described) <= 15
    assert 0.01 < level < 0.06
    assert chance_level(scores) > level
    assert torch.equal(excess(scores[:1]), scores[:1])


def options(pair: Pair, **changes: Any) -> ProfileOptions:
    given: dict[str, Any] = {
        "decode": pair.decoder.spec.defaults.__class__(
            **{**vars(pair.decoder.spec.defaults), "steps": 1, "guidance": 1.0}
        ),
        "strength": Strength("rho", 1.0),
        "heads": (Site("head", 1, 1), Site("head", 2, 0)),
        "n_top": 2,
        "n_ablated": 2,
        "batch": 4,
    }
    return ProfileOptions(**{**given, **changes})


@pytest.fixture(scope="module")
def finished(pair: Pair, photos: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Profile]:
    folder = tmp_path_factory.mktemp("profile") / "out"
    return folder, run_to_end(profile_heads(pair, folder_pictures(photos, 6), options(pair), folder))


def test_a_profile_holds_what_its_tables_say(pair: Pair, finished: tuple[Path, Profile]) -> None:
    folder, profile = finished
    assert [head.site.label for head in profile.heads] == ["L1H1", "L2H0"]
    values = pq.read_table(folder / "pictures.parquet").to_pylist()
    assert len(values) == 12
    for head in profile.heads:
        own = [row for row in values if row["head"] == head.site.label]
        for order, tops in head.tops.items():
            column, sign = ("axis", -1 if order == "low" else 1) if order in ("high", "low") else (order, 1)
            known = sorted((sign * row[column] for row in own if row[column] is not None), reverse=True)
            assert [top.value for top in tops] == pytest.approx(known[:2])
        assert head.write.count == 6
        assert head.direct_effect is not None and head.direct_effect.count == 5  # one label is not known
        assert head.total_unsigned is not None and head.total_unsigned.count == 2
        assert set(head.decoded) == set(head.texts) == {"mean", "high", "low"}
        assert 0 < head.chance_share < head.axis_share <= 1
    rows = pq.read_table(folder / "heads.parquet").to_pylist()
    assert [row["head"] for row in rows] == ["L1H1", "L2H0"]
    assert rows[0]["mean_image"]["bytes"].startswith(b"\x89PNG")
    told = json.loads((folder / "summary.json").read_text())
    assert told["heads"][1]["write"]["value"] == pytest.approx(profile.heads[1].write.value, abs=1e-4)
    directions = load_directions(folder / "directions.safetensors", pair.encoder.spec.width)
    assert set(directions) == {f"{head}.{name}" for head in ("L1H1", "L2H0") for name in ("mean", "high")}


@torch.no_grad()
def test_real_pictures_are_near_one_end_of_the_axis_alone(
    pair: Pair, photos: Path, finished: tuple[Path, Profile]
) -> None:
    pictures = folder_pictures(photos, 6).pictures
    encoder, profile = pair.encoder, finished[1]
    inputs = encoder.preprocess([picture.open() for picture in pictures])
    trace, embeddings = encoder.trace(inputs), encoder.embed(inputs)
    base = trace.final.mean(dim=0)
    directions = load_directions(finished[0] / "directions.safetensors", encoder.spec.width)
    for head in profile.heads:
        high = directions[f"{head.site.label}.high"]
        size = (base - base.mean()).norm() / (high - high.mean()).norm()
        ends = {end: encoder.readout((base + sign * size * high)[None])[0] for end, sign in (("high", 1), ("low", -1))}
        order = {end: cosine_similarity(embeddings, ends[end]).argsort(descending=True).tolist() for end in ends}
        for end, other in (("high", "low"), ("low", "high")):
            # Half of the six pictures count as near the other end.
            wanted = [pictures[row].id for row in order[end] if row not in order[other][:3]]
            assert [top.id for top in head.real[end]] == wanted[: len(head.real[end])] and head.real[end]
            for top in head.real[end]:
                row = [picture.id for picture in pictures].index(top.id)
                margin = cosine_similarity(embeddings[row], ends[end]) - cosine_similarity(embeddings[row], ends[other])
                assert top.value == pytest.approx(float(margin), abs=1e-4)


def test_a_card_says_how_faithful_it_is_or_that_nobody_measured_it(
    pair: Pair, finished: tuple[Path, Profile], tmp_path: Path
) -> None:
    from dataclasses import replace

    profile = finished[1]
    assert profile.faithfulness == () and "was not measured on this model" in profile_page(profile)
    measured = Faithfulness("contrast pair", "correlation", 0.16, 0.15, 0.17, {"L1H1": 0.21}, 24)
    page = profile_page(replace(profile, faithfulness=(measured,)))
    assert "0.16 [0.15, 0.17]" in page and "<td>0.21</td>" in page and "correlation; 24 pictures" in page
    assert page.count("<td>not measured</td>") == 1  # of L2H0
    assert measured_faithfulness("a model that nobody studied") == ()
    with pytest.raises(UsageError, match="holds no finished study"):
        measured_faithfulness(pair.name, tmp_path)


def test_a_card_takes_its_figures_from_studies_of_the_same_model(pair: Pair, tmp_path: Path) -> None:
    options = LensesOptions(quick(pair), heads_per_picture=2)
    subjects = subject_set(pair, 2, 2, 4)
    lenses = finish(lenses_study(pair, subjects, options, tmp_path / "lenses", draws=10))
    chosen = IdentificationOptions(options.decode, Strength("rho", 1.0), heads_per_picture=2)
    identified = finish(identification_study(pair, subjects, chosen, tmp_path / "identification", draws=10))
    contrast, own = measured_faithfulness(pair.name, tmp_path)
    row = lenses.row("contrast pair")
    assert row is not None and contrast.value == pytest.approx(row.correlation.value, abs=1e-4)
    assert (contrast.of, own.of, own.pictures) == ("contrast pair", "own write", 2)
    assert own.value == pytest.approx(identified.main.share.value, abs=1e-4) and set(own.heads) == set(identified.heads)
    with pytest.raises(UsageError, match=r"holds studies of .*, not of another"):
        measured_faithfulness("another", tmp_path)


def test_both_ends_of_an_axis_are_as_long_as_the_writes_are_along_it(
    pair: Pair, photos: Path, finished: tuple[Path, Profile]
) -> None:
    pictures = folder_pictures(photos, 6).pictures
    trace = pair.encoder.trace(pair.encoder.preprocess([picture.open() for picture in pictures]))
    directions = load_directions(finished[0] / "directions.safetensors", pair.encoder.spec.width)
    for head in finished[1].heads:
        writes, high = trace.at(head.site)[:, 0], directions[f"{head.site.label}.high"]
        about = writes - writes.mean(dim=0)
        about = about - about.mean(dim=-1, keepdim=True)
        along = about @ (high / high.norm())
        torch.testing.assert_close(high.norm(), along.square().mean().sqrt(), rtol=1e-3, atol=1e-6)
        share = along.square().sum() / about.square().sum()
        assert head.axis_share == pytest.approx(float(share), rel=1e-3)


def test_a_profile_measured_otherwise_is_refused(pair: Pair, photos: Path, finished: tuple[Path, Profile]) -> None:
    copy = finished[0].with_name("before")
    shutil.copytree(finished[0], copy)
    manifest = json.loads((copy / "study.json").read_text())
    del manifest["measures"]
    (copy / "study.json").write_text(json.dumps({**manifest, "fingerprint": "of the version before"}))
    with pytest.raises(UsageError, match="give another --out, or remove that folder"):
        run_to_end(profile_heads(pair, folder_pictures(photos, 6), options(pair), copy))


def test_a_flipped_bit_in_any_measurement_is_told(
    pair: Pair, photos: Path, finished: tuple[Path, Profile], tmp_path: Path
) -> None:
    pictures = folder_pictures(photos, 6)
    for number, name in enumerate(sorted(path.name for path in (finished[0] / "parts").iterdir())):
        copy = Path(shutil.copytree(finished[0], tmp_path / "copy", dirs_exist_ok=True))
        damaged = copy / "parts" / name
        data = bytearray(damaged.read_bytes())
        data[-1 if number % 2 else 12] ^= 4  # in the last number, or in the header
        damaged.write_bytes(data)
        with pytest.raises(StoreError, match=rf"{name} cannot be read: .*its hash differs; remove it, and the same"):
            run_to_end(profile_heads(pair, pictures, options(pair), copy))
        damaged.unlink()
        run_to_end(profile_heads(pair, pictures, options(pair), copy))
        assert damaged.read_bytes() == (finished[0] / "parts" / name).read_bytes()
    manifest = copy / "study.json"
    manifest.write_text(manifest.read_text().replace('"n_top": 2', '"n_top": 3'))
    with pytest.raises(StoreError, match=r"study\.json cannot be read: it was changed or damaged"):
        run_to_end(profile_heads(pair, pictures, options(pair), copy))
    directions = finished[0] / "directions.safetensors"
    data = directions.read_bytes()
    (copy / directions.name).write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    with pytest.raises(StoreError, match=r"directions\.safetensors cannot be read: it is damaged"):
        load_directions(copy / directions.name)


def test_a_profile_names_no_folder_of_the_machine(pair: Pair, finished: tuple[Path, Profile]) -> None:
    folder = str(Path(pair.name).parent)
    assert Path(pair.name).is_absolute() and folder != "/"
    write_profile_page(finished[1], finished[0])
    for path in finished[0].rglob("*"):
        assert not path.is_file() or folder.encode() not in path.read_bytes(), path
    told = json.loads((finished[0] / "provenance.json").read_text())
    assert told["name"] == Path(pair.name).name and told["encoder"]["folder"] and told["sha256"]


def test_a_profile_that_an_earlier_version_began_with_whole_paths_is_resumed(
    pair: Pair, photos: Path, finished: tuple[Path, Profile], tmp_path: Path
) -> None:
    copied = Path(shutil.copytree(finished[0], tmp_path / "copy"))
    before = json.loads((copied / "study.json").read_text())
    del before["fingerprint"]
    for place in (pair.name, "/where/it/was/then/" + Path(pair.name).name):
        before["models"]["pair"] = place
        (copied / "study.json").write_text(json.dumps({"fingerprint": fingerprint(before), **before}))
        run_to_end(profile_heads(pair, folder_pictures(photos, 6), options(pair), copied))
    before["models"]["sha256"] = {"image_encoder/model.safetensors": "0" * 64}
    (copied / "study.json").write_text(json.dumps({"fingerprint": fingerprint(before), **before}))
    with pytest.raises(UsageError, match="another models"):
        run_to_end(profile_heads(pair, folder_pictures(photos, 6), options(pair), copied))


def test_a_profile_is_of_one_precision_one_model_in_memory_and_one_set_of_texts(pair: Pair, photos: Path) -> None:
    def known(of: Pair, vocabulary: TextVocabulary | None = None) -> str:
        return fingerprint(profile_identity(of, folder_pictures(photos, 6), options(pair), vocabulary))

    half = deepcopy(pair)
    half.encoder.model.to(torch.bfloat16)  # type: ignore[attr-defined]
    hooked = deepcopy(pair)
    hooked.encoder.model.register_forward_hook(lambda *_: None)  # type: ignore[attr-defined]
    texts = cast(TextVocabulary, pair.vocabulary)
    marks = [known(pair), known(half), known(hooked), known(pair, texts)]
    marks.append(known(pair, TextVocabulary(texts.names, texts.embeddings.flip(0), texts.mean)))
    assert len(set(marks)) == len(marks)
    assert known(deepcopy(pair)) == known(pair)


def test_the_same_call_does_nothing_twice_and_another_is_refused(
    pair: Pair, photos: Path, finished: tuple[Path, Profile]
) -> None:
    folder, profile = finished
    before = {path.name: path.stat().st_mtime_ns for path in (folder / "parts").iterdir()}
    summary = (folder / "summary.json").read_bytes()
    missing = folder / "parts" / "ablation-00001.safetensors"
    missing.unlink()
    again = run_to_end(profile_heads(pair, folder_pictures(photos, 6), options(pair), folder))
    after = {path.name: path.stat().st_mtime_ns for path in (folder / "parts").iterdir()}
    assert {name for name in before if before[name] != after[name]} == {missing.name}
    assert (folder / "summary.json").read_bytes() == summary
    assert profile_page(again) == profile_page(profile)
    with pytest.raises(UsageError, match="another options"):
        run_to_end(profile_heads(pair, folder_pictures(photos, 6), options(pair, n_top=3), folder))


def test_the_page_needs_nothing_else_and_takes_any_label(finished: tuple[Path, Profile], tmp_path: Path) -> None:
    profile = finished[1]
    page = write_profile_page(profile, tmp_path).read_text()
    for head in profile.heads:
        assert f'id="{head.site.label}"' in page
        assert head.texts["high"][0].text in page
    assert "http" not in page.replace("http://www.w3.org/2000/svg", "").replace("http-equiv", "")
    thumbnails = json.loads(page.split('id="thumbnails">')[1].split("</script>")[0])
    used = {top.id for head in profile.heads for tops in head.tops.values() for top in tops}
    used |= {top.id for head in profile.heads for tops in head.real.values() for top in tops}
    assert set(thumbnails) == used
    hostile = "</script><img src=x onerror=alert(1)>"
    pictures = tuple(ProfilePicture(hostile, hostile, "0", picture.open) for picture in profile.pictures)
    assert hostile not in profile_page(_with(profile, pictures))


def _with(profile: Profile, pictures: tuple[ProfilePicture, ...]) -> Profile:
    from dataclasses import replace

    tops = {order: tuple(replace(top, id=pictures[0].id, concept=pictures[0].concept) for top in tops)
            for order, tops in profile.heads[0].tops.items()}  # fmt: skip
    real = dict.fromkeys(("high", "low"), tops["high"])
    return replace(profile, pictures=pictures, heads=(replace(profile.heads[0], tops=tops, real=real),))


def test_without_vocabulary_and_ablation_a_profile_is_still_one(pair: Pair, photos: Path, tmp_path: Path) -> None:
    from dataclasses import replace

    bare = replace(pair, vocabulary=None)
    chosen = options(pair, n_ablated=0, heads=(Site("head", 0, 0),))
    profile = run_to_end(profile_heads(bare, folder_pictures(photos, 6), chosen, tmp_path / "out"))
    (head,) = profile.heads
    assert (head.direct_effect, head.total_effect, head.total_unsigned) == (None, None, None)
    assert head.texts == {} and head.tops["effect"] == ()
    assert "Ablation" not in profile_page(profile)


def test_what_cannot_be_profiled_is_refused(pair: Pair, photos: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="too few for"):
        run_to_end(profile_heads(pair, folder_pictures(photos, 3), options(pair), tmp_path / "out"))
    with pytest.raises(UsageError, match="the model has 3 layers"):
        run_to_end(
            profile_heads(pair, folder_pictures(photos, 6), options(pair, heads=(Site("head", 9, 0),)), tmp_path / "o")
        )
    with pytest.raises(UsageError, match="not a head"):
        heads_of("mlp_out.1", 3, 2)
    assert len(heads_of("all", 3, 2)) == 6
    with pytest.raises(UsageError, match="not a folder"):
        folder_pictures(tmp_path / "nowhere", 3)
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match="no picture"):
        folder_pictures(tmp_path / "empty", 3)


def test_pictures_are_drawn_by_the_seed(photos: Path) -> None:
    one, same, other = (folder_pictures(photos, 4, seed).identity() for seed in (0, 0, 1))
    assert one == same
    assert one["pictures"] != other["pictures"]
    assert isinstance(folder_pictures(photos, 99), ProfilePictures)
    assert len(folder_pictures(photos, 99).pictures) == 6


@pytest.mark.parametrize("method", ["textspan", "omp"])
def test_heads_are_named_by_the_texts_that_a_plain_computation_finds(
    method: NamesMethod, pair: Pair, photos: Path, tmp_path: Path
) -> None:
    shown, vocabulary = folder_pictures(photos, 6), pair.vocabulary
    assert vocabulary is not None
    chosen = options(pair, names=method, n_ablated=0, n_texts=2)
    profile = run_to_end(profile_heads(pair, shown, chosen, tmp_path / "named"))
    encoder = pair.encoder
    head = profile.heads[1]
    if method == "omp":
        vectors = load_file(tmp_path / "named" / "parts" / "means.safetensors")
        row = head.site.layer * encoder.spec.n_heads + head.site.head
        neutral = encoder.readout(vectors["final"][None])[0]
        factor = chosen.strength.coefficient(
            vectors["final"][None, None], vectors["writes"][row][None, None], centred=encoder.spec.centred
        )
        moved = encoder.readout((vectors["final"] + factor[0, 0] * vectors["writes"][row])[None])[0] - neutral
        expected = {"mean": omp(moved, vocabulary, 2)}
        assert set(head.names) == {"mean", "high", "low"}
    else:
        trace = encoder.trace(encoder.preprocess([picture.open() for picture in shown.pictures]))
        contributions = LinearAttribution(native(encoder)).embeddings(trace, [head.site])[:, 0]
        expected = {"writes": text_span(contributions, vocabulary, 2)}
        assert set(head.names) == {"writes"}
    for name, plain in expected.items():
        found = head.names[name]
        assert [text.text for text in found.texts] == [text.text for text in plain.texts]
        assert found.explained == pytest.approx(plain.explained, abs=1e-4)
        assert str(found) in pq.read_table(tmp_path / "named" / "heads.parquet")[f"{name}_names"].to_pylist()
    page = profile_page(profile)
    assert head.names[next(iter(expected))].texts[0].text in page
    assert "of the variance; random texts" in page
    summary = json.loads((tmp_path / "named" / "summary.json").read_text())
    assert set(summary["heads"][1]["names"]) == set(head.names)


def test_other_names_need_texts(pair: Pair, photos: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="do not ask for 0 of them"):
        run_to_end(
            profile_heads(pair, folder_pictures(photos, 6), options(pair, names="omp", n_texts=0), tmp_path / "named")
        )
    assert not (tmp_path / "named").exists()
