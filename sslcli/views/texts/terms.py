"""Words that characterize groups of documents: class-based TF-IDF.

Grootendorst, "BERTopic: Neural topic modeling with a class-based TF-IDF procedure", 2022, arXiv:2203.05794, Eq. 2:
W(t, c) = tf(t, c) log(1 + A / tf(t)), with the frequency of the word t in the group c, and in all groups, and the mean number A
of words of a group. Deviations: tf(t, c) is the share of the group's words, so that scores of groups of different sizes compare;
instead of a list of stop words, words that most documents have, or that are hardly more frequent in the group than in all, are left
out.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from torch import Tensor

from sslcli.data.text.tokenizer import SPECIAL

COMMON = 0.5  # words in a larger share of the documents are left out, where there are at least SOME
SOME = 20
LIFT = 1.2
LONGEST = 40  # characters of a word that are shown
NOTE = (
    "class-based TF-IDF, without words that more than half of the documents have, or that are less than 1.2 times as frequent in "
    "the cluster as in all"
)


def class_terms(texts: Iterable[str], groups: Tensor, count: int) -> list[list[tuple[str, float]]]:
    """At most `count` words with the largest scores for each group. groups: (n,) int64, the group 0..K-1 of each text."""
    from sklearn.feature_extraction.text import CountVectorizer

    total = int(groups.max()) + 1 if len(groups) else 0
    vectorizer = CountVectorizer(dtype=np.int64)
    try:
        counts = vectorizer.fit_transform(map(without_special, texts))  # (n, words)
    except ValueError:  # no document has a word
        return [[] for _ in range(total)]
    return characteristic(counts, groups, total, vectorizer.get_feature_names_out(), count)


def characteristic(
    counts: Any, groups: Tensor, total: int, names: Sequence[Any], count: int
) -> list[list[tuple[str, float]]]:
    """At most `count` words with the largest scores for each of `total` groups.

    counts: sparse (n, words), how often a sample has a word. groups: (n,) int64. names: of the words."""
    frequency = _sums(counts, groups, total)  # (K, words)
    words, everywhere = frequency.sum(axis=1, keepdims=True), frequency.sum(axis=0)
    share = frequency / np.maximum(words, 1)
    typical = share >= LIFT * everywhere / words.sum()
    if len(groups) >= SOME:
        typical &= np.bincount(counts.indices, minlength=counts.shape[1]) <= COMMON * len(groups)
    scores = np.where(typical, share * np.log1p(words.mean() / np.maximum(everywhere, 1)), 0.0)
    best = np.argsort(-scores, axis=1, kind="stable")[:, :count]
    return [
        [(str(names[j])[:LONGEST], float(scores[c, j])) for j in row if scores[c, j] > 0]
        for c, row in enumerate(best.tolist())
    ]


def _sums(counts: Any, groups: Tensor, total: int) -> np.ndarray:
    """The rows of a sparse matrix (n, words), summed by group: (K, words) float64."""
    from scipy.sparse import csr_matrix

    n = len(groups)
    member = csr_matrix((np.ones(n), (groups.numpy(), np.arange(n))), shape=(total, n))
    out: np.ndarray = (member @ counts).toarray()
    return out


def without_special(text: str) -> str:
    """A decoded document without the names of special tokens, which would be words."""
    for name in SPECIAL:
        text = text.replace(name, " ")
    return text
