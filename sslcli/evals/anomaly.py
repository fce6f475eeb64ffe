"""Anomaly detection: what is normal is learned from normal training samples alone, and test samples are ranked by how
strange they are.

With labels, one class is normal and all others are strange (`normal: each` takes every class in turn, the usual
one-class protocol). Without, all training samples are normal, and the strangest test samples are shown. Only the scores
are fitted to what is normal: the backbone was pretrained on whatever its run was given, commonly all classes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from sslcli.errors import DataError, RequestError, listing, nearest
from sslcli.evals import reconstruct
from sslcli.evals.artefacts.figures import Dots
from sslcli.evals.artefacts.sample_sheets import Cell, Row, Sheet, named, thumbnails
from sslcli.evals.artefacts.tables import Csv
from sslcli.evals.base import method_outputs
from sslcli.evals.base.features import EvalData, Labelled, Split
from sslcli.evals.base.result import Baselines, Result
from sslcli.evals.fit import anomaly_scores
from sslcli.evals.fit.clustering import exact
from sslcli.evals.inputs import label_subsets as subsets
from sslcli.rng import derive, order
from sslcli.runtime.progress import track

SCORES = ("knn", "knn_l2", "mahalanobis", "ocsvm", "reconstruction", "objective")
PRETRAINED = ("reconstruction", "objective")  # the run's own, fitted in its training
SHOWN = 5  # samples at each end of a ranking
ROWS = 12  # classes in the sheet
DETAILED = 100  # classes; of more, the details hold the first score alone
CALIBRATION = 0.2  # of the training samples, where there is no label to say how well a score does
ALPHA = 0.05
FOLDS, FEWEST_FOLDS = 5, 2  # where every sample is scored by what was fitted to others
ROBUST = 1.4826  # standard deviations of a normal distribution in one median absolute deviation

Score = Callable[[Tensor, Tensor], Tensor]


def anomaly(
    backbone: nn.Module,
    data: EvalData,
    *,
    scores: list[str] | str = ("knn", "knn_l2", "mahalanobis", "ocsvm"),  # type: ignore[assignment]
    normal: str | int | list[str | int] = "each",
    k: int = 5,
    nu: float = 0.1,
    baselines: Baselines = True,
) -> Result:
    """`auroc` and `fpr95` of the first of `scores`, and of each as `knn.auroc` and so on, with `raw.` and `untrained.`
    beside; over several normal classes, means.

    - auroc: the share of pairs of a strange and a normal test sample in which the strange one scores higher; ties half.
    - fpr95: where the threshold lets 95 % of the normal test samples pass, the share of strange ones that pass as well
      (positive is normal, as in ODIN; 0 is best).
    - `knn` is by cosine, `knn_l2` by Euclidean distance; compare with the better of both on raw inputs.
    - `reconstruction` is the run's own error (`sslcli.evals.reconstruct`) and `objective` its own score, where its method has
      one (measured even if not named): fitted in pretraining, whatever is `normal`.

    `normal: all` reads no label and gives `flagged`: the share of test samples stranger than all but 5 % of a fifth of the
    training samples, to which nothing was fitted. Without anomalies it is about .05. Of an unlabelled data set without
    a test split of its own every sample is scored, by scores fitted to the other four fifths, and `outlying` is the share
    of samples whose score is more than 3 robust standard deviations (1.4826 times the median absolute deviation) above
    the median. Data without labels are measured like this whatever `normal` is not told to be.
    """
    chosen = _check(scores, k, nu)
    if "reconstruction" in chosen and not reconstruct.reconstructs(data):
        raise RequestError(
            "evaluator.scores: reconstruction is for runs of a method that reconstructs",
            "evaluator.scores=[knn,knn_l2,mahalanobis,ocsvm]",
        )
    if method_outputs.has(data, "anomaly_score"):
        chosen = list(dict.fromkeys([*chosen, "objective"]))
    elif "objective" in chosen:
        raise RequestError(
            "evaluator.scores: objective is for runs of a method with an anomaly score",
            "sslcli pretrain experiment=joint_anomaly",
        )
    unlabelled = normal == "each" and data.unlabelled
    normal = "all" if unlabelled else normal
    everything = normal == "all" and (data.dataset.test is None or (data.unlabelled and data.dataset.split != ""))
    split: Split = "train" if everything else "test"
    data.source(split)  # fail before any feature is computed
    groups = [] if normal == "all" else _groups(normal, data)
    fitted = _scorers(chosen, k, nu, data)
    measure = _everything if everything else _ranked if normal == "all" else _told
    numbers: dict[str, float] = {}
    found: dict[str, _Found] = {}
    for kind, features in data.feature_sets(backbone, baselines).items():
        here = fitted if kind == "" else {name: score for name, score in fitted.items() if name not in PRETRAINED}
        if not here:
            continue
        found[kind] = measure(features("train"), features(data.eval_split), here, groups, data)
        prefix = f"{kind}." if kind else ""
        numbers |= {prefix + name: value for name, value in found[kind].numbers.items()}
    first = found[""]
    notes = list(first.notes)
    if unlabelled:
        notes.append("no sample has a label: all are taken for normal (normal=all)")
    notes += [
        f"{name}: of the pretrained method, which does not know what is normal here"
        for name in chosen
        if name in PRETRAINED
    ]
    protocol = {
        "scores": chosen,
        "normal": str(normal),
        "k": k,
        "nu": nu,
        "positive": "normal (fpr95: the share of strange samples that pass where 95 % of the normal ones do)",
        "fitted": "scores to normal training samples; the backbone to what its run was given",
        "ocsvm_samples": f"at most {anomaly_scores.SUPPORT_FROM:,} for each normal class",
        **first.protocol,
        "notes": data.protocol_notes(baselines, notes),
    }
    details = {"names": first.names, **{kind or "backbone": f.each for kind, f in found.items()}} if groups else {}
    return Result(numbers, protocol, _artefacts(found, chosen[0], data), details)


def _check(scores: list[str] | str, k: int, nu: float) -> list[str]:
    chosen = [scores] if isinstance(scores, str) else list(scores)
    for name in chosen:
        if name not in SCORES:
            near = nearest(str(name), SCORES)
            raise RequestError(
                f"evaluator.scores: there is no {name}; there is {', '.join(SCORES)}",
                f"evaluator.scores=[{near or 'knn'}]",
            )
    if not chosen or len(set(chosen)) < len(chosen):
        raise RequestError("evaluator.scores: name at least one score, each once", "evaluator.scores=[knn]")
    if not isinstance(k, int) or isinstance(k, bool) or k < 1:
        raise RequestError(f"evaluator.k={k}: a number of neighbours, 1 or more, is needed", "evaluator.k=5")
    if isinstance(nu, bool) or not 0 < nu <= 1:
        raise RequestError(f"evaluator.nu={nu}: a share above 0 and at most 1 is needed", "evaluator.nu=0.1")
    return chosen


def _scorers(chosen: list[str], k: int, nu: float, data: EvalData) -> dict[str, Score | None]:
    """Name -> (normal, asked) -> scores; None is the run's own, which needs no features."""
    device, seed = exact(data.device), derive(data.seed, "ocsvm")
    known: dict[str, Score | None] = {
        "knn": lambda normal, asked: anomaly_scores.knn(normal, asked, k, data.device),
        "knn_l2": lambda normal, asked: anomaly_scores.knn_l2(normal, asked, k, data.device),
        "mahalanobis": lambda normal, asked: anomaly_scores.mahalanobis(normal, asked, device),
        "ocsvm": lambda normal, asked: anomaly_scores.ocsvm(normal, asked, nu, seed, device),
        "reconstruction": None,
        "objective": None,
    }
    return {name: known[name] for name in chosen}


