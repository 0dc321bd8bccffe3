"""What `steerlens lens` prints at its end: the best heads, and what their scores are compared with."""

from pathlib import Path

import pytest

from steerlens.cli.lens.run import _in_the_index, _print_best_heads  # pyright: ignore[reportPrivateUsage]
from steerlens.report.findings import _scores  # pyright: ignore[reportPrivateUsage]
from steerlens.testing.atlases import fake_atlas


@pytest.mark.parametrize(
    ("target", "ending"),
    [("the text “owl”", "the text “owl” (the input itself: 0.25): "), ("the input itself", "the input itself: ")],
)
def test_another_target_stands_beside_the_inputs_own_similarity(
    target: str, ending: str, capsys: pytest.CaptureFixture[str]
) -> None:
    atlas = fake_atlas(target=target)
    _print_best_heads(atlas, Path("report.html"))
    assert f"heads whose steered pictures are closest to {ending}" in capsys.readouterr().out


def test_counts_agree_with_their_verbs() -> None:
    assert _in_the_index(1) == "1 of the inputs is in the index; its own file is not shown"
    assert _in_the_index(2) == "2 of the inputs are in the index; their own files are not shown"
    assert [_scores(count) for count in (0, 1, 2)] == ["None scores", "1 scores", "2 score"]
