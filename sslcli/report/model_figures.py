"""Figures of a report that need the model: the map of features with thumbnails, and the sheet of views.

Everything is a function of the run: the same run gives the same bytes. torch is imported with this file, not before."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING

from sslcli import console
from sslcli.config import Config, checks, schema
from sslcli.data.loading.loader import Loader
from sslcli.errors import SslError
from sslcli.report.feature_map.feature_map import FEWEST, FeatureMap, feature_map
from sslcli.report.run_contents import RunContents
from sslcli.runtime.folders import private_folder
from sslcli.training.method_images import save_views
from sslcli.views import Views

if TYPE_CHECKING:
    from sslcli.data.dataset import Dataset

SHOWN = 6  # samples on the sheet of views


@dataclass
class ModelFigures:
    """`views`: a PNG."""

    map: FeatureMap | None = None
    views: bytes | None = None
    kinds: list[str] = field(default_factory=list)
    sizes: dict[str, int] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def compute(run: RunContents) -> ModelFigures:
    """Computes the figures of a run with an encoder. Failures (data moved, corrupt file) are listed in `notes`."""
    from sslcli.evals.base.evaluated_model import load_model

    cfg = run.config
    atlas = ModelFigures()
    try:
        checks.check_values(cfg)
        device = asdict(schema.Device()) | cfg.get("device", {})
        values = {"seed": cfg["seed"], "device": device, "train": {**cfg["train"], "devices": 1}}
        subject = load_model(values, cfg, run.path)
        atlas.sizes = {"train": len(subject.dataset.train)}
        if subject.dataset.test is not None:
            atlas.sizes["test"] = len(subject.dataset.test)
        atlas.views, atlas.kinds = views_sheet(subject.dataset, cfg)
        atlas.map = feature_map(run, subject.data, subject.backbone)
        if atlas.map is None:
            atlas.notes.append(f"fewer than {FEWEST} samples: there is no map of them")
    except SslError as e:
        failure = f"the map and the views could not be computed: {e.message}"
        console.warn(failure, e.hint)
        atlas.notes.append(failure)
    return atlas


def views_sheet(dataset: Dataset, cfg: Config) -> tuple[bytes | None, list[str]]:
    """The first samples of the first batch beside their views: a PNG, and the kinds of the views."""
    views = Views(cfg["method"].get("plan") or {}, cfg["augmentation"], dataset)
    loader = Loader(dataset.pretrain, views, batch_size=min(SHOWN, len(dataset.pretrain)), seed=cfg["seed"])
    with private_folder() as folder:
        path = folder / "views.png"
        return path.read_bytes() if save_views(loader, dataset, path) else None, views.kinds
