"""Images with captions. Views are those of the images; methods that read captions receive them beside the views."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from sslcli.data.dataset import Dataset, Source
from sslcli.data.image_text.preprocessor import PairsPreprocessor
from sslcli.views.image import ImageModality
from sslcli.views.modality import Terms
from sslcli.views.preview.base import Preview
from sslcli.views.preview.picture import Captioned, Picture
from sslcli.views.texts.terms import NOTE, class_terms


class PairsModality(ImageModality):
    """Images with captions: raw and views as those of images."""

    batch_size = 128

    def present(self, shown: list[Preview], source: Source, ids: Tensor, dataset: Dataset) -> list[Preview]:
        """Each image with its first caption."""
        if source.captions is None or not isinstance(dataset.preprocessor, PairsPreprocessor):
            return shown
        first = [source.captions.of(i)[0] for i in ids.tolist()]
        texts = dataset.preprocessor.captions.decode(first)
        return [
            Captioned(preview.pixels, text) if isinstance(preview, Picture) else preview
            for preview, text in zip(shown, texts, strict=True)
        ]

    def terms(self, source: Source, groups: Tensor, dataset: Dataset, count: int) -> Terms | None:
        """The words of the captions."""
        if source.captions is None or not isinstance(dataset.preprocessor, PairsPreprocessor):
            return None
        captions, preprocessor = source.captions, dataset.preprocessor.captions
        ids = torch.nonzero(groups >= 0)[:, 0]

        def texts() -> Iterator[str]:
            return (" ".join(preprocessor.decode(captions.of(i))) for i in ids.tolist())

        return Terms(NOTE, class_terms(texts(), groups[ids], count))