@dataclass
class _Group:
    """Classes that are normal together."""

    name: str
    classes: Tensor


def _groups(normal: str | int | list[str | int], data: EvalData) -> list[_Group]:
    """What is normal, one after another. RequestError for an unknown class, DataError where there are no labels."""
    y, truth = data.labels("train"), data.labels("test")
    for split, labels in (("train", y), ("test", truth)):
        if not bool((labels >= 0).any()):
            raise DataError(
                f"{data.dataset.name} has no labels in its {split} split to say what is normal",
                "evaluator.normal=all ranks test samples without labels",
            )
    subsets.check(truth, "test", data.dataset.name)
    names = [named(data.dataset.classes, c) for c in range(max(int(y.max()), int(truth.max())) + 1)]
    if normal == "each":
        counts = y[y >= 0].bincount()
        return [
            _Group(names[c] if c < len(names) else str(c), torch.tensor([c]))
            for c in counts.nonzero().flatten().tolist()
        ]
    wanted = [str(n) for n in (normal if isinstance(normal, list) else [normal])]
    for word in wanted:
        if word not in names:
            near = nearest(word, names)
            raise RequestError(
                f"evaluator.normal={word}: there is no class of that name; there are {listing(names)}",
                f"evaluator.normal={near}" if near else "evaluator.normal=each, or all",
            )
    if not wanted:
        raise RequestError("evaluator.normal is empty", "evaluator.normal=each, a class, or all")
    return [_Group(", ".join(wanted), torch.tensor(sorted({names.index(w) for w in wanted})))]


