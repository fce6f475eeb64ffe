"""k-NN regression of the task `value` on frozen features: the weighted mean of the values of the nearest neighbors.

The neighbors and their weights are those of the classifier (`sslcli/evals/knn.py`): by cosine similarity, and
exp(similarity / temperature).
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F

from sslcli.evals.artefacts.value_plot import ValuePlot
from sslcli.evals.base.features import EvalData
from sslcli.evals.base.result import Baselines, Result
from sslcli.evals.fit.neighbors import mean_values
from sslcli.evals.inputs import label_subsets as subsets
from sslcli.evals.regression.values import ValueOutputs, ValueScores, field_outputs, predict_test
from sslcli.runs import Record


def value_knn(
    backbone: nn.Module,
    data: EvalData,
    amount: subsets.Amount,
    draws: int,
    k: int,
    temperature: float,
    baselines: Baselines,
    notes: list[str],
) -> Result:
    """`rmse`, `mae` and `r2` on the test split, and the same of the baselines; with several draws of labels each with `_std`."""
    scores = ValueScores(data.seed)
    protocol: Record = {
        "task": "value",
        "labels": str(amount),
        "seeds": draws,
        "std": "standard deviation over draws (n - 1)",
        "k": k,
        "temperature": temperature,
        "baselines": {},
    }
    artefacts: dict[str, Any] = {}
    for kind, features in data.feature_sets(backbone, baselines).items():
        (x, _), (x_test, _) = features("train"), features("test")
        outputs = _predict(x, x_test, data, amount, draws, k, temperature)
        scores.add(kind, outputs)
        if kind == "":
            protocol["dim"] = x.shape[1]
            protocol["splits"] = {"train": len(x), "labelled": outputs.labeled, "test": len(outputs.y)}
            artefacts = {
                "values.png": ValuePlot(outputs.y, outputs.predicted[0]),
                "values.csv": outputs.table(data),
            }
            if k > outputs.labeled:
                notes.append(f"k={k} is more than the {outputs.labeled} labeled training samples: all of them are used")
    for name, note, outputs in field_outputs(data, amount, draws, baselines):
        scores.add(name, outputs)
        protocol["baselines"][name] = {"note": note}
    protocol["notes"] = data.protocol_notes(baselines, notes + scores.notes)
    details = {"draws": scores.draws.pop(""), "baselines": scores.draws}
    return Result(scores.metrics, protocol, artefacts, details, scores.intervals)


def _predict(
    train: Tensor, test: Tensor, data: EvalData, amount: subsets.Amount, draws: int, k: int, temperature: float
) -> ValueOutputs:
    def fit(index: int, rows: Tensor, y: Tensor, tested: Tensor) -> Tensor:
        bank, queries = F.normalize(train[rows], dim=1), F.normalize(test[tested], dim=1)
        return mean_values(bank, y, queries, k, temperature, data.device)

    return predict_test(data, amount, draws, fit)
