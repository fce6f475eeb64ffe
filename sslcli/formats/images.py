"""Pretrained encoders of images: a backbone, weights, a size, and the normalization of their inputs."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

from torch import nn

from sslcli.backbones.weights import matching
from sslcli.backbones.weights.families import Normalization
from sslcli.config import Config
from sslcli.config.overrides import override_keys
from sslcli.data.images.options import MAX_SIZE
from sslcli.data.images.preprocessor import ImagePreprocessor
from sslcli.errors import RequestError, command
from sslcli.formats.pretrained import PretrainedEncoder, with_backbone
from sslcli.nn.values import Continuous
from sslcli.runs import Record
from sslcli.runs.encoder import build_backbone

FREE = frozenset({"pool", "positions"})  # keys of a backbone that its weights do not determine


class ImageEncoder(PretrainedEncoder):
    """Subclasses name the backbone, and read the tensors when they are first asked for."""

    @abstractmethod
    def backbone(self) -> Config:
        """The node of a configuration that builds the network."""

    @abstractmethod
    def tensors(self) -> Any:
        """Nested dictionaries of tensors."""

    @abstractmethod
    def normalization(self) -> Normalization | None:
        """Of the inputs, in 0..1; None where the source does not define it."""

    @abstractmethod
    def size(self) -> int:
        """The side of the images that the weights were trained on."""

    def configure(self, values: Config, overrides: Sequence[str]) -> Config:
        values = with_backbone(values, overrides, self.backbone(), FREE, self)
        return with_normalization(with_size(values, overrides, self.size()), self.normalization())

    def preprocessor(self, dataset: Config) -> None:
        return None

    def load(self, backbone: nn.Module) -> str:
        said, side = matching.load_into(backbone, self.tensors(), self.spec), self.size()
        if list(backbone.input_shape[1:]) != [side, side]:  # type: ignore[index]
            said += f"; pretrained on images of {side} x {side}"
        return said + normalization_note(self.normalization())

    def open(self, shape: tuple[int, ...] | None = None) -> tuple[nn.Module, Record, ImagePreprocessor]:
        shape = shape or (3, self.size(), self.size())
        node, known = self.backbone(), self.normalization()
        if known is None:
            raise RequestError(
                f"{self.spec} does not define the mean and standard deviation of its inputs",
                f"start a run from it and use that run: {command('pretrain', f'init={self.spec}')}",
            )
        values = of_channels(known, shape[0])
        backbone = build_backbone(node, shape, values)
        self.load(backbone)
        info = {
            "format": 2,
            "backbone": node,
            "input_shape": list(shape),
            "values": values.to_json(),
            "modality": ImagePreprocessor.kind,
            "dataset": self.name,
            "method": self.scheme,
            "step": 0,
            "dim": backbone.dim,
        }
        return backbone, info, ImagePreprocessor(shape, values)


def with_size(values: Config, overrides: Sequence[str], side: int) -> Config:
    """A configuration whose views of large images have the side that the weights were trained on, up to `MAX_SIZE`, unless the
    request has a size: the default of a CPU is smaller."""
    node, given = values["dataset"], override_keys(list(overrides))
    if "max_size" not in node or {"dataset.max_size", "dataset.image_size"} & set(given):
        return values
    return {**values, "dataset": {**node, "max_size": min(side, MAX_SIZE)}}


def with_normalization(values: Config, known: Normalization | None) -> Config:
    """A configuration with the normalization of pretrained weights, unless it names one."""
    if known is None or values.get("normalization") is not None:
        return values
    return {**values, "normalization": {"mean": list(known.mean), "std": list(known.std)}}


def normalization_note(known: Normalization | None) -> str:
    """The end of a sentence about what was loaded."""
    return "" if known is None else f"; normalized as by {known.source}"


def of_channels(known: Normalization, channels: int) -> Continuous:
    """The values of images of any number of channels: the mean over channels where their number is another one."""
    mean, std = list(known.mean), list(known.std)
    if len(mean) != channels:
        mean, std = ([sum(v) / len(v)] * channels for v in (mean, std))
    return Continuous(tuple(mean), tuple(std))
