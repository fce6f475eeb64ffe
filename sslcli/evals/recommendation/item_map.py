"""A map of items by their embeddings, with the names of the most popular ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sslcli.console import escape
from sslcli.plotting import new_figure
from sslcli.runs.files import replacing
from sslcli.views.preview.base import INK, PAPER

NAMED = 40  # items whose names are written, at most
WIDE, HIGH = 0.2, 0.022  # of the map, the place of a name
LONGEST = 24  # characters of a name


@dataclass
class ItemMap:
    """names: of n items, the most popular first. vectors: (n, d) their embeddings; those with a small cosine distance are close to
    each other on the map, a t-SNE."""

    names: Sequence[str]
    vectors: np.ndarray
    seed: int = 0

    @property
    def caption(self) -> str:
        return (
            f"the {len(self.names)} most popular items by their embeddings (t-SNE); names where there is room for them"
        )

    def points(self) -> np.ndarray:
        """(n, 2)"""
        from sklearn.manifold import TSNE

        unit = self.vectors / np.maximum(np.linalg.norm(self.vectors, axis=1, keepdims=True), 1e-12)
        perplexity = max(1.0, min(15.0, (len(unit) - 1) / 4))
        tsne = TSNE(2, perplexity=perplexity, init="pca", max_iter=500, random_state=self.seed % 2**31)
        out: np.ndarray = tsne.fit_transform(unit.astype(np.float32))
        return out

    def save(self, path: Path) -> None:
        points = self.points()
        figure = new_figure(figsize=(7.2, 6.0), dpi=150, facecolor=PAPER, layout="constrained")
        axes = figure.subplots()
        axes.scatter(points[:, 0], points[:, 1], s=7, color="#2f6690", alpha=0.6, linewidths=0)
        for i in apart(points)[:NAMED]:
            text, point = escape(self.names[i]), points[i].tolist()
            text = text if len(text) <= LONGEST else f"{text[: LONGEST - 1]}…"
            axes.annotate(
                text, point, fontsize=6.5, color=INK, xytext=(3, 2), textcoords="offset points", parse_math=False
            )
        axes.set_xticks([])
        axes.set_yticks([])
        axes.spines[:].set_visible(False)
        axes.set_facecolor("white")
        with replacing(path) as temporary:
            figure.savefig(temporary, format="png")


def apart(points: np.ndarray) -> list[int]:
    """The points (n, 2) whose names do not overlap those of the ones before."""
    room = np.array([WIDE, HIGH]) * np.maximum(np.ptp(points, axis=0), 1e-12)
    chosen: list[int] = []
    for i, point in enumerate(points):
        if not chosen or bool((np.abs(points[chosen] - point) >= room).any(axis=1).all()):
            chosen.append(i)
    return chosen
