"""The preprocessor of images with captions: that of the images, and that of the captions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Self

from sslcli.data.dataset import Dataset, Preprocessor
from sslcli.data.images.preprocessor import ImagePreprocessor
from sslcli.data.text.preprocessor import TextPreprocessor
from sslcli.errors import RequestError, listing
from sslcli.nn.values import Values

PREFIX = "captions_"  # of the files of the preprocessor of captions


@dataclass(frozen=True)
class PairsPreprocessor(ImagePreprocessor):
    """Decodes images to uint8, as `ImagePreprocessor`, and converts captions to ids of tokens.

    captions: of the captions, fitted to those of the training samples."""

    kind: ClassVar[str] = "pairs"
    captions: TextPreprocessor = field(kw_only=True)

    @classmethod
    def of(cls, shape: tuple[int, ...], values: Values, details: Mapping[str, Any]) -> Self:
        raise NotImplementedError("a data set of the modality pairs must have a preprocessor")

    def to_json(self) -> dict[str, Any]:
        return {**super().to_json(), "captions": self.captions.to_json()}

    def files(self) -> dict[str, bytes]:
        own = self.captions.tokenizer.files()
        return {**super().files(), **{f"{PREFIX}{name}": content for name, content in own.items()}}

    @classmethod
    def from_json(cls, content: Mapping[str, Any], files: Mapping[str, bytes]) -> Self:
        images, captions = ImagePreprocessor.from_json(content, files), content.get("captions")
        if not isinstance(captions, dict):
            raise ValueError("captions: expected an object")
        own = {name.removeprefix(PREFIX): file for name, file in files.items() if name.startswith(PREFIX)}
        text = TextPreprocessor.from_json(captions, own)
        return cls(images.shape, images.values, images.range, captions=text)

    def differences(self, other: Preprocessor) -> list[str]:
        if not isinstance(other, PairsPreprocessor):
            return super().differences(other)
        before, now = (ImagePreprocessor(p.shape, p.values, p.range) for p in (self, other))
        images = before.differences(now)
        return [*images, *(f"captions: {change}" for change in self.captions.differences(other.captions))]

    def adapt(self, dataset: Dataset, notes: list[str]) -> Dataset:
        """As for images. Captions must have been read with this tokenizer; RequestError for others."""
        own = dataset.preprocessor
        if isinstance(own, PairsPreprocessor) and (changes := self.captions.differences(own.captions)):
            raise RequestError(f"the captions of {dataset.name} were read otherwise: {listing(changes, 5)}")
        return replace(super().adapt(dataset, notes), modality=self.kind, preprocessor=self)
