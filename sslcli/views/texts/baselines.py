"""What text is compared with: TF-IDF of words, reduced by latent semantic analysis, or with logistic regression.

Both see whole documents, which views of an encoder cut. scikit-learn's vectorizer lower-cases text and takes runs of two or more
letters and digits as words.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sslcli.data.text.preprocessor import TextPreprocessor
from sslcli.errors import DataError
from sslcli.views.modality import Baseline, RawFeatures
from sslcli.views.texts.documents import Documents

FEATURES = 50_000  # words of LSA, the most frequent ones
DIM = 256


class LSA(RawFeatures):
    """TF-IDF of words, log-scaled counts, and its projection to at most 256 dimensions by a truncated SVD of training documents
    (Deerwester et al., "Indexing by latent semantic analysis", JASIS 1990)."""

    fitted = True

    def __init__(self, preprocessor: TextPreprocessor):
        self.preprocessor = preprocessor
        self._vectorizer: Any = None
        self._svd: Any = None

    def fit(self, batches: Iterator[Any]) -> None:
        from sklearn.decomposition import TruncatedSVD

        texts = [text for batch in batches for text in self._texts(batch)]
        self._vectorizer, x = fit_vectorizer(texts, ngrams=1, max_features=FEATURES)
        dim = min(DIM, min(x.shape) - 1)
        if dim > 0:
            self._svd = TruncatedSVD(dim, random_state=0, n_iter=4).fit(x)

    def transform(self, x: Any) -> Tensor:
        z = self._vectorizer.transform(self._texts(x))
        dense: np.ndarray = z.toarray() if self._svd is None else self._svd.transform(z)
        return torch.from_numpy(np.ascontiguousarray(dense, dtype=np.float32))

    def _texts(self, x: Tensor | Documents) -> Iterable[str]:
        """Documents as strings; of clean views (B, L), for example of corrupted samples, their decoded content."""
        return self.preprocessor.decode(x) if isinstance(x, Tensor) else x


class TfIdf(Baseline):
    """Logistic regression on TF-IDF of words and pairs of words. Words and their frequencies are those of all `training`
    documents, because most of these have no label."""

    note = (
        "scikit-learn's logistic regression, C 10, on TF-IDF of words and pairs of words of the whole documents, with "
        "log-scaled counts and the frequencies of all training documents"
    )

    def __init__(self, training: Documents):
        self.training = training
        self._vectorizer: Any = None
        self._of_training: Any = None  # (n, words) sparse: draws of labels select rows of it
        self._last: tuple[Documents, Any] | None = None  # the same test documents are predicted for each draw

    def fit(self, x: Documents, y: Tensor, seed: int, class_weight: str | None = None) -> Callable[[Documents], Tensor]:
        from sklearn.linear_model import LogisticRegression

        if self._vectorizer is None:
            least = 2 if len(self.training) > 1000 else 1
            self._vectorizer, self._of_training = fit_vectorizer(self.training, ngrams=2, min_df=least)
        model = LogisticRegression(C=10.0, max_iter=2000, class_weight=class_weight).fit(self._features(x), y.numpy())
        return lambda new: torch.from_numpy(np.asarray(model.predict_proba(self._features(new))))

    def _features(self, x: Documents) -> Any:
        """(n, words) sparse."""
        if x.source is self.training.source:
            return self._of_training[x.ids.numpy()]
        if self._last is None or self._last[0] is not x:
            self._last = x, self._vectorizer.transform(x)
        return self._last[1]


def fit_vectorizer(
    texts: Iterable[str], ngrams: int, min_df: int = 1, max_features: int | None = None
) -> tuple[Any, Any]:
    """TF-IDF of training documents, and their features (n, words), sparse. DataError where they hold no word."""
    from sklearn.feature_extraction.text import TfidfVectorizer

    out = TfidfVectorizer(
        ngram_range=(1, ngrams), sublinear_tf=True, min_df=min_df, max_features=max_features, dtype=np.float32
    )
    try:
        return out, out.fit_transform(texts)
    except ValueError:
        raise DataError(
            "no training document holds a word of two letters: TF-IDF has no features", "evaluator.baselines=false"
        ) from None
