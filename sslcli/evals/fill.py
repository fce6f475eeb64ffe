"""Masked-token prediction: how well the method of a run predicts hidden tokens of held-out samples.

The task of Devlin et al., "BERT", NAACL 2019, Sec. 3.1. Here each chosen token is replaced by [MASK]; in pretraining some are left
as they are or replaced by another token.
"""

from __future__ import annotations

import torch
from torch import nn

from sslcli.console import say
from sslcli.errors import RequestError
from sslcli.evals.base.features import EvalData
from sslcli.evals.base.result import Result
from sslcli.evals.metrics.interval import Interval
from sslcli.evals.tokens import sentences
from sslcli.evals.tokens.masking import masked_batches, predict
from sslcli.evals.tokens.scores import TokenScores, unigram
from sslcli.methods.base import Method
from sslcli.nn.values import Tokens
from sslcli.rng import derive, order
from sslcli.views.modality import modality

SHOWN = 10
HINT = "sslcli pretrain method=mlm dataset=capitals"


def fill(
    backbone: nn.Module,
    data: EvalData,
    *,
    text: str | list[str] | None = None,
    share: float = 0.15,
    max_samples: int = 2000,
    baselines: bool = True,
) -> Result:
    """Returns `accuracy`, `top5` and `perplexity` over hidden tokens of held-out samples: the share of them that have the largest
    probability, and one of the five largest, and the exponential of the mean negative log-likelihood. The same for a `unigram.`
    model (how often each token occurs in the training split, without any context) and for the `untrained.` network, and where
    training started from a pretrained one with its heads, for the `given.` network.

    `share` of the content of each sample is hidden, at least one token, never a special one; the choice is a function of the seed
    and the sample. With `text`, nothing is measured: the answers are the five most likely tokens of each [MASK] in it.
    `backbone` is not used: the method has its own. RequestError where the run's method predicts no hidden tokens.
    """
    if not 0 < share < 1 or max_samples < 1:
        raise RequestError(
            "evaluator.share is between 0 and 1, and evaluator.max_samples at least 1", "evaluator.share=0.15"
        )
    texts = None if text is None else sentences.check_texts(text)
    values = _vocabulary(data)
    method = _method(data, values)
    if texts is not None:
        answers = sentences.answer(texts, method, data, values)
        for i, one in enumerate(answers, start=1):
            say(f"{i}: {one.text}")
        lines = [line for i, one in enumerate(answers, start=1) for line in one.lines(i)]
        return Result({}, {"notes": []}, details={"texts": [one.record() for one in answers]}, answers=lines)
    return _measure(method, data, values, share, max_samples, baselines)


def _measure(method: Method, data: EvalData, values: Tokens, share: float, max_samples: int, baselines: bool) -> Result:
    split = data.eval_split
    source = data.source(split)
    ids = order(derive(data.seed, "fill"), 0, len(source))[:max_samples]
    shown = set(ids[:SHOWN].tolist())
    methods = {"": method}
    if baselines and data.untrained_method is not None:
        methods["untrained."] = data.untrained_method()
    if baselines and data.given_method is not None and (given := data.given_method()) is not None:
        methods["given."] = given
    scores = {prefix: TokenScores() for prefix in methods}
    if baselines:
        scores["unigram."] = TokenScores()
        frequencies = unigram((x for _, x in data.batches("train")), values).to(data.device)
    examples = []
    samples = 0
    for part, x, where in masked_batches(data, values, split, ids.sort().values, share):
        samples += len(x)
        for prefix, one in methods.items():
            log_p = predict(one, data, values, x, where)
            assert log_p is not None
            scores[prefix].add(log_p, x, where)
        if baselines:
            scores["unigram."].add(frequencies.expand(int(where.sum()), -1), x, where)
        for j, i in enumerate(part.tolist()):
            places = torch.nonzero(where[j]).flatten()
            if i in shown and len(places):
                examples.append(sentences.example(x[j], int(places[len(places) // 2]), method, data, values))
    if scores[""].tokens == 0:
        raise RequestError(f"no {split} sample of {data.dataset.name} has a token to hide", "sslcli data inspect")
    metrics: dict[str, float] = {}
    intervals: dict[str, Interval] = {}
    for prefix, one_scores in scores.items():
        values_of, bounds = one_scores.metrics(prefix)
        metrics |= values_of
        intervals |= bounds
    protocol = {
        "method": type(method).__name__,
        "split": split,
        "samples": samples,
        "hidden": f"{share:.0%} of the tokens of each sample, all of them by [MASK]; special tokens are not hidden",
        "judged": "hidden tokens",
        "tokens": scores[""].tokens,
        "vocabulary": values.size,
        "baselines": {
            "unigram": {"note": "frequencies of tokens in clean views of the training split, plus one each"},
        }
        if baselines
        else {},
        "intervals": "over documents",
        "notes": _notes(data, baselines),
    }
    return Result(metrics, protocol, {"sentences.csv": sentences.table(examples)}, {}, intervals)


def _vocabulary(data: EvalData) -> Tokens:
    values = data.dataset.values
    if not isinstance(values, Tokens) or values.mask is None:
        noun = modality(data.dataset.modality).noun[1]
        raise RequestError(f"fill predicts hidden tokens of a vocabulary; {noun} have none", HINT)
    return values


def _method(data: EvalData, values: Tokens) -> Method:
    """The method of the run, which predicts hidden tokens."""
    if data.pretraining is None:
        raise RequestError("an untrained backbone predicts no hidden tokens", HINT)
    method, _ = data.pretraining()
    dataset = data.dataset
    x = modality(dataset.modality).dummy(dataset.shape, values, 2).to(data.device)
    if predict(method, data, values, x, torch.zeros_like(x, dtype=torch.bool)) is None:
        raise RequestError(f"{type(method).__name__} does not predict hidden tokens", HINT)
    return method


def _notes(data: EvalData, baselines: bool) -> list[str]:
    return [*data.notes, *([] if baselines else ["baselines were not evaluated (evaluator.baselines=false)"])]
