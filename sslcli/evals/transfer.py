"""Transfer: linear probe and k-NN classifier on another data set than that of the pretraining.

Linear protocol of Kornblith, Shlens & Le, "Do Better ImageNet Models Transfer Better?", CVPR 2019. Images have the size, channels
and normalization of the pretraining; only the classifiers use the new labels.
"""

from __future__ import annotations

from typing import Any

from torch import nn

from sslcli.errors import RequestError
from sslcli.evals.base.features import EvalData
from sslcli.evals.base.result import Baselines, Result
from sslcli.evals.classifier.class_weight import ClassWeight
from sslcli.evals.knn import knn
from sslcli.evals.metrics.interval import Interval
from sslcli.evals.probe import probe


def transfer(
    backbone: nn.Module,
    data: EvalData,
    *,
    labels: str | int = "all",
    seeds: int = 1,
    k: int = 20,
    temperature: float = 0.1,
    strengths: list[float] | float | None = None,
    baselines: Baselines = True,
    class_weight: ClassWeight = None,
) -> Result:
    """Returns the metrics of `probe` and `knn` under these prefixes (`probe.top1`, `knn.top1`; `probe.r2`, `knn.r2` of a
    value), with `raw.` and `untrained.`. `class_weight`: of the probe and its baselines, see `probe`; neighbors are not weighted.

    Raises RequestError where the data set is that of the pretraining.
    """
    if not data.trained_on:
        raise RequestError(
            f"{data.dataset.name} is the data set that this backbone was trained on"
            if data.untrained is not None
            else "an untrained backbone has nothing to transfer",
            "name a run and another data set: sslcli eval transfer run=RUN dataset=NAME (`sslcli list datasets`)",
        )
    results = {
        "probe": probe(
            backbone,
            data,
            labels=labels,
            seeds=seeds,
            strengths=strengths,
            baselines=baselines,
            calibrate=False,
            class_weight=class_weight,
        ),
        "knn": knn(backbone, data, labels=labels, seeds=seeds, k=k, temperature=temperature, baselines=baselines),
    }
    metrics: dict[str, float] = {}
    artefacts: dict[str, Any] = {}
    intervals: dict[str, Interval] = {}

    def renamed(name: str, key: str) -> str:
        kind, _, rest = key.rpartition(".")
        return f"{kind}.{name}.{rest}" if kind else f"{name}.{rest}"

    for name, result in results.items():
        metrics |= {renamed(name, key): value for key, value in result.metrics.items()}
        intervals |= {renamed(name, key): interval for key, interval in result.intervals.items()}
        artefacts |= {f"{name}_{file}": artefact for file, artefact in result.artefacts.items()}
    probe_protocol, knn_protocol = (result.protocol for result in results.values())
    shared = {
        k: v for k, v in probe_protocol.items() if k != "notes" and k in knn_protocol and knn_protocol[k] == v
    }  # settings that both share
    own = [] if class_weight is None else [f"{class_weight} class weights are those of the probe; k-NN is not weighted"]
    protocol = {
        "from": data.trained_on,
        "to": data.dataset.name,
        "class_weight": class_weight,
        **shared,
        **{
            n: {k: v for k, v in r.protocol.items() if k not in (*shared, "notes", "class_weight")}
            for n, r in results.items()
        },
        "notes": [*dict.fromkeys(note for result in results.values() for note in result.protocol["notes"]), *own],
    }
    details = {name: result.details for name, result in results.items()}
    return Result(metrics, protocol, artefacts, details, intervals)