@dataclass
class _Ends:
    """The least and the most strange test samples by the first score: rows of the features, and which truly are strange."""

    title: str
    about: str
    rows: list[int]
    strange: list[bool] | None


@dataclass
class _Found:
    numbers: dict[str, float]
    protocol: dict[str, Any]
    names: list[str] = field(default_factory=list)
    each: dict[str, dict[str, list[float]]] = field(default_factory=dict)  # "auroc" -> score -> one a group
    ends: list[_Ends] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    csv: Csv | None = None
    samples: list[tuple[Split, int]] = field(default_factory=list)  # which sample each row of `ends` is


def _told(
    train: Labelled, test: Labelled, scorers: dict[str, Score | None], groups: list[_Group], data: EvalData
) -> _Found:
    """Each group is normal in turn, and labels say what is strange."""
    (x, y), (asked, truth) = train, test
    known = (truth >= 0).nonzero().flatten()
    asked, truth = asked[known], truth[known]
    pretrained = {name: _own(data, name)[known] for name in scorers if name in PRETRAINED}
    found = _Found({}, {})
    each: dict[str, dict[str, list[float]]] = {"auroc": {}, "fpr95": {}}
    left_out = []
    for group in track(groups, "normal class"):
        members = torch.isin(y, group.classes).nonzero().flatten()
        strange = ~torch.isin(truth, group.classes)
        if len(members) < 2 or bool(strange.all()) or not bool(strange.any()):
            left_out.append(group.name)
            continue
        normal = x[members]
        for at, (name, score) in enumerate(scorers.items()):
            s = pretrained[name] if score is None else score(normal, asked)
            each["auroc"].setdefault(name, []).append(anomaly_scores.auroc(s, strange))
            each["fpr95"].setdefault(name, []).append(anomaly_scores.fpr95(s, strange))
            if at == 0:
                rows = _both_ends(s)
                about = f"AUROC {each['auroc'][name][-1]:.3f}"
                ends = _Ends(f"normal: {group.name}", about, known[rows].tolist(), strange[rows].tolist())
        found.names.append(group.name)
        found.ends.append(ends)
    found.samples = [("test", i) for i in data.ids("test").tolist()]
    if not found.names:
        raise DataError(
            "no class has two training samples, and in the test split both samples of it and of others",
            "evaluator.normal=all ranks test samples without labels",
        )
    if left_out:
        found.notes.append(f"left out, for want of samples: {listing(left_out)}")
    means = {name: {m: sum(by[name]) / len(found.names) for m, by in each.items()} for name in scorers}
    found.numbers |= means[next(iter(scorers))]
    found.numbers |= {f"{name}.{m}": mean for name, by in means.items() for m, mean in by.items()}
    kept = list(scorers) if len(found.names) <= DETAILED else [next(iter(scorers))]
    found.each = {m: {name: [round(v, 5) for v in by[name]] for name in kept} for m, by in each.items()}
    found.protocol = {
        "dim": x.shape[1],
        "splits": {"train": len(x), "test": len(known)},
        "normal_classes": len(found.names),
        "averaged": "over normal classes" if len(found.names) > 1 else "no",
    }
    return found


