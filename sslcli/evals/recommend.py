"""Recommendation: the rank of the item that a user took next among all items, with simple models beside.

All items are ranked: metrics over a sample of items can order models otherwise (Krichene & Rendle, "On Sampled Metrics for Item
Recommendation", KDD 2020). Items that the user has had stay in the ranking, or are left out: both conventions are common, and their
numbers differ much.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from sslcli.console import plural, say
from sslcli.data.histories.next_items import FIRST, NextItems, Part
from sslcli.data.histories.preprocessor import InteractionsPreprocessor
from sslcli.data.label_warnings import held_out_notes
from sslcli.errors import RequestError
from sslcli.evals.artefacts.tables import Table
from sslcli.evals.base.features import EvalData
from sslcli.evals.base.result import Artefact, Result
from sslcli.evals.metrics.interval import Interval
from sslcli.evals.pairing.ranks import SUFFIXES
from sslcli.evals.recommendation.item_map import ItemMap
from sslcli.evals.recommendation.models import BASELINES, MethodScores, Scorer, SimilarUsers, item_counts
from sslcli.evals.recommendation.ranks import metrics, target_ranks, without_seen
from sslcli.evals.recommendation.saved_ranks import Ranks
from sslcli.methods.base import Method
from sslcli.rng import derive, order
from sslcli.runs import Record
from sslcli.runtime.progress import track
from sslcli.views.modality import modality

AT_ONCE = 20_000_000  # scores in memory
MAPPED = 300  # items of the map
SHOWN, BEST, RECENT = 8, 5, 5  # users of the table of examples, their best items, and the last ones of their histories
CONVENTIONS = {
    "keep": "items that the user has had stay in the ranking (seen=keep)",
    "mask": "items that the user has had are left out of the ranking; a target among them is missed (seen=mask)",
}
HINT = "sslcli pretrain method=sasrec dataset=interactions dataset.path=u.data"


def recommend(
    backbone: nn.Module,
    data: EvalData,
    *,
    seen: str = "both",
    cutoffs: list[int] | None = None,
    part: Part = "test",
    max_users: int | None = None,
    neighbors: int = 100,
    baselines: bool = True,
) -> Result:
    """Returns `hr@K`, `ndcg@K` and `mrr@K` for each cutoff K with seen items kept in the ranking, and `hr_masked@K`, ... without
    them; and the same of baselines fitted to the training events: `popularity.`, `markov.`, `item_knn.`, and of the `untrained.`
    method. Ties count half.

    A method that predicts the next item scores it; for others the items of the most similar users do (`neighbors` of them).
    `seen`: keep, mask or both. `part`: test, or val. `max_users`: of those with an item to predict, None for all. RequestError
    where the data set has no histories with an item to predict, or for settings out of range."""
    whole = data.dataset.next_items
    if whole is None:
        raise RequestError(f"{data.dataset.name} has no histories of users, which recommendation requires", HINT)
    conventions = _conventions(seen)
    tops = [10, 20] if cutoffs is None else list(cutoffs)
    if not tops or any(isinstance(k, bool) or not isinstance(k, int) or k < 1 for k in tops):
        raise RequestError(f"evaluator.cutoffs={cutoffs}: expected integers of at least 1", "evaluator.cutoffs=[10,20]")
    if part not in ("val", "test") or neighbors < 1 or (max_users is not None and max_users < 1):
        raise RequestError(
            "evaluator.part is val or test, neighbors and max_users are at least 1", "evaluator.part=test"
        )
    users, places = whole.targets(part)
    if not len(users):
        raise RequestError(f"{data.dataset.name} has no item to predict in the {part} part", "dataset.split=last")
    if max_users is not None and len(users) > max_users:
        chosen = order(derive(data.seed, "recommend"), 0, len(users))[:max_users].sort().values
        users, places = users[chosen], places[chosen]
    say(f"judged by {plural(len(users), 'user')} of {len(whole.events):,}, those with an item to predict ({part})")
    scorers = _scorers(backbone, data, whole, neighbors, baselines)
    ranks = rank_all(scorers, whole, users, places, conventions)
    numbers: dict[str, float] = {}
    intervals: dict[str, Interval] = {}
    for (name, convention), of in ranks.items():
        values, bounds = metrics(of, tops, convention)
        prefix = f"{name}." if name else ""
        numbers |= {prefix + key: value for key, value in values.items()}
        intervals |= {prefix + key: value for key, value in bounds.items()}
    for convention in conventions:
        say(f"*{SUFFIXES[convention]}@K: {CONVENTIONS[convention]}")
    own = data.dataset.preprocessor
    assert isinstance(own, InteractionsPreprocessor), own
    saved, seed = Ranks(users, whole.items_at(users, places) - FIRST, ranks), derive(data.seed, "paired", "recommend")
    verdicts = saved.notes(seed)
    for verdict in verdicts:
        say(verdict)
    protocol: Record = {
        "part": part,
        "division": whole.rule,
        "ranking": f"all {whole.items:,} items, none sampled; of equal scores half are counted as better",
        "seen": {f"*{SUFFIXES[convention]}@K": CONVENTIONS[convention] for convention in conventions},
        "scores": scorers[""].note,
        "users": len(users),
        "baselines": {name: {"note": scorer.note} for name, scorer in scorers.items() if name},
        "intervals": "over users",
        "notes": [*_notes(whole, users, places, baselines, data), *verdicts],
    }
    tables: dict[str, Artefact] = {
        "ranking.csv": _table(ranks, tops),
        "examples.csv": _examples(scorers[""], data, whole, users, places),
    }
    tables |= saved.files(whole.users, own.items, seed)
    if (items := _item_map(backbone, data, whole)) is not None:
        tables["items.png"] = items
    return Result(numbers, protocol, tables, {}, intervals)


def _conventions(seen: str) -> list[str]:
    if seen not in ("both", *CONVENTIONS):
        raise RequestError(f"evaluator.seen={seen}: expected keep, mask or both", "evaluator.seen=both")
    return list(CONVENTIONS) if seen == "both" else [seen]


def _scorers(
    backbone: nn.Module, data: EvalData, whole: NextItems, neighbors: int, baselines: bool
) -> dict[str, Scorer]:
    """By the prefix of their metrics; "" is the run."""

    def of(method: Method | None, network: nn.Module) -> Scorer:
        if method is not None and predicts_next(method, data):
            return MethodScores(method, whole, data.dataset.shape[0], data.device, data.autocast)
        return SimilarUsers(network, data, whole, neighbors)

    out = {"": of(None if data.pretraining is None else data.pretraining()[0], backbone)}
    if baselines:
        train = whole.training()
        out |= {name: kind(train, whole) for name, kind in BASELINES.items()}
        if (untrained := data.untrained_backbone) is not None:
            method = None if data.untrained_method is None else data.untrained_method()
            out["untrained"] = of(method, untrained)
    return out


def predicts_next(method: Method, data: EvalData) -> bool:
    """Whether a method scores the next item."""
    dataset = data.dataset
    x = modality(dataset.modality).dummy(dataset.shape, dataset.values, 2).to(data.device)
    with torch.no_grad(), data.autocast():
        return method.next_scores(x) is not None


def rank_all(
    scorers: dict[str, Scorer], whole: NextItems, users: Tensor, places: Tensor, conventions: list[str]
) -> dict[tuple[str, str], Tensor]:
    """The rank (m,) of each target by the name of the scorer and the convention."""
    found: dict[tuple[str, str], list[Tensor]] = {(name, c): [] for name in scorers for c in conventions}
    size = max(1, AT_ONCE // whole.items)
    batches = list(zip(users.split(size), places.split(size), strict=True))
    for some, at in track(batches, "users", len(users), size=lambda batch: len(batch[0])):
        target = whole.items_at(some, at) - FIRST
        before = whole.first(some, at)
        rows = torch.arange(len(some)).repeat_interleave(before.lengths)
        for name, scorer in scorers.items():
            scores = scorer.scores(some, at)
            for convention in conventions:
                left = scores if convention == "keep" else without_seen(scores, rows, before.flat.long() - FIRST)
                found[name, convention].append(target_ranks(left, target))
    return {key: torch.cat(parts) for key, parts in found.items()}


def _notes(whole: NextItems, users: Tensor, places: Tensor, baselines: bool, data: EvalData) -> list[str]:
    """Facts about the targets, after those about the data; items are held out, although no users may be."""
    notes = [note for note in data.notes if note not in held_out_notes(data.dataset)]
    known = item_counts(whole.training(), whole.items) > 0
    target = whole.items_at(users, places)
    if n := int((~known[target - FIRST]).sum()):
        notes.append(f"{plural(n, 'target')} of {len(users):,} without a training event, which no model can know")
    before = whole.first(users, places)
    again = before.flat == target.repeat_interleave(before.lengths).to(before.flat.dtype)
    rows = torch.arange(len(users)).repeat_interleave(before.lengths)
    if n := len(rows[again].unique()):
        notes.append(f"{plural(n, 'target')} of {len(users):,} that the user has had before")
    if n := int((~whole.trained[users]).sum()):
        notes.append(f"{plural(n, 'user')} of {len(users):,} whose events training did not read")
    return notes if baselines else [*notes, "baselines were not evaluated (evaluator.baselines=false)"]


def _table(ranks: dict[tuple[str, str], Tensor], cutoffs: list[int]) -> Table:
    rows = []
    for (name, convention), of in ranks.items():
        values = metrics(of, cutoffs, "keep")[0]
        rows.append((name or "this run", convention, *(round(v, 4) for v in values.values())))
    header = ("model", "seen", *(f"{m}@{k}" for k in cutoffs for m in ("hr", "ndcg", "mrr")))
    return Table(header, rows, "ranks of the next item; seen: whether items that the user has had stay in the ranking")


def _item_map(backbone: nn.Module, data: EvalData, whole: NextItems) -> ItemMap | None:
    """Of the most popular items with training events; None for a backbone without embeddings of items, and for fewer than three."""
    embedding = getattr(backbone, "token_embedding", None)
    counts = item_counts(whole.training(), whole.items)
    best = counts.argsort(descending=True, stable=True)[: min(MAPPED, int((counts > 0).sum()))] + FIRST
    if embedding is None or len(best) < 3:
        return None
    vectors = embedding.weight.detach()[best.to(embedding.weight.device)].float().cpu().numpy()
    names = modality(data.dataset.modality).spell(best.tolist(), data.dataset)
    return ItemMap(names, vectors, derive(data.seed, "map"))


def _examples(scorer: Scorer, data: EvalData, whole: NextItems, users: Tensor, places: Tensor) -> Table:
    """The last items of some users, the best scores among items that they have not had, and what they took."""
    kind, dataset = modality(data.dataset.modality), data.dataset
    chosen = order(derive(data.seed, "examples"), 0, len(users))[:SHOWN].sort().values
    some, at = users[chosen], places[chosen]
    scores, target, before = scorer.scores(some, at), whole.items_at(some, at), whole.first(some, at)
    rows_of = torch.arange(len(some)).repeat_interleave(before.lengths)
    best = without_seen(scores, rows_of, before.flat.long() - FIRST).topk(min(BEST, whole.items)).indices
    recent = whole.histories(some, at, RECENT)
    rows = []
    for i, user in enumerate(some.tolist()):
        last = kind.spell([t for t in recent[i].tolist() if t >= FIRST], dataset)
        first = kind.spell((best[i] + FIRST).tolist(), dataset)
        took = kind.spell([int(target[i])], dataset)[0]
        rows.append((whole.users[user], " · ".join(last), " · ".join(first), took))
    return Table(("user", "last items", "best scores", "took next"), rows, "recommendations for some users")
