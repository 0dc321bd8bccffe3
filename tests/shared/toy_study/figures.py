"""Figure of the brightness study, drawn from its summary."""

from matplotlib.figure import Figure

from toy_study.summary import BrightnessSummary


def similarity_figure(summary: BrightnessSummary) -> Figure:
    """Draws the mean similarity as a bar."""
    figure = Figure(figsize=(2, 2))
    figure.subplots().bar([0], [summary.similarity.value])
    return figure
