"""Forecasts of what follows a window, by ridge regression on frozen features of the window, with simple forecasts beside.

The protocol of Yue et al., "TS2Vec: Towards Universal Representation of Time Series", AAAI 2022, Sec. 4.2: a regression for each
horizon, its penalty chosen on the validation part, and errors on values that are scaled by the training part. All windows of the
test part count, also the last ones.
"""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor, nn

from sslcli.data.recordings.forecasts import Forecasts, Part, complete
from sslcli.data.timeline import HINT
from sslcli.errors import DataError, RequestError
from sslcli.evals.artefacts.tables import Table
from sslcli.evals.base.embedding import clean_batches, concatenate, embed
from sslcli.evals.base.features import EvalData
from sslcli.evals.base.result import Result
from sslcli.evals.forecasting.models import FeatureInputs, Inputs, WindowInputs, mean_errors, regress
from sslcli.evals.forecasting.ridge import ALPHAS
from sslcli.runs import Record
from sslcli.runtime.progress import track

HORIZONS = (24, 48, 168, 336, 720)  # the customary ones of hourly data


def forecast(
    backbone: nn.Module,
    data: EvalData,
    *,
    horizons: list[int] | None = None,
    alphas: list[float] | float | None = None,
    period: int | None = None,
    relative: bool | None = None,
    baselines: bool = True,
) -> Result:
    """Returns `mse@H` and `mae@H` for each horizon H, in steps, and the same of simple forecasts: `linear.`, one linear map of the
    window for all channels; `last.`, the last value; `seasonal.`, the last period; and of the `untrained.` backbone.

    `horizons`: None for 24, 48, 168, 336 and 720, as far as the parts are long enough. `alphas`: penalties, None for a grid.
    `relative`: whether features predict the change from the last value; None for whichever is better on the validation part.
    `period`: steps of the seasonal forecast, None for the largest autocorrelation of the training part. RequestError where the
    data set is not divided in time, or for settings out of range."""
    timeline = data.dataset.timeline
    if timeline is None:
        raise RequestError(f"{data.dataset.name} is not divided in time, which forecasts require", HINT)
    window = data.dataset.shape[-1]
    forecasts = Forecasts(timeline, window)
    chosen, notes = _horizons(forecasts, horizons)
    grid = ALPHAS if alphas is None else tuple(alphas) if isinstance(alphas, list) else (alphas,)
    if not grid or min(grid) <= 0:
        raise RequestError(f"evaluator.alphas={alphas}: expected values above 0", "evaluator.alphas=[1,100]")
    forms = (False, True) if relative is None else (relative,)
    own = _features(backbone, data, forecasts, chosen[0], forms)
    models: dict[str, list[Inputs]] = {"": [*own]}
    if baselines:
        for name, module in data.backbones.wanted(True).items():
            models[name] = [*_features(module, data, forecasts, chosen[0], forms)]
        models["linear"] = [WindowInputs(forecasts)]
        period = _period(forecasts, period, notes)
    metrics: dict[str, float] = {}
    choices: dict[str, Record] = {}
    splits: Record = {}
    for horizon in track(chosen, "horizon"):
        found: dict[str, dict[str, float]] = {}
        for name, inputs in models.items():
            fits = [regress(one, forecasts, horizon, grid) for one in inputs]
            best = min(fits, key=lambda fit: fit.error)
            found[name] = best.test()
            of = {"alpha": best.alpha, "relative": not isinstance(best.inputs, FeatureInputs) or best.inputs.relative}
            choices.setdefault(name or "backbone", {})[str(horizon)] = of
        if baselines:
            found |= _naive(forecasts, horizon, period)
        for name, scores in found.items():
            prefix = f"{name}." if name else ""
            metrics |= {f"{prefix}{metric}@{horizon}": value for metric, value in scores.items()}
        counts = {part: len(forecasts.origins(part, horizon)) for part in ("val", "test")}
        splits = splits or {"train": best.rows, "validation": counts["val"], "test": counts["test"]}
    protocol: Record = {
        "window": window,
        "horizons": chosen,
        "scaled": "by mean and standard deviation of each channel over the training part",
        "splits": splits,
        "strength": {"chosen": choices, "chosen_by": "squared error on the validation part", "grid": list(grid)},
        "period": period,
        "dim": own[0].features.shape[1],
        "baselines": {name: {} for name in ("linear", "last", *(["seasonal"] if period else []))} if baselines else {},
        "notes": data.protocol_notes(baselines, notes),
    }
    return Result(metrics, protocol, {"errors.csv": _table(metrics, chosen)})


