# SPDX-License-Identifier: Apache-2.0
"""The plots of a run."""

import sys
from pathlib import Path

import cv2
import pytest
from test_evaluation_runner import _DriftingSpec, make_sequence

from dimp_ros.evaluation.plots import PLOTS, draw_plot, write_plots
from dimp_ros.evaluation.report import TrackerFigures, summarize
from dimp_ros.evaluation.runner import run_pairs

NAMES = {"worst": (9.0, 9.0), "ours": (3.0, 2.0), "middle": (4.0, 2.0)}


@pytest.fixture
def figures(tmp_path: Path) -> list[TrackerFigures]:
    sequence = make_sequence(tmp_path)
    specs = [_DriftingSpec(name, step=step) for name, step in NAMES.items()]
    return summarize(list(run_pairs(specs, [sequence])), [sequence])


@pytest.fixture
def axes() -> object:
    return pytest.importorskip("matplotlib.figure", reason="matplotlib is not installed").Figure().add_subplot()


@pytest.mark.parametrize("plot", PLOTS, ids=lambda plot: plot.curve)
def test_the_legend_is_sorted_by_the_score_that_it_shows(figures: list[TrackerFigures], axes, plot) -> None:
    draw_plot(axes, plot, figures, ["ours"])

    texts = [text.get_text() for text in axes.get_legend().get_texts()]
    assert [text.split()[1] for text in texts] == ["ours", "middle", "worst"]
    scores = [float(text.split()[0]) for text in texts]
    assert scores[0] > 90 and scores == sorted(scores, reverse=True)
    assert axes.get_legend().get_texts()[0].get_fontweight() == "bold"


def test_curves_are_distinct_and_ours_is_emphasised(figures: list[TrackerFigures], axes) -> None:
    draw_plot(axes, PLOTS[0], figures, ["ours"])

    lines = {line.get_label().split()[1]: line for line in axes.get_lines()}
    assert len({(line.get_color(), line.get_linestyle()) for line in lines.values()}) == 3
    assert lines["ours"].get_linewidth() > lines["worst"].get_linewidth()
    assert lines["ours"].get_zorder() > lines["worst"].get_zorder()
    assert lines["ours"].get_ydata() == pytest.approx([100.0] * 20 + [0.0])


def test_three_images_are_written_without_a_display(
    figures: list[TrackerFigures], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("matplotlib", reason="matplotlib is not installed")
    monkeypatch.delenv("DISPLAY", raising=False)

    paths = write_plots(tmp_path / "plots", figures)

    assert [path.name for path in paths] == ["success.png", "precision.png", "normalized_precision.png"]
    for path in paths:
        assert cv2.imread(str(path)).std() > 10  # something is drawn


def test_without_matplotlib_the_remedy_is_named(
    figures: list[TrackerFigures], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)

    with pytest.raises(ImportError, match="pip install matplotlib"):
        write_plots(tmp_path, figures)
