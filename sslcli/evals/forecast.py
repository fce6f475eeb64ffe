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
from sslcli.evals.forecasting.models import (
    MOST_ROWS,
    ChannelInputs,
    FeatureInputs,
    Inputs,
    WindowInputs,
    evenly,
    mean_errors,
    regress,
)
from sslcli.evals.forecasting.ridge import ALPHAS
from sslcli.runs import Record
from sslcli.runtime.progress import track

HORIZONS = (24, 48, 168, 336, 720)  # the customary ones of hourly data
MOST_BYTES = 8 << 30  # of features of channels


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

    A backbone with features of each channel (`channel_features`, as PatchTST's) predicts each channel from its own, by one
    regression for all channels; others predict all channels from one vector.

    `horizons`: None for 24, 48, 168, 336 and 720, as far as the parts are long enough. `alphas`: penalties, None for a grid.
    `relative`: whether features predict the change from the last value; None for whichever is better on the validation part.
    `period`: steps of the seasonal forecast, None for the largest autocorrelation of the training part. RequestError where the
    data set is not divided in time, or for settings out of range."""
    timeline = data.dataset.timeline
    if timeline is None:
        raise RequestError(
            f"{data.dataset.name} is not divided in time, which forecasts require",
            f"of series: dataset=series dataset.path=FILE {HINT}",
        )
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
            of = {"alpha": best.alpha, "relative": best.inputs.relative}
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
        "dim": own[0].dim,
        "channels": "each from its own features, by one regression"
        if own[0].dim < own[0].values
        else "all from one vector",
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


class ChannelReader(nn.Module):
    """The features of each channel as one vector (B, C * d)."""

    def __init__(self, backbone: nn.Module):
        super().__init__()
        self.backbone = backbone

    def forward(self, x: Tensor) -> Tensor:
        features: Tensor = self.backbone.channel_features(x)  # type: ignore[operator]
        return features.flatten(1)


def _features(
    backbone: nn.Module, data: EvalData, forecasts: Forecasts, shortest: int, forms: tuple[bool, ...]
) -> list[Inputs]:
    """Features of the windows before all origins of all parts, to predict values, or changes from the last ones."""
    parts: tuple[Part, ...] = ("train", "val", "test")
    origins = [forecasts.origins(part, shortest) for part in parts]
    module = backbone
    if separate := hasattr(backbone, "channel_features"):
        module = ChannelReader(backbone)
        origins[0] = evenly(origins[0], max(1, MOST_ROWS // forecasts.channels))
    known = torch.cat(origins).unique()
    if separate:
        _check_memory(module, data, forecasts, known)
    batches = clean_batches(forecasts.source(known), data.dataset, data.device, data.workers, data.batch_size)
    features, _ = concatenate(embed(module, batches, data.autocast, data.channels_last), len(known))
    if separate:
        return [ChannelInputs(forecasts, features.unflatten(1, (forecasts.channels, -1)), known)]
    return [FeatureInputs(forecasts, features, known, relative) for relative in forms]


def _check_memory(module: nn.Module, data: EvalData, forecasts: Forecasts, known: Tensor) -> None:
    """DataError where the features of all windows need more than MOST_BYTES."""
    batches = clean_batches(forecasts.source(known[:1]), data.dataset, data.device, 0, 1)
    features, _ = concatenate(embed(module, batches, data.autocast, data.channels_last), 1)
    if (needed := 4 * features.numel() * len(known)) > MOST_BYTES:
        raise DataError(
            f"the features of {len(known):,} windows of {forecasts.channels} channels need {needed / 2**30:,.0f} GiB of memory",
            "pretrain with a larger backbone.patch or a smaller backbone.width; or a shorter test part in dataset.time_split",
        )


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
    test, size = forecasts.origins("test", horizon), forecasts.channels * (horizon + forecasts.window)

    def repeat(origins: Tensor, steps: int) -> Tensor:
        return forecasts.seasonal(origins, horizon, steps)

    found = {"last": mean_errors(forecasts, test, horizon, partial(repeat, steps=1), size)}
    if period is not None:
        found["seasonal"] = mean_errors(forecasts, test, horizon, partial(repeat, steps=period), size)
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
