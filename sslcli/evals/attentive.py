"""Attentive probe: a learned query attends to the frozen tokens, and a linear layer classifies the result.

A linear probe uses the mean token; this probe can use any token, which is fairer to masked methods.

Chen et al., "Context Autoencoder", IJCV 2023, arXiv:2202.03026, Sec.
4.1; Bardes et al., "Revisiting Feature Prediction for Learning Visual Representations from Video" (V-JEPA), TMLR 2024,
arXiv:2404.08471, Sec. 3.3.

With tokens t_n (d), heads h of width d / H, a learned query q_h: a_hn = softmax_n(q_h . (K t_n)_h / sqrt(d / H)), and
the logits are C concat_h(sum_n a_hn (V t_n)_h) + b. Deviations: the query is learned as it is used (the papers project
it), no output projection (the classifier is one), no MLP block (V-JEPA has one).
"""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from sslcli.console import say
from sslcli.data import notify
from sslcli.errors import RequestError
from sslcli.evals.artefacts.confusion import Confusion
from sslcli.evals.base.features import EvalData
from sslcli.evals.base.result import Baselines, Result, check_seeds
from sslcli.evals.classifier.class_weight import ClassWeight, check_class_weight
from sslcli.evals.finetuning.learning_rate import best_rate, class_score, rate_protocol
from sslcli.evals.finetuning.predictions import TestPredictions
from sslcli.evals.finetuning.training import WARMUP, top_classes
from sslcli.evals.fit.attentive_head import Head, HeadSettings, HeadTraining, check_backbone, check_memory, patch_tokens
from sslcli.evals.fit.grid_search import Choice, Grid, choice_notes
from sslcli.evals.inputs import label_subsets as subsets
from sslcli.evals.metrics.interval import accuracy_intervals
from sslcli.evals.probe import probe
from sslcli.rng import derive

RATES = Grid((1e-5, 3e-5, 1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1), first=3, last=5)  # continued while an edge is best


def attentive(
    backbone: nn.Module,
    data: EvalData,
    *,
    labels: str | int = "all",
    seeds: int = 1,
    heads: int = 4,
    lr: float | list[float] | None = None,
    weight_decay: float = 0.05,
    epochs: int | None = None,
    min_steps: int | None = None,
    batch_size: int = 256,
    class_weight: ClassWeight = None,
    baselines: Baselines = True,
) -> Result:
    """`top1`, with more than five classes `top5`, `linear.top1` (the plain probe of the pooled features on the same draws), and
    `untrained.top1` (the same head on a backbone with random weights); with several seeds each with `_std`.

    The head learns by AdamW from the clean samples' tokens, which are computed once and kept in half precision; of the
    rates the one is taken that does best on a fifth of the labeled training samples. The test split is used once,
    after the last step. `class_weight`: balanced weights the classes equally, in all of these.
    RequestError for a backbone without tokens, and where the tokens of the labeled samples take
    more than 2 GiB.
    """
    data = data.without_windows()
    amount = subsets.parse(labels, data.dataset)
    check_class_weight(class_weight, data.dataset)
    check_seeds(seeds)
    check_backbone(backbone, heads)
    settings = HeadSettings(heads, _rates(lr), weight_decay, epochs, min_steps, batch_size, class_weight)
    data.source("test")
    y = data.labels("train")
    name = data.dataset.name
    subsets.check(y, "train", name)
    labeled = subsets.check(data.labels("test"), "test", name, classes=1)
    draws = [subsets.draw(y, amount, data.seed, index, data.dataset.classes) for index in range(seeds)]
    union = torch.cat(draws).unique()
    check_memory(backbone, len(union), len(data.dataset.classes))

    metrics: dict[str, float] = {}
    length = settings.describe(len(draws[-1]))
    say(f"attentive probe: {length}")
    warnings = [length] if settings.other_length(len(draws[-1])) else []
    for kind, subject in {"": backbone, **data.backbones.wanted(baselines)}.items():
        word = {"": "tokens", "given": "tokens of the given weights"}.get(kind, "tokens of an untrained backbone")
        scores, rates = _measure(subject, data, draws, union, labeled, settings, word)
        warnings += choice_notes(rates, settings.rates, f"learning rate for {word}", "evaluator.lr")
        top = scores.metrics(kind)
        metrics |= top if kind == "" else {k: v for k, v in top.items() if "top1" in k}
        if kind == "":
            y_of_draw, chosen = scores, rates
    linear = probe(
        backbone, data, labels=labels, seeds=seeds, baselines=False, calibrate=False, class_weight=class_weight
    )
    metrics |= {f"linear.{k}": v for k, v in linear.metrics.items() if "top1" in k}
    protocol = {
        "labels": str(amount),
        "seeds": seeds,
        "std": "standard deviation over draws (n - 1)",
        "tokens": backbone.num_tokens,
        "dim": backbone.dim,
        "heads": heads,
        "classes": y_of_draw.total,
        "splits": {"train": len(y), "labelled": len(draws[-1]), "test": len(y_of_draw.ids)},
        "lr": rate_protocol(chosen, settings.rates),
        "optimizer": f"AdamW, weight decay {weight_decay:g}, cosine after a warm-up of {WARMUP:.0%} of the steps",
        "steps": settings.steps(len(draws[-1])),
        "epochs": settings.passes,
        "min_steps": settings.least_steps,
        "batch_size": batch_size,
        "class_weight": class_weight,
        "linear": {"strength": linear.protocol["strength"], "solver": linear.protocol["solver"]},
        "notes": data.protocol_notes(baselines, warnings),
    }
    artefacts: dict[str, Any] = {
        "confusion.png": Confusion(y_of_draw.confusion(data), data.dataset.classes),
        **y_of_draw.predictions().files(data.source("test"), data.dataset.classes),
    }
    return Result(metrics, protocol, artefacts, intervals=accuracy_intervals(metrics, len(y_of_draw.ids), seeds))


