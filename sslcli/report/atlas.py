"""What has to be computed for a report: the map of features with its thumbnails, and the sheet of views.

Everything is a function of the run: the same run gives the same bytes. torch is imported with this file, not before."""

from __future__ import annotations

import contextlib
import importlib.util
import warnings
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from sslcli import console
from sslcli.config import checks, schema
from sslcli.data.loading.evaluation import iterate_batches
from sslcli.data.loading.loader import Loader
from sslcli.errors import DataError, SslError
from sslcli.evals.base.features import EvalData, Split
from sslcli.evals.base.info import evaluator_info
from sslcli.evals.fit.neighbors import nearest_neighbors
from sslcli.report import thumbnails
from sslcli.report.gather import Gathered
from sslcli.rng import derive, order
from sslcli.runs import results
from sslcli.runs.files import size_of
from sslcli.runtime.folders import private_folder
from sslcli.views import Views, clean, sheet

MOST = 2_000  # samples on the map
FEWEST = 8
SHOWN = 6  # samples on the sheet of views
NEAREST = 5
STEPS = 500  # of t-SNE: from a start by PCA, 1,000 take twice as long for the same neighbourhoods
SIDE = 1000  # coordinates are whole numbers 0..SIDE
LETTER, LINE = 15, 30  # about the size of a letter of a name on the map
LABELLED_UP_TO = 25  # classes; above, names on the map would lie on each other


@dataclass
class Atlas:
    """`map`: plain JSON for the page and its script. `sprite`: all thumbnails as one picture. `views`: a PNG."""

    map: dict[str, Any] | None = None
    sprite: bytes | None = None
    views: bytes | None = None
    kinds: list[str] = field(default_factory=list)
    shape: tuple[int, ...] = ()
    sizes: dict[str, int] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def compute(run: Gathered) -> Atlas:
    """What can be made of a run that has an encoder. What cannot (data that moved, a damaged file) is told in `notes`."""
    from sslcli.evals.base.evaluated_model import load_model

    cfg = run.config
    atlas = Atlas()
    try:
        checks.check_values(cfg)
        device = asdict(schema.Device()) | cfg.get("device", {})
        values = {"seed": cfg["seed"], "device": device, "train": {**cfg["train"], "devices": 1}}
        subject = load_model(values, cfg, run.path)
        atlas.shape = subject.dataset.shape
        atlas.sizes = {"train": len(subject.dataset.train)}
        if subject.dataset.test is not None:
            atlas.sizes["test"] = len(subject.dataset.test)
        atlas.views, atlas.kinds = views_sheet(subject.dataset, cfg)
        atlas.map, atlas.sprite = feature_map(run, subject.data, subject.backbone)
        if atlas.map is None:
            atlas.notes.append(f"fewer than {FEWEST} samples: there is no map of them")
    except SslError as e:
        told = f"the map and the views could not be made: {e.message}"
        console.warn(told, e.hint)
        atlas.notes.append(told)
    return atlas


# --------------------------------------------------------------------------------------------------------------------- map


def feature_map(run: Gathered, data: EvalData, backbone: Any) -> tuple[dict[str, Any] | None, bytes | None]:
    """At most `MOST` test samples (of a set without a test split: training samples) in two dimensions."""
    split: Split = "test" if data.dataset.test is not None else "train"
    x, y = data.features(backbone, split)
    ids = data.ids(split)
    chosen = order(derive(data.seed, "map"), 0, len(x))[:MOST].sort().values
    ids, pictures = thumbnails.of(data, split, ids[chosen])
    kept = torch.isin(data.ids(split)[chosen], ids)
    chosen = chosen[kept]
    if len(chosen) < FEWEST:
        return None, None
    unit = F.normalize(x[chosen].float(), dim=1)
    _, near = nearest_neighbors(unit, unit, min(NEAREST + 1, len(unit)))
    labels = y[chosen]
    classes = names(data.dataset.classes, labels)
    source = data.source(split)
    sprite, layout = thumbnails.sprite(pictures)
    projections = project(unit.numpy(), derive(data.seed, "map") % 2**31)
    predicted, by = predictions(run, ids) if split == "test" else (None, "")
    return {
        "split": split,
        "of": len(x),
        "ids": ids.tolist(),
        "names": [short(source.names[int(i)]) for i in ids] if source.names is not None else None,
        "classes": classes,
        "labels": labels.tolist(),
        "predicted": predicted,
        "predicted_by": by,
        "near": [[j for j in row if j != i][:NEAREST] for i, row in enumerate(near.tolist())],
        "projections": [p | {"centres": centres(p["points"], labels, classes)} for p in projections],
        "sprite": layout,
    }, sprite


def names(classes: Any, labels: Tensor) -> list[str]:
    """A name for each class that there is; [] without labels."""
    count = max(len(classes), int(labels.max()) + 1) if bool((labels >= 0).any()) else 0
    return [short(str(classes[i])) if i < len(classes) else str(i) for i in range(count)]


def short(name: str, most: int = 60) -> str:
    """The end of a long name: of a path the part that tells files apart."""
    return name if len(name) <= most else f"…{name[1 - most :]}"


