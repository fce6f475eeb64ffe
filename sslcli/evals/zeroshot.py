"""Zero-shot classification and retrieval: images and texts compared in the space that a method gives both, without labels.

Radford et al., "Learning Transferable Visual Models From Natural Language Supervision", ICML 2021, Sec. 3.1: the vector of a
class is the mean of the unit vectors of its name in several templates.
"""

from __future__ import annotations

import textwrap
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from sslcli import console
from sslcli.data.image_text.captions import Captions
from sslcli.data.text.preprocessor import TextPreprocessor
from sslcli.errors import RequestError
from sslcli.evals.artefacts.predictions import Predictions
from sslcli.evals.artefacts.sample_sheets import Cell, Mark, Row, Sheet, thumbnails
from sslcli.evals.base.features import EvalData, Split
from sslcli.evals.base.result import Artefact, Result
from sslcli.evals.metrics.interval import accuracy_intervals
from sslcli.evals.zero_shot.class_vectors import class_vectors, encode_in_parts
from sslcli.evals.zero_shot.prompts import class_names, name_notes, prompts, unknown_names
from sslcli.evals.zero_shot.recall import KS, best_ranks, chance_recall
from sslcli.formats.named_encoders import captions_of
from sslcli.methods.base import Method
from sslcli.rng import derive, order
from sslcli.runs import Record
from sslcli.views.image_text.captions import views_of

HINT = "sslcli pretrain method=clip dataset=pairs dataset.path=manifest.csv"
SCORES = 20_000_000  # similarities in memory
ROWS, SHOWN = 8, 6  # captions and images in the sheet
LINE = 32  # characters of a caption in it


@dataclass
class Texts:
    """The distinct captions of a split: views (T, L); and for pairs of a sample and a caption, their numbers: (P,) each."""

    x: Tensor
    samples: Tensor
    captions: Tensor


def zeroshot(
    backbone: nn.Module,
    data: EvalData,
    *,
    templates: list[str] | None = None,
    names: dict[str, str] | None = None,
    baselines: bool = True,
) -> Result:
    """Returns `top1` and `top5` (more than five classes) of test samples with labels, and `text_recall@K`, `image_recall@K` for K
    of 1, 5 and 10 of those with captions; the same of `chance.` and of the `untrained.` method.

    Equal captions are one text, which is right for all its images. Of equal similarities half are counted as larger.
    `templates`: texts with {} for the name of a class. `names`: other names of classes. RequestError where the run's method does
    not read captions, or for templates and names that do not fit."""
    method, preprocessor = _method(data), captions_of(data.dataset)
    split = data.eval_split
    source = data.source(split)
    templates = ["{}"] if templates is None else templates
    classes = class_names(data.dataset.classes, {str(name): text for name, text in (names or {}).items()})
    texts_of_classes = prompts(classes, templates)
    notes = name_notes(classes, preprocessor)
    for note in notes:
        console.warn(note, "evaluator.names={class: text} gives other names")
    if len(unknown_names(classes, preprocessor)) == len(classes):
        classes = []
    texts = None if source.captions is None else distinct_captions(source.captions, preprocessor)
    if not classes and texts is None:
        raise RequestError(
            f"{data.dataset.name} has neither names of classes nor captions to compare images with",
            "evaluator.names={class: text} gives names to classes",
        )
    methods = {"": method}
    if baselines and data.untrained_method is not None:
        methods["untrained."] = data.untrained_method()
    numbers: dict[str, float] = {}
    artefacts: dict[str, Artefact] = {}
    labeled = retrieved = 0
    for prefix, one in methods.items():
        ids, vectors = sample_vectors(one, data, split)
        y = data.labels(split)[ids]
        if classes and bool((y >= 0).any()):
            of_classes = class_vectors(partial(_encode, one, data), texts_of_classes, preprocessor)
            known = y >= 0
            scores, labeled = vectors[known] @ of_classes.T, int(known.sum())
            numbers |= {prefix + key: value for key, value in accuracies(scores, y[known]).items()}
            if not prefix:
                made = Predictions(ids[known], y[known], scores.argmax(dim=1)[None])
                artefacts |= made.files(source, data.dataset.classes)
        if texts is not None:
            text_vectors = encode_in_parts(partial(_encode, one, data), texts.x)
            found = recalls(vectors, text_vectors, ids, texts)
            numbers |= {prefix + key: value for key, value in found.items()}
            retrieved = len(ids)
            if not prefix:
                artefacts["captions.png"] = _sheet(data, split, ids, vectors, text_vectors, texts, preprocessor)
            if baselines and "chance.text_recall@1" not in numbers:
                numbers |= {f"chance.{key}": value for key, value in chance(ids, texts).items()}
    if baselines and labeled:
        numbers["chance.top1"] = 1 / len(classes)
    protocol: Record = {
        "method": type(method).__name__,
        "split": split,
        "similarity": "cosine",
        "templates": list(templates) if classes else [],
        "classes": len(classes),
        "samples": {"with labels": labeled, "with captions": retrieved},
        "texts": 0 if texts is None else len(texts.x),
        "baselines": {"chance": {"note": "the expectation of a random order"}} if baselines else {},
        "notes": [
            *data.notes,
            *notes,
            *([] if baselines else ["baselines were not evaluated (evaluator.baselines=false)"]),
        ],
    }
    return Result(numbers, protocol, artefacts, {}, accuracy_intervals(numbers, labeled))


