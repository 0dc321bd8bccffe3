"""`steerlens lens` on a tiny pair, as a process where that matters, and every way in which a request can be wrong."""

import json
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
import tyro
from commands import steerlens, steerlens_process
from PIL import Image
from safetensors.torch import load_file, save_file

from steerlens.cli.main import main
from steerlens.decoders import build_index
from steerlens.profiles import cards
from steerlens.progress import Progress
from steerlens.zoo import Pair


@pytest.fixture(scope="module")
def photo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("pictures") / "photo.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (30, 40, 3), dtype=np.uint8)).save(path)
    return path


def test_a_picture_becomes_a_run_with_a_report(pair_folder: Path, photo: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    done = steerlens_process("lens", photo, "--model", pair_folder, "--steps", 2, "--out", out)
    assert done.returncode == 0, done.stderr
    assert str(out / "report.html") in done.stdout
    assert "beat their control" in done.stdout
    assert "decoding" in done.stderr
    assert (out / "report.html").read_text().startswith("<!doctype html>")
    assert {path.suffix for path in (out / "figures").iterdir()} == {".png", ".svg"}
    manifest = json.loads((out / "manifest.json").read_text())
    assert manifest["complete"] is True
    assert manifest["command"] == f"steerlens lens {photo} --model {pair_folder} --steps 2"
    shared = "steerlens lens photo.png --model tiny --steps 2"
    assert f"<code>{shared}</code>" in (out / "report.html").read_text(), "without folders of this machine"
    with Image.open(out / "figures" / "map.png") as figure:
        assert figure.info["Description"].endswith(f"command: {shared}")
    assert shared in (out / "figures" / "map.svg").read_text()


def test_json_is_all_there_is_on_stdout_and_names_every_head(pair_folder: Path, photo: Path, tmp_path: Path) -> None:
    done = steerlens_process("lens", photo, "--model", pair_folder, "--steps", 2, "--out", tmp_path / "out", "--json")
    assert done.returncode == 0, done.stderr
    (result,) = json.loads(done.stdout)["pictures"]
    assert {head["site"] for head in result["steering"]} == {
        f"head.{layer}.{head}" for layer in range(3) for head in (0, 1)
    }
    assert {score["site"] for score in result["diffusion"]} > {f"resid_post.{layer}" for layer in range(3)}
    assert {label["site"] for label in result["labels"]} > {"embed", "resid_post.2", "head.0.1"}
    similarities = [score["similarity"] for score in result["steering"]]
    assert similarities == sorted(similarities, reverse=True)
    assert done.stderr == ""


def test_ray_and_a_choice_reach_the_run(pair_folder: Path, photo: Path, tmp_path: Path) -> None:
    pytest.importorskip("ray", reason="runs where the extra `ray` is installed")
    common = ("lens", photo, "--model", pair_folder, "--steps", 2, "--decode", "top:1", "--json", "--out")
    far = steerlens_process(*common, tmp_path / "far", "--engine", "ray", "--workers", 1)
    assert far.returncode == 0, far.stderr
    here = steerlens(*common, tmp_path / "here")
    assert here.returncode == 0, here.stderr
    (first,), (other,) = (json.loads(done.stdout)["pictures"] for done in (far, here))
    assert len(first["steering"]) == 1
    assert [head["site"] for head in first["steering"]] == [head["site"] for head in other["steering"]]
    assert first["steering"][0]["similarity"] == pytest.approx(other["steering"][0]["similarity"], abs=1e-3)


def test_a_killed_run_goes_on(pair_folder: Path, photo: Path, tmp_path: Path) -> None:
    second = tmp_path / "second.png"
    Image.open(photo).convert("RGB").transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(second)
    for number in range(5):  # on a busy machine, a run may finish before it is killed
        out = tmp_path / f"out-{number}"
        arguments = ["lens", photo, second, "--model", pair_folder, "--steps", 60, "--batch-size", 2, "--out", out]
        command = [sys.executable, "-m", "steerlens.cli.main", *map(str, arguments)]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + 300
        while not list(out.glob("cells/*.parquet")) and time.monotonic() < deadline and process.poll() is None:
            time.sleep(0.01)
        process.kill()
        if process.wait() == -signal.SIGKILL and not json.loads((out / "manifest.json").read_text())["complete"]:
            break
    else:
        pytest.fail("no run was killed before it finished")
    kept = {path.name: path.stat().st_mtime_ns for path in out.glob("cells/*.parquet")}
    assert kept
    assert steerlens(*arguments).returncode == 0
    assert {name: (out / "cells" / name).stat().st_mtime_ns for name in kept} == kept
    assert json.loads((out / "manifest.json").read_text())["complete"] is True


def test_resume_goes_on_with_a_run_that_is_there(
    pair_folder: Path, photo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = [
        "lens",
        str(photo),
        "--model",
        str(pair_folder),
        "--steps",
        "1",
        "--sites",
        "L1H0",
        "--out",
        str(tmp_path),
    ]
    assert main(arguments) == 0
    before = (tmp_path / "manifest.json").read_bytes()
    capsys.readouterr()
    assert main([*arguments, "--resume"]) == 0
    assert f"every picture is in {tmp_path} already" in capsys.readouterr().err
    assert (tmp_path / "manifest.json").read_bytes() == before
    assert main([*arguments, "--resume", "--seed", "1"]) == 2
    assert "contains a run with another" in capsys.readouterr().err


def test_workers_leave_the_gpu_to_themselves() -> None:
    from types import SimpleNamespace
    from typing import Any

    from steerlens.cli.lens.engines import leave_the_gpu

    places: list[tuple[Any, ...]] = []

    class Network(torch.nn.Module):
        def to(self, *place: Any) -> "Network":
            places.append(place)
            return self

    encoder, decoder = SimpleNamespace(model=Network()), SimpleNamespace(unet=Network(), movq=Network(), scale=8)
    leave_the_gpu(SimpleNamespace(encoder=encoder, decoder=decoder))  # type: ignore[arg-type]
    assert places == [("cpu",)] * 3


def test_a_dry_run_says_the_cost_and_writes_nothing(
    pair_folder: Path, photo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["lens", str(photo), "--model", str(pair_folder), "--out", str(tmp_path / "out"), "--dry-run"]
    assert main([*arguments, "--json"]) == 0
    plan = json.loads(capsys.readouterr().out)
    assert plan["cells"] == {"diffusion": 9, "steering": 6, "control": 6}
    assert plan["pictures_to_decode"] == 21
    assert plan["seconds"] > 0
    assert plan["disk_bytes"] > 0
    assert main(arguments) == 0
    assert "21 pictures to decode" in capsys.readouterr().out
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("more", [["--dry-run"], []])
def test_a_target_that_names_nothing_is_refused_before_models_are_loaded(
    more: list[str],
    pair_folder: Path,
    photo: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def unloaded(*_: object, **__: object) -> None:
        raise AssertionError("a model was loaded")

    monkeypatch.setattr("steerlens.loading.load", unloaded)
    monkeypatch.setattr("steerlens.cli.lens.run.load_pair", unloaded)
    arguments = ["lens", str(photo), "--model", str(pair_folder), "--out", str(tmp_path / "out"), *more, "--target"]
    for target, said in (("no such thing", "does not hold 'no such thing'"), ("gone.png", "gone.png")):
        assert main([*arguments, target]) == 2
        assert said in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_total_effects_are_shown_priced_and_printed(
    pair_folder: Path, photo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sites = ["--sites", "L0H0,L2H1,mlp_out.1", "--steps", "1", "--out", str(tmp_path / "out")]
    arguments = ["lens", str(photo), "--model", str(pair_folder), *sites]
    assert main([*arguments, "--json", "--dry-run"]) == 0
    direct = json.loads(capsys.readouterr().out)
    assert main([*arguments, "--effect", "direct", "--effect", "total", "--json", "--dry-run"]) == 0
    both = json.loads(capsys.readouterr().out)
    assert direct["encoder_passes"] == 1 and {"total", "ablation", "total_control"} <= set(both["cells"])
    # A clean pass more; scaled, ablated and control of sites that begin at layers 0, 2 and 1 of 3. Then another clean
    # pass, and every head of 3 layers of 2 without decoding.
    assert both["encoder_passes"] == pytest.approx(1 + 1 + 3 * (3 + 1 + 2) / 3 + 1 + 2 * (3 + 2 + 1) / 3, abs=0.1)
    assert main([*arguments, "--effect", "direct,total"]) == 0
    printed = capsys.readouterr().out
    assert "total effects come closest to the input itself" in printed
    assert "without which the embedding moves most (1 - cosine, of all 6 heads)" in printed
    assert (tmp_path / "out" / "figures" / "effects.svg").is_file()
    assert main([*arguments, "--effect", "direct,total", "--json"]) == 0
    (result,) = json.loads(capsys.readouterr().out)["pictures"]
    assert {row["site"] for row in result["total"]} == {row["site"] for row in result["ablation"]}
    assert len(result["ablation_effects"]) == 6
    assert all(-1 <= row["direct_cosine"] <= 1 for row in result["total"])
    assert main([*arguments, "--effect", "later"]) == 2
    assert "effect must be direct, total" in capsys.readouterr().err


def test_a_dry_run_of_the_papers_model_needs_no_weights(photo: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["lens", str(photo), "--model", "kandinsky-2.2", "--dry-run", "--json"]) == 0
    plan = json.loads(capsys.readouterr().out)
    assert plan["cells"]["steering"] == 48 * 16
    # 25 steps with guidance take 50 UNet passes of 0.86e12 operations and a MoVQ pass of 2.0e12.
    assert plan["operations"] / plan["pictures_to_decode"] == pytest.approx(45e12, rel=0.1)


def test_directions_targets_and_sites_reach_the_run(pair_folder: Path, photo: Path, tmp_path: Path) -> None:
    save_file({"probe": torch.randn(16)}, tmp_path / "probe.safetensors")
    arguments = [
        "lens",
        photo,
        "--model",
        pair_folder,
        "--steps",
        1,
        "--out",
        tmp_path / "out",
        "--sites",
        "mlp_out.0,L1H0",
    ]
    arguments += ["--vector", tmp_path / "probe.safetensors", "--target", photo, "--strength", "s=5", "--controls", 0]
    assert main(list(map(str, [*arguments, "--json"]))) == 0
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    steered = [cell for cell in manifest["plan"]["cells"] if "|steering|" in cell]
    assert [cell.split("|")[2] for cell in steered] == ["mlp_out.0", "head.1.0", "vector.probe"]
    assert all("|s=5|" in cell for cell in steered)


def test_groups_and_regions_reach_the_run_and_its_report(
    pair_folder: Path, photo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    arguments = ["lens", photo, "--model", pair_folder, "--steps", 1, "--out", out, "--sites", "L1H0", "--controls", 0]
    arguments += ["--group", "late=head.1-2.*,mlp_out.2", "--region", "L1H0:0,0,8,8", "--region", "eye=head.2.*:cls"]
    assert main(list(map(str, [*arguments, "--json", "--dry-run"]))) == 0
    assert json.loads(capsys.readouterr().out)["cells"]["steering"] == 4
    assert main(list(map(str, [*arguments, "--json"]))) == 0
    (result,) = json.loads(capsys.readouterr().out)["pictures"]
    named = {"group.late", "region.L1H0.0-0-8-8", "region.eye"}
    assert {score["site"] for score in result["steering"]} == {"head.1.0", *named}
    assert {score["site"] for score in result["diffusion"]} > named
    page = (out / "report.html").read_text()
    assert all(f'"label":"{name.split(".", 1)[1]}"' in page for name in named)


@pytest.mark.parametrize(
    ("extra", "code", "said"),
    [
        (["--sites", "head.9.0"], 2, "3 layers"),
        (["--sites", "head.0.7"], 2, "heads 0 to 1"),
        (["--sites", "resid_past.1"], 2, "not a site"),
        (["--strength", "loud"], 2, "not a strength"),
        (["--strength", "rho=nan"], 2, "finite"),
        (["--target", "a word nobody knows"], 2, "vocabulary"),
        (["--seeds", "0"], 2, "seed"),
        (["--steps", "0"], 2, "step"),
        (["--controls", "-1"], 2, "controls"),
        (["--batch-size", "0"], 2, "batch"),
        (["--vector", "missing.safetensors"], 2, "missing.safetensors"),
        (["--group", "late"], 2, "NAME=SITES"),
        (["--group", "late=head.9.*"], 2, "3 layers"),
        (["--region", "L1H0:0,0,999,8"], 2, "not in the picture"),
        (["--region", "mlp_out.1:cls"], 2, "only a head reads"),
        (["--device", "abacus"], 2, "abacus"),
        (["--model", "emojy"], 2, "emoji"),
        (["--scheduler", "magic"], 2, "magic"),
        (["--decode", "some"], 2, "top:K"),
        (["--guidance-interval", "0.5", "0.1"], 2, "two shares of the steps"),
        (["--workers", "2"], 2, "--engine ray"),
        (["--workers", "2", "--worker-cpus", "2", "--dry-run"], 2, "--workers, --worker-cpus: no effect"),
        (["--lens", "diffusion", "--strength", "s=40"], 2, "strength s=40: no effect, because nothing is steered"),
        (["--decode", "top:99"], 2, "decode top:99: no effect, because there are only 6 sites"),
        (["--guidance", "1", "--guidance-interval", "0", "0.5"], 2, "guidance_interval 0 0.5: no effect"),
        (["--engine", "ray", "--workers", "0"], 2, "at least one worker"),
        (["--engine", "ray", "--address", "127.0.0.1:9"], 2, "no Ray cluster at 127.0.0.1:9"),
        (["--resume"], 2, "there is no run in"),
    ],
)
def test_a_wrong_request_is_one_clear_line_and_leaves_nothing(
    extra: list[str],
    code: int,
    said: str,
    pair_folder: Path,
    photo: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out = tmp_path / "out"
    arguments = [
        "lens",
        str(photo),
        "--out",
        str(out),
        *([] if "--model" in extra else ["--model", str(pair_folder)]),
        *extra,
    ]
    assert main(arguments) == code
    error = capsys.readouterr().err
    assert said in error
    assert "Traceback" not in error
    assert not out.exists()


def test_a_machine_without_a_ray_cluster_is_told(
    pair_folder: Path,
    photo: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # Tests beside this one may run Ray on this machine, and Ray looks for any cluster by its processes.
    monkeypatch.setattr("ray._private.services.find_gcs_addresses", cache(lambda: set[str]()))
    monkeypatch.setattr("ray._private.services.find_bootstrap_address", lambda _: None)
    out = tmp_path / "out"
    cluster = ["--engine", "ray", "--address", "auto"]
    assert main(["lens", str(photo), "--out", str(out), "--model", str(pair_folder), *cluster]) == 2
    assert "no Ray cluster at auto" in capsys.readouterr().err
    assert not out.exists()


@pytest.mark.parametrize(
    ("content", "code", "said"),
    [(b"", 1, "empty"), (b"\x89PNG\r\n\x1a\n broken", 1, "broken.png"), (None, 2, "no file")],
)
def test_a_bad_picture_is_named(
    content: bytes | None, code: int, said: str, pair_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "broken.png"
    if content is not None:
        path.write_bytes(content)
    assert main(["lens", str(path), "--model", str(pair_folder), "--out", str(tmp_path / "out")]) == code
    assert said in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_runs_of_other_options_or_pictures_get_folders_of_their_own() -> None:
    from steerlens.cli.lens import Command, LensSettings
    from steerlens.cli.lens.settings import DecodingSettings, LensChoice, ModelSettings, SiteSettings

    cat, dog = Path("cat.png"), Path("dog.png")
    assert Command((cat,)).folder == Path("steerlens-runs/cat-emoji")
    assert Command(
        (cat,), LensSettings(ModelSettings(device="cpu"), decoding=DecodingSettings(batch_size=3))
    ).folder == Path("steerlens-runs/cat-emoji")
    others = [
        Command((cat,)),
        Command((cat, dog)),
        Command((cat,), LensSettings(sites=SiteSettings(target="owl"), lens=LensChoice(strength="rho=2"))),
        Command((cat,), LensSettings(decoding=DecodingSettings(seed=1))),
    ]
    assert len({command.folder for command in others}) == 4
    assert (
        others[2].folder
        == Command((cat,), LensSettings(sites=SiteSettings(target="owl"), lens=LensChoice(strength="rho=2"))).folder
    )
    assert len(Command((Path("x" * 250 + ".png"),)).folder.name) < 100


FLAGS = (
    *(
        "address",
        "bank",
        "batch-size",
        "cards",
        "compile",
        "controls",
        "decode",
        "device",
        "dry-run",
        "dtype",
        "effect",
    ),
    *("encoder", "engine", "foils", "group", "guidance", "guidance-interval", "json", "labels", "lens", "local"),
    *(
        "local-files-only",
        "model",
        "names",
        "neighbours",
        "no-cache",
        "offload",
        "out",
        "precision",
        "preview",
        "rank",
        "region",
    ),
    *(
        "resume",
        "sae",
        "sae-activation",
        "sae-apply-b-dec",
        "sae-site",
        "scheduler",
        "seed",
        "seeds",
        "sites",
        "steps",
        "strength",
        "strongest",
        "studies",
        "target",
        "tokens",
        "vector",
    ),
    *("vector-at", "vocabulary", "worker-cpus", "worker-gpus", "workers"),
)


def test_the_options_of_the_command_are_those_of_the_version_before(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["lens", "--help"]) == 0
    flags = re.findall(
        r"^[│ ] --([a-z][a-z-]*)", capsys.readouterr().out, flags=re.M
    )  # some terminals have no box lines
    assert sorted(flags) == list(FLAGS)


@pytest.mark.parametrize(
    ("arguments", "folder"),
    [
        ("cup.png", "cup-emoji"),
        ("cup.png --seed 1", "cup-emoji-ba9bf1"),
        ("cup.png b.png", "cup-emoji-a83bca"),
        ("cup.png --no-cache --json --device cuda --compile yes --engine ray --workers 3 --worker-cpus 2", "cup-emoji"),
        (
            "cup.png --target owl --strength rho=2 --seeds 2 --controls 0 --lens steering --labels 3 --group a=heads "
            "--region L1H1:cls --vector v.safetensors --preview --guidance-interval 0 0.5 --scheduler ddim --steps 4 "
            "--guidance 2 --sites heads --decode top:3 --tokens cls --vocabulary v.txt --dtype bfloat16 --encoder enc "
            "--local here --neighbours n --model kandinsky-2.2 --batch-size 4",
            "cup-kandinsky-2.2-0f4b79",
        ),
    ],
)
def test_a_command_finds_the_run_folder_that_the_version_before_gave_it(arguments: str, folder: str) -> None:
    from steerlens.cli.lens import Command

    config = (tyro.conf.FlagCreatePairsOff, tyro.conf.OmitSubcommandPrefixes, tyro.conf.OmitArgPrefixes)
    command = tyro.cli(Command, args=arguments.split(), config=config)
    assert command.folder == Path("steerlens-runs") / folder


def test_effects_get_a_run_folder_of_their_own_however_they_are_named() -> None:
    from steerlens.cli.lens import Command

    config = (tyro.conf.FlagCreatePairsOff, tyro.conf.OmitSubcommandPrefixes, tyro.conf.OmitArgPrefixes)
    plain, total, at_once, one_by_one = (
        tyro.cli(Command, args=f"cup.png {options}".split(), config=config).folder
        for options in ("", "--effect total", "--effect direct,total", "--effect direct --effect total")
    )
    assert at_once == one_by_one
    assert len({plain, total, at_once}) == 3


def interrupted(*_: object) -> Iterator[Progress]:
    """Cards of an input whose computation is interrupted."""
    yield Progress("cards", 0, 1)
    raise KeyboardInterrupt


def test_cards_of_heads_reach_the_report_of_a_run_that_was_there(
    pair: Pair,
    pair_folder: Path,
    photo: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    bank, index, out = tmp_path / "bank", tmp_path / "index", tmp_path / "out"
    bank.mkdir()
    rng = np.random.default_rng(5)
    for number in range(12):
        Image.fromarray(rng.integers(0, 255, (20, 20, 3), dtype=np.uint8)).save(bank / f"thing {number}.png")
    run = ["lens", str(photo), "--model", str(pair_folder), "--steps", "2", "--controls", "0", "--out", str(out)]
    assert main(run) == 0
    build_index(pair.encoder, bank, index)
    assert main([*run, "--cards", "2"]) == 2
    assert "--bank INDEX" in capsys.readouterr().err
    elsewhere = [*run[:-1], str(tmp_path / "elsewhere")]
    assert main([*elsewhere, "--bank", str(tmp_path / "nothing")]) == 2  # before anything is decoded
    assert not (tmp_path / "elsewhere").exists() and "neighbours index" in capsys.readouterr().err
    (out / "report.html").unlink()
    with monkeypatch.context() as patched:
        patched.setattr(cards, "input_cards", interrupted)
        assert main([*run, "--bank", str(index), "--cards", "2"]) == 130
    assert '"cards":null' in (out / "report.html").read_text(), "a run has its report before its cards"
    capsys.readouterr()
    assert main([*run, "--bank", str(index), "--cards", "2", "--json"]) == 0
    stored = json.loads(capsys.readouterr().out)["pictures"][0]["cards"]
    assert len(stored["heads"]) == 2 and stored["missing"].startswith("Not measured on ")
    assert '"cards":{' in (out / "report.html").read_text()


def test_no_picture_at_all_is_a_wrong_request(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["lens"]) == 2
    assert "steerlens lens sample" in capsys.readouterr().err


def test_a_model_with_broken_weights_is_refused(pair_folder: Path, photo: Path, tmp_path: Path) -> None:
    import shutil

    broken = tmp_path / "broken"
    shutil.copytree(pair_folder, broken)
    path = broken / "image_encoder" / "model.safetensors"
    tensors = load_file(path)
    tensors["visual_projection.weight"][0, 0] = torch.nan
    save_file(tensors, path, metadata={"format": "pt"})
    done = steerlens("lens", photo, "--model", broken, "--out", tmp_path / "out")
    assert done.returncode == 1
    assert "visual_projection.weight" in done.stderr
    assert "Traceback" not in done.stderr