def project(x: np.ndarray, seed: int) -> list[dict[str, Any]]:
    """(n, d) to two dimensions in several ways, each with the trustworthiness of its neighbourhoods (Venna & Kaski 2001)."""
    from sklearn.decomposition import PCA
    from sklearn.manifold import TSNE, trustworthiness

    n, d = x.shape
    with np.errstate(invalid="ignore"):  # of collapsed features all is one point, and nothing is a share of nothing
        pca = PCA(min(n, d, 50), svd_solver="full").fit(x)
    reduced = pca.transform(x)
    flat = reduced[:, :2] if reduced.shape[1] > 1 else np.pad(reduced, ((0, 0), (0, 1)))
    seen = float(np.nan_to_num(pca.explained_variance_ratio_[:2]).sum())
    found = [("PCA", flat, f"PCA shows {100 * seen:.0f} % of the variance")]
    if (width := float(flat[:, 0].std())) > 1e-6:  # collapsed features have no neighbourhoods to keep
        perplexity = min(30.0, (n - 1) / 4)
        start = (flat / width * 1e-4).astype(np.float32)
        flat = TSNE(2, init=start, perplexity=perplexity, max_iter=STEPS, random_state=seed).fit_transform(reduced)
        found.insert(0, ("t-SNE", flat, f"t-SNE, perplexity {perplexity:g}: distances between groups mean little"))
    if importlib.util.find_spec("umap") is not None:
        import umap

        with warnings.catch_warnings():  # of one thread, because of the seed
            warnings.simplefilter("ignore")
            flat = umap.UMAP(n_neighbors=min(15, n - 1), random_state=seed, n_jobs=1).fit_transform(reduced)
        found.append(("UMAP", flat, "UMAP: distances between groups mean little"))
    k = min(10, (n - 1) // 2)
    return [
        {"name": name, "points": placed(flat), "note": f"{note}; trustworthiness {trusted:.2f}"}
        for name, flat, note in found
        for trusted in [trustworthiness(x, flat, n_neighbors=k, metric="cosine")]
    ]


def placed(flat: np.ndarray) -> list[list[int]]:
    """Into the square 0..SIDE, one scale for both axes."""
    low, high = flat.min(axis=0), flat.max(axis=0)
    scale = float((high - low).max()) or 1.0
    moved = (flat - (low + high) / 2) / scale + 0.5
    moved[:, 1] = 1 - moved[:, 1]
    return np.rint(moved * SIDE).astype(int).tolist()


def centres(points: list[list[int]], labels: Tensor, classes: list[str]) -> list[list[int]]:
    """[class, x, y] of where each class's name stands: at the sample nearest to the median of its class, moved down where
    another name is in its way. [] where there are too many."""
    if not 0 < len(classes) <= LABELLED_UP_TO:
        return []
    at = np.asarray(points)
    found: list[list[int]] = []
    for c, name in enumerate(classes):
        own = at[labels.numpy() == c]
        if len(own):
            middle = np.median(own, axis=0)
            x, y = own[((own - middle) ** 2).sum(axis=1).argmin()].tolist()
            half = min(LETTER * len(name) // 2, SIDE // 2)
            found.append([c, min(max(x, half), SIDE - half), y])
    placed: list[list[int]] = []
    for c, x, y in sorted(found, key=lambda f: f[2]):
        for other, ox, oy in placed:
            near = abs(x - ox) < LETTER * (len(classes[c]) + len(classes[other])) / 2
            y = oy + LINE if near and y < oy + LINE else y
        placed.append([c, x, min(y, SIDE)])
    return sorted(placed)


def predictions(run: Gathered, ids: Tensor) -> tuple[list[int] | None, str]:
    """The classes that the first evaluator with saved predictions assigned to these samples, in its first draw of labels, and
    its title; -1 for samples without a prediction."""
    from sslcli.evals.artefacts.predictions import FILE, read

    usable = [  # of this test split; of one evaluator all labels come before few
        kept
        for kept in results.kept(run.path).values()
        if evaluator_info(kept.evaluator).ranks_runs and not kept.dataset and not kept.labels.lower().endswith(".csv")
    ]
    for kept in sorted(usable, key=lambda kept: evaluator_info(kept.evaluator).order):
        if size_of(run.path, kept.beside(FILE)) is None:
            continue
        try:
            found = read(run.path, kept.beside(FILE))
        except DataError as e:
            run.notes.append(e.message)
            continue
        known = dict(zip(found.ids.tolist(), found.predicted[0].tolist(), strict=True))
        return [known.get(i, -1) for i in ids.tolist()], evaluator_info(kept.evaluator).title
    return None, ""


# ------------------------------------------------------------------------------------------------------------------- views


def views_sheet(dataset: Any, cfg: dict[str, Any]) -> tuple[bytes | None, list[str]]:
    """The first samples of the run's first batch as it saw them, beside their sources: a PNG, and the kinds of the views."""
    maker = Views(cfg["method"].get("plan") or {}, cfg["augmentation"], dataset)
    count = min(SHOWN, len(dataset.pretrain))
    loader = Loader(dataset.pretrain, maker, batch_size=count, seed=cfg["seed"])
    with contextlib.closing(loader.stream(0)) as stream:
        batch = next(stream)
    found: dict[int, Tensor] = {}
    plain = clean(dataset)
    for got, x in iterate_batches(dataset.pretrain, plain, batch_size=count, device="cpu", workers=0, ids=batch.ids):
        found.update(zip(got.tolist(), plain.restore([x])[0], strict=True))
    views = maker.restore(batch.views)
    rows = [[found[i], *(view[j] for view in views)] for j, i in enumerate(batch.ids.tolist()) if i in found]
    if not rows:
        return None, maker.kinds
    with private_folder() as folder:
        path = folder / "views.png"
        sheet(path, rows, ["source", *titles(maker.kinds)])
        return path.read_bytes(), maker.kinds


def titles(kinds: list[str]) -> list[str]:
    """`global 1`, `global 2`, `local`."""
    return [f"{k} {kinds[: i + 1].count(k)}" if kinds.count(k) > 1 else k for i, k in enumerate(kinds)]