def _rates(lr: float | list[float] | None) -> Grid:
    if lr is None:
        return RATES
    given = list(lr) if isinstance(lr, (list, tuple)) else [lr]
    if not given or not all(0 < r < math.inf for r in given):
        raise RequestError(f"evaluator.lr={lr}: a number above 0, or a list of them, is needed", "evaluator.lr=0.001")
    return Grid.of(given)


def _measure(
    backbone: Any,
    data: EvalData,
    draws: list[Tensor],
    union: Tensor,
    labeled: Tensor,
    settings: HeadSettings,
    word: str,
) -> tuple[TestPredictions, list[Choice]]:
    """A head a draw; then all of them in one pass over the test split."""
    x = torch.empty(len(union), backbone.num_tokens, backbone.dim, dtype=torch.float16)
    valid: Tensor | None = None
    read = torch.zeros(len(union), dtype=torch.bool)
    for ids, t, batch_valid in patch_tokens(backbone, data, data.batches("train", union)):
        rows = torch.searchsorted(union, ids)
        x[rows], read[rows] = t.cpu(), True
        if batch_valid is not None:
            valid = torch.empty(x.shape[:2], dtype=torch.bool) if valid is None else valid
            valid[rows] = batch_valid.cpu()
        notify.show_progress(word, int(read.sum()), len(union))
    heads: list[tuple[Head, Tensor]] = []
    chosen = []
    y = data.labels("train")
    for index, ids in enumerate(draws):
        rows = torch.searchsorted(union, ids)
        rows = rows[read[rows]]  # without those that cannot be read
        classes, y_of_draw = y[union[rows]].unique(return_inverse=True)
        fit = HeadTraining(
            x, valid, rows, y_of_draw, len(classes), settings, data, derive(data.seed, "attentive", index)
        )
        of = data.source("train").groups
        groups = None if of is None else of[union[rows]]
        judge = partial(class_score, weights=fit.weights)
        rate = best_rate(settings.rates, settings.rates.start[0], y_of_draw, fit.seed, fit, fit.score, groups, judge)
        heads.append((fit(torch.arange(len(rows)), rate.value), classes))
        chosen.append(rate)
        notify.show_progress("attentive heads", index + 1, len(draws))

    found_ids: list[Tensor] = []
    predicted: list[list[Tensor]] = [[] for _ in heads]
    confidence: list[list[Tensor]] = [[] for _ in heads]
    for ids, t, batch_valid in patch_tokens(backbone, data, data.batches("test", labeled)):
        found_ids.append(ids)
        for i, (head, classes) in enumerate(heads):
            with torch.no_grad():
                first, p = top_classes(head(t, batch_valid).cpu(), classes)
            predicted[i].append(first)
            confidence[i].append(p)
    ids = torch.cat(found_ids)
    y_true = data.labels("test")
    total = max(len(data.dataset.classes), int(y.max()) + 1, int(y_true.max()) + 1)
    return TestPredictions(
        ids, y_true[ids], total, [torch.cat(p) for p in predicted], [torch.cat(p) for p in confidence]
    ), chosen
