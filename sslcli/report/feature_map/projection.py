"""Features in two dimensions: PCA, t-SNE and, where it is installed, UMAP."""

from __future__ import annotations

import importlib.util
import warnings

import numpy as np
from torch import Tensor

from sslcli.runs import Record

STEPS = 500  # of t-SNE: from a start by PCA, 1,000 take twice as long for the same neighborhoods
SIDE = 1000  # coordinates are integers 0..SIDE
LETTER, LINE = 15, 30  # about the size of a letter of a name on the map
LABELLED_UP_TO = 25  # classes; above, names on the map would overlap


def project(x: np.ndarray, seed: int) -> list[Record]:
    """(n, d) to two dimensions in several ways, each with the trustworthiness of its neighborhoods (Venna & Kaski 2001)."""
    from sklearn.decomposition import PCA
    from sklearn.manifold import TSNE, trustworthiness

    n, d = x.shape
    with np.errstate(invalid="ignore"):  # collapsed features have variance 0, whose explained share is 0 / 0
        pca = PCA(min(n, d, 50), svd_solver="full").fit(x)
    reduced = pca.transform(x)
    flat = reduced[:, :2] if reduced.shape[1] > 1 else np.pad(reduced, ((0, 0), (0, 1)))
    seen = float(np.nan_to_num(pca.explained_variance_ratio_[:2]).sum())
    projections = [("PCA", flat, f"PCA shows {100 * seen:.0f} % of the variance")]
    if (width := float(flat[:, 0].std())) > 1e-6:  # collapsed features have no neighborhoods to preserve
        perplexity = min(30.0, (n - 1) / 4)
        start = (flat / width * 1e-4).astype(np.float32)
        flat = TSNE(2, init=start, perplexity=perplexity, max_iter=STEPS, random_state=seed).fit_transform(reduced)
        projections.insert(
            0, ("t-SNE", flat, f"t-SNE, perplexity {perplexity:g}: distances between groups mean little")
        )
    if importlib.util.find_spec("umap") is not None:
        import umap

        with warnings.catch_warnings():  # that a seed limits UMAP to one thread
            warnings.simplefilter("ignore")
            flat = umap.UMAP(n_neighbors=min(15, n - 1), random_state=seed, n_jobs=1).fit_transform(reduced)
        projections.append(("UMAP", flat, "UMAP: distances between groups mean little"))
    k = min(10, (n - 1) // 2)
    return [
        {"name": name, "points": scale_to_square(flat), "note": f"{note}; trustworthiness {trusted:.2f}"}
        for name, flat, note in projections
        for trusted in [trustworthiness(x, flat, n_neighbors=k, metric="cosine")]
    ]


def scale_to_square(flat: np.ndarray) -> list[list[int]]:
    """Integer coordinates in the square 0..SIDE, with one scale for both axes."""
    low, high = flat.min(axis=0), flat.max(axis=0)
    scale = float((high - low).max()) or 1.0
    moved = (flat - (low + high) / 2) / scale + 0.5
    moved[:, 1] = 1 - moved[:, 1]
    return np.rint(moved * SIDE).astype(int).tolist()


def label_positions(points: list[list[int]], labels: Tensor, classes: list[str]) -> list[list[int]]:
    """[class, x, y] of each class's name: at the sample nearest to the median of its class, moved down where it would overlap
    another name. [] for more than `LABELLED_UP_TO` classes."""
    if not 0 < len(classes) <= LABELLED_UP_TO:
        return []
    at = np.asarray(points)
    positions: list[list[int]] = []
    for c, name in enumerate(classes):
        members = at[labels.numpy() == c]
        if len(members):
            middle = np.median(members, axis=0)
            x, y = members[((members - middle) ** 2).sum(axis=1).argmin()].tolist()
            half = min(LETTER * len(name) // 2, SIDE // 2)
            positions.append([c, min(max(x, half), SIDE - half), y])
    placed: list[list[int]] = []
    for c, x, y in sorted(positions, key=lambda f: f[2]):
        for other, ox, oy in placed:
            near = abs(x - ox) < LETTER * (len(classes[c]) + len(classes[other])) / 2
            y = oy + LINE if near and y < oy + LINE else y
        placed.append([c, x, min(y, SIDE)])
    return sorted(placed)
