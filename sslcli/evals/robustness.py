"""Robustness: accuracy of a linear probe, fitted to clean features, under corruptions and adversarial attacks, and its calibration.

Corruptions: those of the modality. Attacks: `attacks.py`. Calibration: `calibration.py`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from sslcli.console import warn
from sslcli.errors import RequestError, nearest
from sslcli.evals.artefacts.corruption_plot import SeverityPlot, corruption_sheet
from sslcli.evals.base.embedding import embed, evaluating
from sslcli.evals.base.features import EvalData
from sslcli.evals.base.result import Baselines, Result
from sslcli.evals.classifier.class_weight import ClassWeight, check_class_weight
from sslcli.evals.classifier.imbalance import is_imbalanced
from sslcli.evals.fit.calibrated_probe import CalibratedProbe, class_columns, fit_probes
from sslcli.evals.fit.grid_search import Grid, choice_notes
from sslcli.evals.fit.linear_probe import C_GRID, c_protocol
from sslcli.evals.inputs import attacks
from sslcli.evals.inputs import label_subsets as subsets
from sslcli.evals.metrics import calibration
from sslcli.evals.metrics.interval import accuracy_intervals
from sslcli.rng import derive, order
from sslcli.views.corruption import STRENGTHS, corrupt
from sslcli.views.modality import Modality, modality

EPSILONS = (1, 2, 4)  # in 255ths of the range of a pixel
AT_ONCE = 4_000_000  # numbers of a batch that is corrupted


def robustness(
    backbone: nn.Module,
    data: EvalData,
    *,
    labels: str | int = "all",
    corruptions: list[str] | str = "all",
    max_samples: int = 2000,
    attack_samples: int = 500,
    attack_steps: int = 10,
    strength: float | None = None,
    baselines: Baselines = True,
    class_weight: ClassWeight = None,
) -> Result:
    """`clean.top1`, `corrupted.top1` (the mean over corruptions and their five strengths), `drop` (the share of the clean accuracy
    that is lost), `NAME.top1` for each corruption; `fgsm1.top1`, `pgd1.top1` and so on (images only; the number is the most that
    a pixel changes, in 255ths); `ece`, `brier`, `nll` of the probe's probabilities on the clean test split, `scaled.ece` and so on
    after scaling by `temperature`. With `raw.` and `untrained.` beside. Where one class of these test samples is frequent, also
    `clean.balanced_top1` and `corrupted.balanced_top1`, the means over classes. `class_weight`: of all probes, see `probe`.

    At most `max_samples` labeled test samples are corrupted and `attack_samples` of them attacked (0: none), picked by the seed.
    The temperature is fitted to labeled training samples: to each fifth by a probe of the other four, of more than 2,000 to one
    fifth.
    """
    data = data.without_windows()
    amount = subsets.parse(labels, data.dataset)
    kind_of_data = modality(data.dataset.modality)
    names = _names(corruptions, kind_of_data, data)
    if max_samples < 1 or attack_samples < 0 or attack_steps < 1:
        raise RequestError(
            "evaluator.max_samples and evaluator.attack_steps are at least 1, evaluator.attack_samples at least 0",
            "evaluator.max_samples=2000",
        )
    if strength is not None and not 0 < strength < math.inf:
        raise RequestError(f"evaluator.strength={strength}: expected a value above 0", "evaluator.strength=0.1")
    check_class_weight(class_weight, data.dataset)
    y_true = data.labels("test")
    known = subsets.check(y_true, "test", data.dataset.name, classes=1)
    ids = known[order(derive(data.seed, "robustness"), 0, len(known))[:max_samples]]
    grid = C_GRID if strength is None else Grid.of([strength])
    probes = fit_probes(backbone, data, amount, strength, baselines, class_weight)

    by_class, sizes = _corrupted(probes, data, ids.sort().values, names)
    right, n = {kind: counts.sum(dim=2) for kind, counts in by_class.items()}, int(sizes.sum())
    frequent = is_imbalanced(torch.arange(len(sizes)).repeat_interleave(sizes))
    metrics: dict[str, float] = {}
    for kind, probe in probes.items():
        clean, rest = float(right[kind][0, 0]) / n, right[kind][1:, 1:].double() / n
        probe.say(metrics, "clean.top1", clean)
        probe.say(metrics, "corrupted.top1", float(rest.mean()))
        if frequent:
            recall = (by_class[kind].double() / sizes)[:, :, sizes > 0].mean(dim=2)
            probe.say(metrics, "clean.balanced_top1", float(recall[0, 0]))
            probe.say(metrics, "corrupted.balanced_top1", float(recall[1:, 1:].mean()))
        probe.say(metrics, "drop", 1 - float(rest.mean()) / clean if clean else 0.0)
        if kind == "":
            metrics |= {f"{name}.top1": float(row.mean()) for name, row in zip(names, rest, strict=True)}
    artefacts: dict[str, Any] = {"strengths.png": SeverityPlot(names, {k: r.double() / n for k, r in right.items()})}
    attacked = _attacked(probes, data, ids[:attack_samples].sort().values, attack_steps)
    calibrated = _calibration(probes, data, artefacts)
    for part in (attacked, calibrated):
        metrics |= part
    artefacts["corruptions.png"] = corruption_sheet(data, ids[:1], names)
    splits = {"train": len(data.labels("train")), "labelled": probes[""].labeled, "test": n}
    protocol = {
        "labels": str(amount),
        "splits": splits,
        "class_weight": class_weight,
        "corruptions": {
            "names": names,
            "strengths": STRENGTHS,
            "source": "reimplemented after Hendrycks & Dietterich 2019",
        },
        "attacks": {
            "samples": min(attack_samples, n),
            "epsilon": [f"{e}/255" for e in EPSILONS],
            "pgd": f"{attack_steps} steps of 2.5 eps / {attack_steps}, random start",
        }
        if attacked
        else None,
        "calibration": {
            "bins": calibration.BINS,
            "test": len(known),
            "temperature": probes[""].scaling.describe("logits of probes fitted to the other folds"),
        },
        "strength": {kind or "backbone": c_protocol([s.head.choice], grid) for kind, s in probes.items()},
        "notes": data.protocol_notes(
            baselines, [*_notes(attacked, kind_of_data, attack_samples), *_whole(probes, data), *_edges(probes, grid)]
        ),
    }
    details = {"corruptions": names, "top1": {k or "backbone": (r.double() / n).tolist() for k, r in right.items()}}
    all_samples = {name: value for name, value in metrics.items() if name not in attacked}
    intervals = accuracy_intervals(all_samples, n) | accuracy_intervals(attacked, min(attack_samples, n))
    return Result(metrics, protocol, artefacts, details, intervals)


def _names(corruptions: list[str] | str, kind: Modality, data: EvalData) -> list[str]:
    known = list(kind.corruptions(data.dataset))
    if not known:
        raise RequestError(f"there are no corruptions of {kind.noun[1]}", "sslcli eval probe has the clean accuracy")
    if corruptions == "all":
        return known
    given = [corruptions] if isinstance(corruptions, str) else corruptions
    for name in given:
        if name not in known:
            close = nearest(str(name), known)
            raise RequestError(
                f"evaluator.corruptions: there is no `{name}` for {kind.noun[1]}",
                f"did you mean {close}?" if close else f"there are {', '.join(known)}",
            )
    if not given:
        raise RequestError("evaluator.corruptions is empty", "evaluator.corruptions=all")
    return list(dict.fromkeys(given))


def _corrupted(
    probes: Mapping[str, CalibratedProbe], data: EvalData, ids: Tensor, names: Sequence[str]
) -> tuple[dict[str, Tensor], Tensor]:
    """How many samples of each class each probe gets right: kind -> (1 + corruptions, 1 + strengths, K) counts, [0, 0] clean; and
    how many there were (K,)."""
    y_true = data.labels("test")
    total = max(len(data.dataset.classes), int(y_true.max()) + 1)
    right = {kind: torch.zeros(1 + len(names), 1 + STRENGTHS, total, dtype=torch.int64) for kind in probes}
    sizes = torch.zeros(total, dtype=torch.int64)
    for part, x in _small(data, ids):
        sizes += y_true[part].bincount(minlength=total)
        versions = [(0, 0, x)]
        for i, j, z in _versions(data, part, x, names, versions):
            for kind, probe in probes.items():
                (_, features) = next(iter(embed(probe.module, iter([(part, z)]), data.autocast, data.channels_last)))
                hits = probe.head.predict(features) == y_true[part]
                right[kind][i, j] += y_true[part][hits].bincount(minlength=total)
    for counts in right.values():
        counts[1:, 0] = counts[0, 0]
    return right, sizes


def _versions(
    data: EvalData, ids: Tensor, x: Tensor, names: Sequence[str], first: list[tuple[int, int, Tensor]]
) -> Iterator[tuple[int, int, Tensor]]:
    """The clean inputs, then (number of the corruption, strength, corrupted inputs), one at a time."""
    yield from first
    known, inputs = modality(data.dataset.modality).corruptions(data.dataset), x.cpu()
    for i, name in enumerate(names, start=1):
        for strength in range(1, STRENGTHS + 1):
            z = corrupt(known[name], name, inputs, strength, ids, derive(data.seed, "robustness"))
            yield i, strength, z.to(x.device)


def _small(data: EvalData, ids: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Batches that leave room for what is done to them."""
    at_once = max(1, AT_ONCE // math.prod(data.dataset.shape))
    for part, x in data.batches("test", ids):
        yield from zip(part.split(at_once), x.split(at_once), strict=True)


def _attacked(probes: Mapping[str, CalibratedProbe], data: EvalData, ids: Tensor, steps: int) -> dict[str, float]:
    """`fgsm1.top1`, `pgd1.top1`, ... of each; nothing where attacks have no meaning."""
    kind, values = modality(data.dataset.modality), data.dataset.values
    if len(ids) == 0 or not kind.attacks:
        return {}
    metrics: dict[str, float] = {}
    y_true = data.labels("test")
    for probe in probes.values():
        layer = probe.head.linear(data.device)
        correct_counts = dict.fromkeys([f"{a}{e}" for a in ("fgsm", "pgd") for e in EPSILONS], 0)
        n = 0
        with evaluating(probe.module):

            def model(pixels: Tensor, probe: CalibratedProbe = probe, layer: nn.Linear = layer) -> Tensor:
                return layer(probe.module(kind.from_natural(pixels, values)))

            for part, x in _small(data, ids):
                n += len(part)
                pixels = kind.to_natural(x, values)
                y = class_columns(probe.head.classes, y_true[part]).to(data.device)
                with torch.no_grad():
                    correct = model(pixels).argmax(dim=1) == y  # misclassified samples need no attack
                pixels, y, part = pixels[correct], y[correct], part[correct.cpu()]
                if not len(y):
                    continue
                start = _start(pixels, part, data.seed)
                for e in EPSILONS:
                    for name, z in (
                        (f"fgsm{e}", attacks.fgsm(model, pixels, y, e / 255)),
                        (f"pgd{e}", attacks.pgd(model, pixels, y, e / 255, steps, start)),
                    ):
                        with torch.no_grad():
                            correct_counts[name] += int((model(z).argmax(dim=1) == y).sum())
        for name, count in correct_counts.items():
            probe.say(metrics, f"{name}.top1", count / n)
    return metrics


def _start(x: Tensor, ids: Tensor, seed: int) -> Tensor:
    """(B, C, H, W) in -1..1, a function of the sample."""
    given = [torch.Generator().manual_seed(derive(seed, "attack", i)) for i in ids.tolist()]
    return torch.stack([torch.rand(x.shape[1:], generator=g) for g in given]).mul_(2).sub_(1).to(x.device)


def _calibration(probes: Mapping[str, CalibratedProbe], data: EvalData, artefacts: dict[str, Any]) -> dict[str, float]:
    metrics: dict[str, float] = {}
    for kind, probe in probes.items():
        x, y_true = probe.test
        labeled = y_true >= 0
        y, logits = class_columns(probe.head.classes, y_true[labeled]), probe.head.logits(x[labeled])
        t = probe.temperature
        tables, errors = {}, {}
        for prefix, title, scaled in (("", "as fitted", logits), ("scaled.", f"temperature {t:.2f}", logits / t)):
            p = torch.softmax(scaled, dim=1)
            probe.say(metrics, f"{prefix}ece", calibration.ece(p, y))
            probe.say(metrics, f"{prefix}brier", calibration.brier(p, y))
            probe.say(metrics, f"{prefix}nll", calibration.nll(scaled, y))
            tables[title], errors[title] = calibration.reliability(p, y), calibration.ece(p, y)
        probe.say(metrics, "temperature", t)
        if kind == "":
            artefacts["reliability.png"] = calibration.Reliability(tables, errors)
    return metrics


def _notes(attacked: Mapping[str, float], kind: Modality, attack_samples: int) -> list[str]:
    if attacked:
        return ["accuracy under these attacks is an upper bound of the accuracy under stronger ones"]
    if kind.attacks or not attack_samples:
        return []
    return [f"no attacks: eps is defined for pixel values, not for {kind.noun[1]}"]


def _whole(probes: Mapping[str, CalibratedProbe], data: EvalData) -> list[str]:
    """That baselines know more of training samples than of corrupted ones, where views cut samples."""
    nothing = torch.empty(0, dtype=torch.int64)
    whole = modality(data.dataset.modality).whole(data.source("test"), nothing, data.dataset)
    if "raw" not in probes or whole is None:
        return []
    return ["raw inputs are fitted to whole samples; clean.top1 and the corruptions are of views, which cut long ones"]


def _edges(probes: Mapping[str, CalibratedProbe], grid: Grid) -> list[str]:
    """Which penalties and temperatures lie at the end of what may be chosen."""
    notes = []
    for kind, probe in probes.items():
        whose = f"of the probe of {kind or 'the backbone'}"
        notes += choice_notes([probe.head.choice], grid, f"C {whose}", "evaluator.strength")
        if not calibration.COLDEST * 1.001 < probe.temperature < calibration.HOTTEST / 1.001:
            notes.append(f"the temperature {whose} is {probe.temperature:g}, a bound of the search range")
            warn(notes[-1])
    return notes
