"""`init=FILE`: weights that another program wrote, for the backbone of the configuration."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

from torch import nn

from sslcli.backbones.timm_model import TimmModel
from sslcli.backbones.weights import families, matching, reading
from sslcli.backbones.weights.families import Normalization
from sslcli.config import Config, registry
from sslcli.errors import RequestError
from sslcli.formats.images import ImageEncoder, normalization_note, with_normalization, with_size

SIZE = 224  # of the images that published networks were trained on, where their files do not say it


class WeightsFile(ImageEncoder):
    """The stem and the patches of the backbone follow the file where they are `auto`, and the normalization where the file shows
    the code that wrote it."""

    scheme = ""
    usage = "FILE"

    def __init__(self, name: str, download: bool = False):
        super().__init__(name)
        self._tensors: Any = None

    @property
    def spec(self) -> str:
        return self.name

    def resolved(self) -> str:
        return os.path.abspath(os.path.expanduser(self.name))

    def tensors(self) -> Any:
        if self._tensors is None:
            self._tensors = reading.read(self.name)
        return self._tensors

    def normalization(self) -> Normalization | None:
        return families.normalization(self.tensors())

    def size(self) -> int:
        return SIZE

    def configure(self, values: Config, overrides: Sequence[str]) -> Config:
        values = {**values, "backbone": families.with_architecture(values["backbone"], self.tensors())}
        if self.normalization() is not None:  # a published network
            values = with_size(values, overrides, self.size())
        return with_normalization(values, self.normalization())

    def load(self, backbone: nn.Module) -> str:
        said, known = matching.load_into(backbone, self.tensors(), self.spec), self.normalization()
        return said + (
            normalization_note(known) or "; inputs are normalized by this data set's own mean and standard deviation"
        )

    def backbone(self) -> Config:
        """The first backbone that the file matches, or timm's model of DINOv2 or DINOv3. RequestError for others."""
        name = matching.matching_backbone(self.tensors(), (3, self.size(), self.size()))
        if name is not None:
            node = registry.describe(registry.choices("backbone")[name], "backbone")
            return families.with_architecture(node, self.tensors())
        if (model := families.timm_name(self.tensors())) is not None:
            return {"_target_": f"{TimmModel.__module__}.{TimmModel.__qualname__}", "name": model}
        raise RequestError(
            f"{self.spec}: no backbone is known that these weights match",
            "start a run from the file, with its backbone (sslcli pretrain init=FILE backbone=...), and use that run",
        )