def _method(data: EvalData) -> Method:
    """The method of the run, which reads captions."""
    if data.pretraining is None:
        raise RequestError("an untrained backbone has no space that images and texts share", HINT)
    method, _ = data.pretraining()
    if not method.shares_space:
        raise RequestError(f"{type(method).__name__} does not read captions", HINT)
    return method


def distinct_captions(captions: Captions, preprocessor: TextPreprocessor) -> Texts:
    """The captions of samples, each text once."""
    x = views_of(captions, torch.arange(len(captions.texts)), preprocessor)
    distinct, which = x.unique(dim=0, return_inverse=True)
    return Texts(distinct, captions.owners, which)


def sample_vectors(method: Method, data: EvalData, split: Split) -> tuple[Tensor, Tensor]:
    """The ids (n,) of the samples that can be read, and their unit vectors (n, P) float32."""
    parts = []
    for ids, x in data.batches(split):
        with torch.no_grad(), data.autocast():
            vectors = method.sample_vectors(x)
        assert vectors is not None, type(method)
        parts.append((ids, vectors.float().cpu()))
    ids, vectors = (torch.cat(column) for column in zip(*parts, strict=True))
    return ids, vectors


def _encode(method: Method, data: EvalData, x: Tensor) -> Tensor:
    """The unit vectors (T, P) of texts (T, L)."""
    with torch.no_grad(), data.autocast():
        return method.caption_vectors(x.to(data.device))


def accuracies(scores: Tensor, y: Tensor) -> dict[str, float]:
    """top1, and top5 where there are more classes, of scores (n, K)."""
    own = torch.arange(scores.shape[1]) == y[:, None]
    ranks = best_ranks(scores, own)
    out = {"top1": float((ranks <= 1).double().mean())}
    return out | ({"top5": float((ranks <= 5).double().mean())} if scores.shape[1] > 5 else {})


def recalls(vectors: Tensor, text_vectors: Tensor, ids: Tensor, texts: Texts) -> dict[str, float]:
    """The share of images, and of captions, with a right one among the K most similar. A block of similarities is in memory at a
    time."""
    pairs = matches(ids, texts)
    found: dict[str, float] = {}
    for name, queries, gallery, own in (
        ("text", vectors, text_vectors, pairs),
        ("image", text_vectors, vectors, pairs.flip(1)),
    ):
        asked = own[:, 0].unique()
        size = max(1, SCORES // len(gallery))
        ranks = [best_ranks(queries[part] @ gallery.T, block(own, part, len(gallery))) for part in asked.split(size)]
        found |= {f"{name}_recall@{k}": float((torch.cat(ranks) <= k).double().mean()) for k in KS}
    return found


def matches(ids: Tensor, texts: Texts) -> Tensor:
    """(P, 2) int64, each pair of the place of a sample in `ids` (n,) and of one of its captions once."""
    row = torch.full((int(max(ids.max(), texts.samples.max())) + 1,), -1)
    row[ids] = torch.arange(len(ids))
    pairs = torch.stack([row[texts.samples], texts.captions], dim=1)
    return pairs[pairs[:, 0] >= 0].unique(dim=0)


def block(pairs: Tensor, queries: Tensor, items: int) -> Tensor:
    """(q, items) bool: whether the sorted `queries` (q,) and an item are a pair."""
    inside = torch.isin(pairs[:, 0], queries)
    out = torch.zeros(len(queries), items, dtype=torch.bool)
    out[torch.searchsorted(queries, pairs[inside, 0].contiguous()), pairs[inside, 1]] = True
    return out


def chance(ids: Tensor, texts: Texts) -> dict[str, float]:
    pairs, out = matches(ids, texts), dict[str, float]()
    for name, own, items in (("text", pairs, len(texts.x)), ("image", pairs.flip(1), len(ids))):
        _, counts = own[:, 0].unique(return_counts=True)
        out |= {f"{name}_recall@{k}": chance_recall(counts, items, k) for k in KS}
    return out


def _sheet(
    data: EvalData,
    split: Split,
    ids: Tensor,
    vectors: Tensor,
    text_vectors: Tensor,
    texts: Texts,
    preprocessor: TextPreprocessor,
) -> Sheet:
    """The most similar images of some captions."""
    pairs = matches(ids, texts).flip(1)
    present = pairs[:, 0].unique()
    chosen = present[order(derive(data.seed, "zeroshot"), 0, len(present))[:ROWS]].sort().values
    best = (text_vectors[chosen] @ vectors.T).topk(min(SHOWN, len(ids)), dim=1).indices
    shown = thumbnails(data, split, ids[best].flatten().tolist())
    right = block(pairs, chosen, len(ids))
    rows = []
    for text, near, own in zip(chosen.tolist(), best, right, strict=True):
        lines = [
            *textwrap.wrap(preprocessor.tokenizer.decode(texts.x[text]), LINE, max_lines=2, placeholder=" …"),
            "",
            "",
        ]
        marks: dict[int, Mark] = {int(ids[i]): "right" if own[i] else "wrong" for i in near.tolist()}
        rows.append(Row(lines[0], lines[1], [Cell(shown[i], mark) for i, mark in marks.items() if i in shown]))
    caption = f"the most similar {split} images of some captions, of all {len(ids):,}"
    return Sheet("Images by captions", rows, caption, legend=("has this caption", "has another one"))
