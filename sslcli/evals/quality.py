"""Label-free quality metrics of frozen features.

The metrics and their sources are in `metrics.geometry`; `metrics.ranking` states which are better when larger.
"""

from __future__ import annotations

import math

from torch import Tensor, nn

from sslcli.errors import RequestError
from sslcli.evals.base.features import EvalData
from sslcli.evals.base.result import Baselines, Result
from sslcli.evals.metrics.geometry import alignment, alpha_req, learnability, lidar, rankme, two_nn, uniformity
from sslcli.nn.stats import spread
from sslcli.rng import derive, order
from sslcli.runs import Record

ENOUGH = 25_600  # samples, as in RankMe's paper
KIND = "global"  # of views
FEWEST = 20  # samples for metrics of neighbors and clusters


def quality(
    backbone: nn.Module,
    data: EvalData,
    *,
    samples: int = ENOUGH,
    points: int = 10_000,
    groups: int = 1_000,
    views: int = 10,
    delta: float = 1e-4,
    baselines: Baselines = True,
) -> Result:
    """Returns label-free metrics of training features, each also as `untrained.`. No label is read.

    Of `samples` clean samples: `rankme`, `alpha_req`, `spread`. Of `points` of them: `learnability` and `intrinsic_dim`, the
    two terms of CLID. Of `views` augmented views of each of `groups` samples: `lidar`; of the first two views: `alignment`
    and `uniformity` (the mean over both views).

    Deviations: all metrics are of the backbone, which is used downstream, where the papers of RankMe and LiDAR use the
    output of the projector. LiDAR has few and small groups, to be fast on a CPU; its value grows with both, so compare equal
    settings only. CLID adds its terms after standardizing them over the compared models, which `sslcli select` does.
    Raises RequestError for settings out of range.
    """
    for name, value, least in (("samples", samples, 2), ("points", points, FEWEST), ("groups", groups, 2)):
        if value < least:
            raise RequestError(f"evaluator.{name}={value}: expected at least {least}", f"evaluator.{name}=1000")
    if views < 2:
        raise RequestError(f"evaluator.views={views}: expected at least 2", "evaluator.views=10")
    if not delta > 0:
        raise RequestError(f"evaluator.delta={delta}: expected a value above 0", "evaluator.delta=1e-4")
    metrics: dict[str, float] = {}
    notes: list[str] = []
    protocol: Record = {}
    has_views = _has_views(data, notes)
    models = {"": backbone, **data.backbones.wanted(baselines)}
    for kind, features in data.feature_sets(backbone, baselines).items():
        if kind == "raw":  # raw inputs cannot collapse
            continue
        x, _ = features("train")
        shuffled = order(derive(data.seed, "quality"), 0, len(x))
        x = x[shuffled[:samples]]
        values = {"rankme": rankme(x), "alpha_req": alpha_req(x), "spread": float(spread(x))}
        settings = {"split": "train", "samples": len(x), "dim": x.shape[1]}
        if len(x) < 10 * x.shape[1]:
            notes.append(
                f"{len(x)} samples of {x.shape[1]} features: RankMe is biased low with fewer than ten samples per feature"
            )
        subset = x[:points]
        if len(subset) < FEWEST:
            notes.append(f"{len(subset)} samples are too few for learnability and intrinsic_dim")
        else:
            values["learnability"] = learnability(subset, data.seed)
            if math.isfinite(dimension := two_nn(subset)):
                values["intrinsic_dim"] = dimension
            else:
                notes.append("too many samples with equal features: no intrinsic_dim")
            settings["points"] = len(subset)
        if has_views:
            model = models[kind]
            assert model is not None
            ids = data.ids("train")[shuffled[:groups]]
            z, _ = data.augmented(model, ids, views, "train", KIND)
            values |= view_metrics(z, delta)
            settings |= {"groups": len(z), "views": views, "kind": KIND, "delta": delta}
        metrics |= {f"{kind}.{name}" if kind else name: value for name, value in values.items()}
        if kind == "":
            protocol = settings
    protocol["notes"] = data.protocol_notes(baselines, notes)
    return Result(metrics, protocol)


def view_metrics(z: Tensor, delta: float) -> dict[str, float]:
    """Metrics of the features (m, views, d) of augmented views."""
    return {
        "lidar": lidar(z, delta),
        "alignment": alignment(z[:, 0], z[:, 1]),
        "uniformity": (uniformity(z[:, 0]) + uniformity(z[:, 1])) / 2,
    }


def _has_views(data: EvalData, notes: list[str]) -> bool:
    """Whether the augmentation has a recipe for global views."""
    if data.recipes and data.recipes.get(KIND):
        return True
    notes.append(f"no lidar, alignment and uniformity: the augmentation changes nothing (no recipe `{KIND}`)")
    return False
