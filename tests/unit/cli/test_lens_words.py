"""The command that a run keeps: its words give the same settings again."""

import pytest

from steerlens.cli.lens.command import Command
from steerlens.cli.main import parse_command


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["--strength", "rho=-2", "--seeds", "3", "--seed", "7", "--lens", "steering"],
        ["--group", "late=head.6-7.*", "--group", "first=mlp_out.0", "--region", "L7H3:8,8,40,40"],
        ["--effect", "direct,total", "--vector", "probe.safetensors", "--vector-at", "resid_post.6"],
        ["--guidance-interval", "0.2", "0.8", "--steps", "12", "--scheduler", "ddim", "--preview", "--no-cache"],
        ["--target", "a cup; $HOME 'n' more", "--decode", "top:20", "--controls", "0", "--foils", "1", "--labels", "9"],
        ["--model", "dinov2-small", "--local", "some/folder", "--local-files-only", "--device", "cpu", "--json"],
        ["--sae", "a=one", "--sae", "two", "--sae-site", "resid_post.8", "--engine", "ray", "--workers", "2"],
        ["--bank", "an index", "--cards", "3", "--studies", "studies"],
    ],
)
def test_words_give_the_same_settings_again(words: list[str]) -> None:
    first: Command = parse_command("lens", ["cup.png", *words])
    again: Command = parse_command("lens", ["cup.png", *first.settings.words()])
    plain = [word for word in words if word != "--json"]
    assert again == parse_command("lens", ["cup.png", *plain])


def test_defaults_need_no_words() -> None:
    assert parse_command("lens", ["cup.png"]).settings.words() == ()