def _ranked(
    train: Labelled, test: Labelled, scorers: dict[str, Score | None], groups: list[_Group], data: EvalData
) -> _Found:
    """All training samples are normal: a part of them calibrates, nothing says what is strange."""
    x, asked = train[0], test[0]
    held = max(1, round(CALIBRATION * len(x)))
    if len(x) - held < 2:
        raise DataError(f"{len(x)} training samples are too few to learn from what is normal")
    shuffled = order(derive(data.seed, "calibration"), 0, len(x))
    normal, both = x[shuffled[held:].sort().values], torch.cat([x[shuffled[:held]], asked])
    found = _Found({}, {"dim": x.shape[1], "splits": {"train": len(x) - held, "calibration": held, "test": len(asked)}})
    table: dict[str, list[float]] = {}
    first = next(iter(scorers))
    for name, score in scorers.items():
        s = (
            score(normal, both)
            if score is not None
            else torch.cat([_own(data, name, "train")[shuffled[:held]], _own(data, name)])
        )
        p = anomaly_scores.p_values(s[held:], s[:held])
        flagged = float((p <= ALPHA).double().mean())
        found.numbers |= {"flagged": flagged} if name == first else {}
        found.numbers[f"{name}.flagged"] = flagged
        table[f"{name}_p"], table[name] = p.tolist(), s[held:].tolist()
        if name == first:
            ranking = s[held:].argsort(descending=True, stable=True).tolist()
            found.ends = [_Ends("test samples", f"by {name}", _both_ends(s[held:]).tolist(), None)]
    if 1 / (1 + held) > ALPHA:
        found.notes.append(f"{held} samples to calibrate are too few for anything to be flagged: 19 are needed")
    source, ids = data.source("test"), data.ids("test").tolist()
    found.samples = [("test", i) for i in ids]
    rows = [
        [at + 1, source.name_of(ids[i]), *(f"{values[i]:.6g}" for values in table.values())]
        for at, i in enumerate(ranking)
    ]
    caption = f"test samples from the strangest to the most normal by {first}; p: share of normal samples as strange"
    found.csv = Csv(("rank", "sample", *table), rows, caption)
    return found


