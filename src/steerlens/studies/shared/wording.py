"""Words of a study of features or neurons, from the words of one of heads."""

import re
from collections.abc import Callable, Sequence
from dataclasses import fields, is_dataclass, replace
from typing import Any, TypeVar, cast

from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.ticker import FixedLocator

HEADS, FEATURES, NEURONS = "heads", "features", "neurons"
"""Components of a study, as its summary names them."""

# Names of files and options keep their words: importance-heads.png, --heads.
_HEAD = re.compile(r"(?<![\w/.-])([Hh])ead(s?)(?![\w/.-]*\.\w|[-/_])(?!\w)")

_T = TypeVar("_T")


def worded(words: _T, components: str) -> _T:
    """Returns texts of a study of heads as those of a study of other components.

    Args:
        words: a text, or texts inside sequences and dataclasses.
        components: `heads`, `features` or `neurons`.
    """
    if components == HEADS:
        return words
    return cast(_T, _reworded(words, components))


def worded_by(report: Callable[..., _T], components: Callable[[Any], str]) -> Callable[..., _T]:
    """Wraps a function of a summary that gives texts, so that it names the summary's components.

    Args:
        report: the function.
        components: returns the components of a summary.
    """
    return lambda summary, *rest: worded(report(summary, *rest), components(summary))


def worded_figure(figure: Figure, components: str) -> Figure:
    """Rewrites the texts of a figure."""
    if components == HEADS:
        return figure
    for text in figure.findobj(Text):
        text.set_text(cast(str, _reworded(text.get_text(), components)))
    # Labels of ticks are written anew when the figure is drawn.
    for axis in (axis for axes in figure.axes for axis in (axes.xaxis, axes.yaxis)):
        locator, ticks = axis.get_major_locator(), axis.get_ticklabels()
        if isinstance(locator, FixedLocator) and ticks:
            labels = [cast(str, _reworded(tick.get_text(), components)) for tick in ticks]
            axis.set_ticks(axis.get_ticklocs(), labels=labels, fontsize=ticks[0].get_fontsize())
    return figure


def _reworded(words: Any, components: str) -> Any:
    if isinstance(words, str):
        noun = components.removesuffix("s")
        return _HEAD.sub(lambda match: (noun.capitalize() if match[1] == "H" else noun) + match[2], words)
    if is_dataclass(words) and not isinstance(words, type):
        texts = {field.name: getattr(words, field.name) for field in fields(words)}
        own = {
            name: _reworded(value, components) for name, value in texts.items() if isinstance(value, str | tuple | list)
        }
        return replace(words, **own)
    if isinstance(words, tuple | list):
        return type(words)(_reworded(word, components) for word in cast(Sequence[Any], words))
    return words
