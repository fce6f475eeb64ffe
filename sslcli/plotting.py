"""matplotlib without a display, imported on first use."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sslcli.runtime import folders

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LEVELS = 10  # shades of heat in the stylesheet of a report


@functools.cache
def prepare() -> Any:
    """matplotlib with its default settings: a `matplotlibrc` in the working folder is ignored (it could select a backend to
    import, or run LaTeX)."""
    folders.available()  # without a home folder it caches fonts there
    import matplotlib

    matplotlib.rcdefaults()
    return matplotlib


def new_figure(**options: Any) -> Figure:
    """An empty figure for saving to a file; `options` are those of `matplotlib.figure.Figure`."""
    prepare()
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(**options)
    FigureCanvasAgg(figure)
    return figure


@functools.cache
def font(size: int, bold: bool = False) -> Any:
    """A PIL font: matplotlib brings one that has most alphabets."""
    from PIL import ImageFont

    name = "DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf"
    return ImageFont.truetype(str(Path(prepare().get_data_path()) / "fonts" / "ttf" / name), size)


def heat_class(weight: float) -> str:
    """The class of the stylesheet of a report, heat-0 to heat-9, that has the color of a weight in 0..1. The policy of a report
    forbids `style` attributes."""
    return f"heat-{min(LEVELS - 1, max(0, int(weight * LEVELS)))}"
