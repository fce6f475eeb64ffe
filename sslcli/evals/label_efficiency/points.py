"""Points of a label-efficiency curve, kept in the run folder as soon as they are measured.

A curve takes minutes to hours, nearly all of them for networks that are trained from scratch. A later evaluation reuses the points
that depend on equal settings, weights and data: it continues an interrupted one, or adds numbers of labels and draws.

    cache/label_curve.jsonl     one JSON object a line: point, key, value, signature

As with cached features, a line is used only if its signature shows that this user wrote it: a run folder may come from anyone.
"""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import nn

from sslcli import __version__
from sslcli.console import plural, say, warn
from sslcli.errors import StorageError
from sslcli.evals.base.features import EvalData
from sslcli.evals.inputs.feature_cache import raw_bytes
from sslcli.evals.regression.values import all_values
from sslcli.runs import Record
from sslcli.runs.files import append_line, make_folder, read_lines
from sslcli.runs.find import run_command, short_name
from sslcli.runtime.device import autocast_dtype
from sslcli.runtime.folders import user_key
from sslcli.runtime.progress import track

FORMAT = 1  # of the lines; raise it when the same settings would give other values
FILE = "label_curve.jsonl"

Point = tuple[Record, Callable[[], Record]]  # its settings, and what measures it


class CurvePoints:
    """The points of the curve of a backbone. Without a run folder they are measured and not kept."""

    def __init__(self, backbone: nn.Module, data: EvalData):
        self.basis = _basis(backbone, data)
        self.folder = data.cache.folder if data.cache is not None else None
        self.secret = user_key() if self.folder is not None else None
        self.used = 0
        self.known: dict[str, Record] = {}
        if self.folder is not None and self.secret is not None:
            lines, _ = read_lines(self.folder.parent, f"{self.folder.name}/{FILE}")
            self.known = {line["key"]: line["value"] for line in lines if self._is_signed(line)}

    def has(self, points: Sequence[Point]) -> bool:
        """Whether all `points` are there already."""
        return all(self._key(settings) in self.known for settings, _ in points)

    def measure(self, label: str, points: Sequence[Point]) -> list[Record]:
        """The values of all `points`, of which those that are not there yet are measured one after the other, with progress."""
        keys = [self._key(settings) for settings, _ in points]
        missing = [i for i, key in enumerate(keys) if key not in self.known]
        self.used += len(points) - len(missing)
        if known := len(points) - len(missing):
            say(f"{label}: {known} of {plural(len(points), 'point')} were measured before with equal settings")
        for i in track(missing, label):
            settings, measure = points[i]
            self._keep(settings, keys[i], measure())
            self.used += 1
        return [self.known[key] for key in keys]

    @contextmanager
    def reported(self) -> Iterator[None]:
        """Where the block is interrupted or fails, logs which points are kept and how to continue."""
        try:
            yield
        except BaseException:
            if self.used and self.folder is not None and self.secret is not None:
                run = self.folder.parent
                again = run_command(run, "eval", "labels", f"run={short_name(run)}")
                kept = f"{plural(self.used, 'point')} of the curve in {self.folder / FILE}"
                say(f"kept {kept}; `{again}` with the same settings continues")
            raise

    def _key(self, settings: Record) -> str:
        return hashlib.sha256(f"{self.basis} {json.dumps(settings, sort_keys=True)}".encode()).hexdigest()

    def _keep(self, settings: Record, key: str, value: Record) -> None:
        text = json.dumps(value)
        self.known[key] = json.loads(text)  # as a later evaluation reads it
        if self.folder is None or self.secret is None:
            return
        line = {"point": settings, "key": key, "value": value, "signature": _signature(self.secret, key, text)}
        try:
            make_folder(self.folder.parent, self.folder.name)
            append_line(self.folder.parent, f"{self.folder.name}/{FILE}", json.dumps(line))
        except (OSError, StorageError) as error:
            warn(f"the points of the curve cannot be kept: {error}", "the evaluation continues without")
            self.secret = None

    def _is_signed(self, line: Record) -> bool:
        key, value, signature = (line.get(name) for name in ("key", "value", "signature"))
        if self.secret is None or not isinstance(key, str) or not isinstance(value, dict):
            return False
        return hmac.compare_digest(str(signature).encode(), _signature(self.secret, key, json.dumps(value)).encode())


def _signature(secret: bytes, key: str, text: str) -> str:
    return hmac.new(secret, f"{key} {text}".encode(), hashlib.sha256).hexdigest()


def _basis(backbone: nn.Module, data: EvalData) -> str:
    """A hash of what all points of a curve depend on: weights, both splits with labels and groups, views, draws, precision."""
    h = hashlib.sha256(
        f"{FORMAT} {__version__} {data.seed} {json.dumps(dict(data.recipes or {}), default=str)}".encode()
    )
    h.update(f" {autocast_dtype(data.training_autocast, data.device.type)} {data.batch_size}".encode())
    for split in ("train", "test"):
        source = data.source(split)
        y = all_values(data, split) if data.dataset.task == "value" else data.labels(split)
        groups = torch.empty(0) if source.groups is None else source.groups
        h.update(data.cache_key(backbone, split).encode())
        h.update(raw_bytes(y))
        h.update(raw_bytes(groups))
    return h.hexdigest()