def _horizons(forecasts: Forecasts, wish: list[int] | None) -> tuple[list[int], list[str]]:
    """Ascending horizons for which each part has a window without missing targets."""
    given = list(HORIZONS if wish is None else wish)
    if not given or any(isinstance(h, bool) or not isinstance(h, int) or h < 1 for h in given):
        raise RequestError(f"evaluator.horizons={wish}: expected integers of at least 1", "evaluator.horizons=[24,48]")

    def fits(horizon: int) -> bool:
        origins = [forecasts.origins(part, horizon) for part in ("train", "val", "test")]
        return all(
            len(o) and bool(complete(forecasts.targets(o[:: max(1, len(o) // 1000)], horizon)).any()) for o in origins
        )

    chosen = sorted({h for h in given if fits(h)})
    left = sorted(set(given) - set(chosen))
    if not chosen or (left and wish is not None):
        raise DataError(
            f"the parts of the recordings are too short for the horizons {left} after windows of {forecasts.window} steps",
            "evaluator.horizons=[1,8] for shorter ones; or a smaller dataset.window, or other parts in dataset.time_split",
        )
    return chosen, [f"horizons left out, because a part is too short: {', '.join(map(str, left))}"] if left else []


def _features(
    backbone: nn.Module, data: EvalData, forecasts: Forecasts, shortest: int, forms: tuple[bool, ...]
) -> list[FeatureInputs]:
    """Features of the windows before all origins of all parts, to predict values, or changes from the last ones."""
    parts: tuple[Part, ...] = ("train", "val", "test")
    origins = torch.cat([forecasts.origins(part, shortest) for part in parts]).unique()
    source = forecasts.source(origins)
    batches = clean_batches(source, data.dataset, data.device, data.workers, data.batch_size)
    features, _ = concatenate(embed(backbone, batches, data.autocast, data.channels_last), len(origins))
    return [FeatureInputs(forecasts, features, origins, relative) for relative in forms]


def _period(forecasts: Forecasts, wish: int | None, notes: list[str]) -> int | None:
    if wish is not None and not 1 <= wish <= forecasts.window:
        raise RequestError(
            f"evaluator.period={wish}: expected 1 to {forecasts.window}, the steps of a window", "evaluator.period=24"
        )
    period = wish if wish is not None else forecasts.period()
    if period is None:
        notes.append("no seasonal forecast: the training part has no period (evaluator.period=24 sets one)")
    return period


def _naive(forecasts: Forecasts, horizon: int, period: int | None) -> dict[str, dict[str, float]]:
    """The errors of repeating the last value, and the last period."""
    test = forecasts.origins("test", horizon)

    def repeat(origins: Tensor, steps: int) -> Tensor:
        return forecasts.seasonal(origins, horizon, steps)

    found = {"last": mean_errors(forecasts, test, horizon, partial(repeat, steps=1))}
    if period is not None:
        found["seasonal"] = mean_errors(forecasts, test, horizon, partial(repeat, steps=period))
    return found


def _table(metrics: dict[str, float], horizons: list[int]) -> Table:
    names = list(dict.fromkeys(key.partition("@")[0].rpartition(".")[0] for key in metrics))
    rows = []
    for name in names:
        prefix = f"{name}." if name else ""
        cells = [round(metrics[f"{prefix}{metric}@{h}"], 4) for h in horizons for metric in ("mse", "mae")]
        rows.append((name or "this run", *cells))
    header = ("forecast", *(f"{metric}@{h}" for h in horizons for metric in ("mse", "mae")))
    return Table(header, rows, "errors of forecasts on all test windows, on values scaled as in training")