def _everything(
    train: Labelled, rest: Labelled, scorers: dict[str, Score | None], groups: list[_Group], data: EvalData
) -> _Found:
    """No labels say what is anomalous, and no sample is held out: each is scored by what was fitted to the other folds."""
    parts: list[Split] = ["train"] if data.dataset.test is None else ["train", "test"]
    x = train[0] if len(parts) == 1 else torch.cat([train[0], rest[0]])
    n = len(x)
    if n < 2 * FEWEST_FOLDS:
        raise DataError(f"{n} samples are too few to learn from what is normal")
    members = [data.groups(part) for part in parts]
    of = torch.cat([m for m in members if m is not None]) if all(m is not None for m in members) else None
    of = None if of is None or len(of.unique()) < FEWEST_FOLDS else of
    count = min(FOLDS, n // 2, n if of is None else len(of.unique()))
    fold = subsets.folds(torch.zeros(n, dtype=torch.int64), count, derive(data.seed, "anomaly"), 0, of)
    found = _Found({}, {"dim": x.shape[1], "splits": {"all": n}})
    found.protocol["scored"] = f"every sample, by scores fitted to the other {count - 1} of {count} folds" + (
        " (whole groups)" if of is not None else ""
    )
    found.samples = [(part, i) for part in parts for i in data.ids(part).tolist()]
    table: dict[str, list[float]] = {}
    first = next(iter(scorers))
    for name, score in scorers.items():
        if score is None:
            s = torch.cat([_own(data, name, part) for part in parts])
        else:
            s = torch.empty(n)
            for f in range(count):
                s[fold == f] = score(x[fold != f], x[fold == f]).float()
        share = outlying(s)
        found.numbers |= {"outlying": share} if name == first else {}
        found.numbers[f"{name}.outlying"] = share
        table[name] = s.tolist()
        if name == first:
            ranking = s.argsort(descending=True, stable=True).tolist()
            found.ends = [_Ends("all samples", f"by {name}", _both_ends(s).tolist(), None)]
    rows = []
    for at, i in enumerate(ranking):
        part, sample = found.samples[i]
        rows.append([at + 1, data.source(part).name_of(sample), *(f"{values[i]:.6g}" for values in table.values())])
    found.csv = Csv(
        ("rank", "sample", *table), rows, f"all {n:,} samples from the strangest to the most normal by {first}"
    )
    return found


def outlying(scores: Tensor) -> float:
    """The share of scores (n,) more than 3 robust standard deviations above their median; NaN counts as not."""
    known = scores[~scores.isnan()].double()
    middle = known.median()
    robust = ROBUST * (known - middle).abs().median()
    return float((known > middle + 3 * robust).double().mean()) if float(robust) > 0 else 0.0


def _own(data: EvalData, name: str, split: Any = "test") -> Tensor:
    """The run's own score, or its reconstruction errors, in the order of the features' rows."""
    if name == "objective":
        score = method_outputs.anomaly(data, split)
        assert score is not None
        return score
    found, ids = reconstruct.errors(data, split)
    at = torch.full((len(data.source(split)),), torch.nan)
    at[ids] = found
    return at[data.ids(split)]


def _both_ends(score: Tensor) -> Tensor:
    """Rows of the SHOWN least strange and, after them, of the SHOWN strangest, ascending."""
    ascending = score.argsort(stable=True)
    count = min(SHOWN, len(score) // 2)
    return torch.cat([ascending[:count], ascending[len(score) - count :]])


# ------------------------------------------------------------------------------------------------------------- artefacts


def _artefacts(found: dict[str, _Found], score: str, data: EvalData) -> dict[str, Any]:
    first = found[""]
    artefacts: dict[str, Any] = {}
    if first.each:
        artefacts["auroc.png"] = _dots(found, score)
    if first.csv:
        artefacts["scores.csv"] = first.csv
    if sheet := _sheet(first, score, data):
        artefacts["samples.png"] = sheet
    return artefacts


def _dots(found: dict[str, _Found], score: str) -> Dots:
    first = found[""]
    words = {"": "this backbone", "raw": "raw inputs", "untrained": "untrained backbone"}
    if len(first.names) > 1:
        values = {words[kind]: f.each["auroc"][score] for kind, f in found.items() if score in f.each["auroc"]}
        title = f"AUROC by {score}, each class as the normal one"
        names = first.names
    else:  # one row a score
        names = list(first.each["auroc"])
        values = {
            words[kind]: [f.each["auroc"].get(name, [float("nan")])[0] for name in names] for kind, f in found.items()
        }
        title = f"AUROC where {first.names[0]} is normal"
    mean = {kind: sum(v) / len(v) for kind, v in values.items()}
    told = ", ".join(f"{kind} {value:.3f}" for kind, value in mean.items() if value == value)
    return Dots(names, values, title, f"{title}; means: {told}; .5 is chance")


def _sheet(first: _Found, score: str, data: EvalData) -> Sheet | None:
    shown = first.ends
    of = "samples" if any(part == "train" for part, _ in first.samples) else "test samples"
    title = f"the least and the most strange {of}, by {score}"
    if len(shown) > ROWS:
        shown = [shown[i] for i in order(derive(data.seed, "shown"), 0, len(shown))[:ROWS].sort().values.tolist()]
        title += f" ({ROWS} of {len(first.ends):,} classes)"
    if not any(end.rows for end in shown):
        return None
    wanted = {first.samples[i] for end in shown for i in end.rows}
    pictures: dict[tuple[Split, int], Any] = {}
    for split in sorted({split for split, _ in wanted}):
        ids = sorted(i for part, i in wanted if part == split)
        pictures |= {(split, i): picture for i, picture in thumbnails(data, split, ids).items()}
    rows, wrong = [], 0
    for end in shown:
        half = len(end.rows) // 2
        cells = []
        for at, i in enumerate(end.rows):
            right = end.strange is None or end.strange[at] == (at >= half)
            wrong += not right
            if first.samples[i] in pictures:
                cells.append(
                    Cell(pictures[first.samples[i]], "" if end.strange is None else "right" if right else "wrong")
                )
        rows.append(Row(end.title, end.about, cells))
    told = shown[0].strange is not None
    caption = f"{title}: at the left the most normal, at the right the strangest"
    return Sheet(
        title,
        rows,
        caption + (f"; {wrong} of {sum(len(e.rows) for e in shown)} are on the wrong side" if told else ""),
        ("most normal first", "strangest last"),
        len(shown[0].rows) // 2,
        ("on its side", "on the wrong side") if told else None,
    )
