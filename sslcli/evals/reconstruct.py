"""Reconstruction error of a method on test samples, with baselines without learning.

For methods with `reconstruct` (autoencoders, masked autoencoders). Errors are squared differences, in the unit of the modality:
of images pixels of 0..1, of series standard deviations of the channel. A masked method is judged on what was hidden from it.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from sslcli.errors import RequestError
from sslcli.evals.artefacts.sample_grid import Columns
from sslcli.evals.base.features import EvalData, Split
from sslcli.evals.base.result import Result
from sslcli.methods.base import Batch, Method, Reconstruction
from sslcli.nn.values import Values
from sslcli.rng import Draw, derive, order
from sslcli.runs import Record
from sslcli.views import previews
from sslcli.views.modality import Modality, modality
from sslcli.views.preview.base import Preview, align

MASKS = 4  # draws of what is hidden from a masked method
MEAN_FROM = 10_000  # training samples whose mean is the simplest guess
SHOWN = 8
BEST_PSNR = 100.0  # dB; an error of nothing would be infinite


def reconstruct(backbone: nn.Module, data: EvalData, *, masks: int = MASKS, max_samples: int = 10_000) -> Result:
    """`mse` and, for images, `psnr` on the test split, beside `mean.`: the mean of the training samples, value by value.

    Of a masked method the errors are those of what was hidden; `whole.` is the sample with its visible part left as it was,
    `visible.` guesses the mean of what is visible of the sample, and `interpolated.` what lies between it. Where each
    patch was normalized by its own mean and std (MAE's `norm_pix`), these are unknown to whoever sees the visible part alone:
    `mse` takes them interpolated from there, and `normalised.mse` is the error in the method's own units, in which 1 is
    about the patch's own mean.

    psnr is -10 log10 of the mean error, in dB. `backbone` is not used: the method has its own.
    """
    if masks < 1 or max_samples < 1:
        raise RequestError("evaluator.masks and evaluator.max_samples must be at least 1", "evaluator.masks=4")
    split = data.eval_split
    source = data.source(split)
    method = _method(data)
    ids = order(derive(data.seed, "reconstruct"), 0, len(source))[:max_samples].sort().values
    kind, values = modality(data.dataset.modality), data.dataset.values
    mean, counted = _mean(data)
    errors: dict[str, dict[str, _Mean]] = defaultdict(lambda: defaultdict(_Mean))  # by guess and metric
    n = draws = 0
    for mask, _, reconstruction in _reconstructions(data, method, split, ids, masks):
        n, draws = n + (len(reconstruction.source) if mask == 0 else 0), max(draws, mask + 1)
        for name, (guess, where) in _guesses(reconstruction, mean, kind, values).items():
            for metric, error in kind.errors(guess, reconstruction.source, values).items():
                errors[name][metric].add(error, where)
        if reconstruction.mean is not None:
            errors["normalised"]["mse"].add(reconstruction.error(), None)
    metrics: dict[str, float] = {}
    for name, by_metric in errors.items():
        prefix = f"{name}." if name else ""
        metrics |= {f"{prefix}{metric}": error.value for metric, error in by_metric.items()}
        if kind.psnr and name != "normalised":
            metrics[f"{prefix}psnr"] = psnr(by_metric["mse"].value)
    protocol: Record = {
        "method": type(method).__name__,
        "split": split,
        "samples": n,
        "unit": kind.unit,
        "judged": "what was hidden" if "whole" in errors else "the whole sample",
        "masks": draws,
        "mean_from": counted,
        "baselines": {
            name: {
                "note": "the mean of training samples" if name == "mean" else "from the visible part, without learning"
            }
            for name in errors
            if name not in ("", "whole", "normalised")
        },
        "notes": [*data.notes, *_notes(method, "normalised" in errors)],
    }
    return Result(metrics, protocol, {"samples.png": _sheet(data, method, ids)})


def errors(data: EvalData, split: Split) -> tuple[Tensor, Tensor]:
    """(n,) mean squared error of each sample of a split in the method's own units, and their ids (n,), both on the CPU.

    Of masked methods over what was hidden, in four draws of masks that are functions of `data.seed` and the sample.
    RequestError where the run's method does not reconstruct.
    """
    method = _method(data)
    at_most = len(data.source(split))
    total, count = torch.zeros(at_most, dtype=torch.float64), torch.zeros(at_most, dtype=torch.float64)
    seen: list[Tensor] = []
    for mask, ids, reconstruction in _reconstructions(data, method, split, None, MASKS):
        error = reconstruction.error().flatten(1)
        known = ~torch.isnan(error)
        total[ids] += error.nan_to_num(0.0).sum(dim=1, dtype=torch.float64).cpu()
        count[ids] += known.sum(dim=1).cpu()
        if mask == 0:
            seen.append(ids)
    ids = torch.cat(seen)
    return (total[ids] / count[ids].clamp(min=1)).float(), ids


def reconstructs(data: EvalData) -> bool:
    """Whether the run's method reconstructs, so that `errors` is available."""
    if data.pretraining is None:
        return False
    method, _ = data.pretraining()
    return method.reconstructs


def psnr(mse: float) -> float:
    """Of images in 0..1, in dB; at most 100."""
    return min(BEST_PSNR, -10 * math.log10(mse)) if mse > 0 else BEST_PSNR


def _method(data: EvalData) -> Method:
    hint = "sslcli pretrain method=mae, or method=autoencoder"
    if data.pretraining is None:
        raise RequestError("an untrained backbone reconstructs nothing", hint)
    method, _ = data.pretraining()
    if not method.reconstructs:
        raise RequestError(f"{type(method).__name__} does not reconstruct", hint)
    return method


def _reconstructions(
    data: EvalData, method: Method, split: Split, ids: Tensor | None, masks: int
) -> Iterator[tuple[int, Tensor, Reconstruction]]:
    """(number of the mask, ids, reconstruction) by batch; one mask where nothing is hidden."""
    seed = derive(data.seed, "reconstruct")
    for part, x in data.batches(split, ids):
        for mask in range(masks):
            with torch.no_grad(), data.autocast():
                reconstruction = method.reconstruct(Batch([x], ["clean"], Draw(seed, mask, part.to(x.device))))
            assert reconstruction is not None
            yield mask, part, reconstruction
            if reconstruction.hidden is None:
                break


def _guesses(
    reconstruction: Reconstruction, mean: Tensor, kind: Modality, values: Values
) -> dict[str, tuple[Tensor, Tensor | None]]:
    """Who guesses what, in the units of the view, and where it is judged (None: everywhere)."""
    x, hidden = reconstruction.source, reconstruction.hidden
    predicted = reconstruction.predicted.float()
    mean = mean.to(x.device).expand_as(x)
    if hidden is None:
        return {"": (predicted, None), "mean": (mean, None)}
    visible = ~hidden & values.present(x)
    if reconstruction.mean is not None and reconstruction.std is not None:
        predicted = predicted * kind.interpolate(reconstruction.std, visible)
        predicted = predicted + kind.interpolate(reconstruction.mean, visible)
    return {
        "": (predicted, hidden),
        "whole": (torch.where(hidden, predicted, x), None),
        "mean": (mean, hidden),
        **{name: (guess, hidden) for name, guess in kind.trivial(x, visible, values).items()},
    }


class _Mean:
    """The mean of what is known (not NaN) of many tensors, at the positions of a mask."""

    def __init__(self) -> None:
        self.total, self.count = 0.0, 0

    def add(self, x: Tensor, where: Tensor | None) -> None:
        known = ~torch.isnan(x) if where is None else where & ~torch.isnan(x)
        self.total += float(torch.where(known, x, 0.0).sum(dtype=torch.float64))
        self.count += int(known.sum())

    @property
    def value(self) -> float:
        return self.total / max(1, self.count)


def _mean(data: EvalData) -> tuple[Tensor, int]:
    """The modality's constant guess (1, *shape), and the number of training samples that it is from."""
    ids = order(derive(data.seed, "reconstruct", "mean"), 0, len(data.source("train")))[:MEAN_FROM]
    n = 0

    def batches() -> Iterator[Tensor]:
        nonlocal n
        for part, x in data.batches("train", ids.sort().values):
            n += len(part)
            yield x

    return modality(data.dataset.modality).mean(batches(), data.dataset), n


def _notes(method: Method, normalized: bool) -> list[str]:
    notes = []
    if normalized:
        notes.append(
            f"{type(method).__name__} predicts patches less their own mean and std, which nobody knows of a hidden patch: mse "
            "and psnr take those of the visible ones, interpolated; the image uses the true ones"
        )
    return notes


def _sheet(data: EvalData, method: Method, ids: Tensor) -> Columns:
    """Source, what was visible, what was predicted, and the error, of samples nobody chose."""
    shown_ids = ids[order(derive(data.seed, "reconstruct", "shown"), 0, len(ids))[:SHOWN]].sort().values
    rows: list[list[Preview]] = []
    titles: list[str] = []
    for _, ids_of_batch, reconstruction in _reconstructions(data, method, data.eval_split, shown_ids, 1):
        columns = reconstruction.columns()
        titles = [*columns, "error"]
        sources, *others = columns.values()
        shown = previews(data.dataset, sources, data.source(data.eval_split), ids_of_batch)
        rows += [list(row) for row in zip(shown, *(previews(data.dataset, x) for x in others), strict=True)]
    errors = align([source.difference(predicted) for source, *_, predicted in rows])
    rows = [[*row, error] for row, error in zip(rows, errors, strict=True)]
    given = "; the true mean and std of each hidden patch are given back" if reconstruction.mean is not None else ""
    what = (
        "the sample, what was visible of it, what was predicted"
        if len(titles) == 4
        else "the sample, its reconstruction"
    )
    return Columns(rows, titles, f"{len(rows)} {data.eval_split} samples, not chosen: {what}, and the error{given}")
