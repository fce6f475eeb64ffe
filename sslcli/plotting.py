"""matplotlib without a display, imported when a figure is drawn."""

from __future__ import annotations

import functools
from typing import Any

from sslcli.runtime import folders


@functools.cache
def prepare() -> Any:
    """The package with its own defaults: a file `matplotlibrc` in the working folder, which it reads, decides nothing (it may
    choose a backend to import, or have LaTeX run)."""
    folders.available()  # without a home it keeps its fonts there
    import matplotlib

    matplotlib.rcdefaults()
    return matplotlib


def new_figure(**options: Any) -> Any:
    """An empty figure to be saved as a file; `options` are those of `matplotlib.figure.Figure`."""
    prepare()
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(**options)
    FigureCanvasAgg(figure)
    return figure
