"""Pretrained encoders of other libraries, as `init=SCHEME:NAME` names them: what a reader of such a format answers.

An encoder is asked in the order of a run: `configure` completes a configuration before anything is built, `preprocessor` converts
the samples, `load` fills the backbone, and `load_heads` the heads of a method.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

from torch import nn

from sslcli.config import Config
from sslcli.config.overrides import override_keys
from sslcli.data.dataset import Preprocessor
from sslcli.errors import RequestError
from sslcli.methods.base import Method
from sslcli.runs import Record


class PretrainedEncoder(ABC):
    """A pretrained encoder. The constructor reads what describes it, and no weights: RequestError where there is no such encoder
    or it is not supported, DataError where a file is damaged."""

    scheme: ClassVar[str]
    usage: ClassVar[str]  # for messages: "hf:FOLDER"

    def __init__(self, name: str, download: bool = False):
        """`download`: whether what is not on this machine may be downloaded."""
        self.name = name

    @property
    def spec(self) -> str:
        return f"{self.scheme}:{self.name}"

    @classmethod
    def recognizes(cls, folder: Path) -> bool:
        """Whether a folder that was named without a scheme holds an encoder of this format."""
        return False

    @abstractmethod
    def resolved(self) -> str:
        """The spec with an absolute path, so that it means the same in another folder."""

    @abstractmethod
    def configure(self, values: Config, overrides: Sequence[str]) -> Config:
        """A resolved configuration with the backbone of this encoder, and with what its data set must have.

        `overrides`: of the command line. RequestError where one contradicts the encoder."""

    @abstractmethod
    def preprocessor(self, dataset: Config) -> Preprocessor | None:
        """What converts the samples of a data set, given its configuration; None where the data set fits its own."""

    @abstractmethod
    def load(self, backbone: nn.Module) -> str:
        """Fills a backbone, and describes what was matched, missing and ignored. RequestError, DataError."""

    def load_heads(self, method: Method) -> str:
        """Fills the heads of a method that the encoder has too, and describes which; "" for none."""
        return ""

    def method(self, backbone: nn.Module) -> Method | None:
        """The method that the encoder was pretrained with, on a backbone with its weights and with its heads, for evaluators that
        ask a method; None where it has none of them."""
        return None

    @abstractmethod
    def open(self, shape: tuple[int, ...] | None = None) -> tuple[nn.Module, Record, Preprocessor]:
        """The backbone with its weights, what encoder.json would hold, and the preprocessor.

        `shape`: of the samples, for networks that support several; None for that of the pretraining."""


def with_backbone(
    values: Config, overrides: Sequence[str], node: Config, free: frozenset[str], encoder: PretrainedEncoder
) -> Config:
    """`values` with the backbone `node`; keys in `free` may be chosen on the command line.

    RequestError where an override has another value for one of the other keys."""
    given, composed = override_keys(list(overrides)), values["backbone"]
    keys = [key.partition(".")[2] for key in given if key.startswith("backbone.")]
    checked = [*keys, *(node if "backbone" in given else ())]
    for key in checked:
        here, there = composed.get(key), node.get(key)
        if key not in free and key != "summary" and here not in (there, "auto"):
            name = "backbone" if key == "_target_" else f"backbone.{key}"
            raise RequestError(
                f"{name}={here} contradicts init={encoder.spec}, whose encoder has {there}",
                "leave it out: the backbone follows the pretrained encoder",
            )
    chosen = {key: composed[key] for key in keys if key in free and key in composed}
    return {**values, "backbone": {**node, **chosen}}
