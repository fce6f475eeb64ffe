"""Names of the windows of recordings: that of the recording and the first step, `pump 3.csv:200`."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from torch import Tensor

WINDOW = re.compile(r"(.+):(\d+)", re.DOTALL)


class WindowNames(Sequence[str]):
    """The names of windows with `spans` (n, 3), see `Source`, of `recordings`, made when they are asked for."""

    def __init__(self, recordings: Sequence[str], spans: Tensor):
        self._recordings, self._spans = recordings, spans

    def __len__(self) -> int:
        return len(self._spans)

    def recordings(self) -> list[str]:
        """The name of the recording of each window."""
        return [self._recordings[i] for i in self._spans[:, 0].tolist()]

    def __getitem__(self, at: Any) -> Any:
        if isinstance(at, slice):
            return [self[i] for i in range(*at.indices(len(self)))]
        recording, start, _ = self._spans[at].tolist()
        return f"{self._recordings[recording]}:{start}"


def windows_of_recordings(names: Sequence[str] | None) -> dict[str, list[int]]:
    """By the name of a recording, the places of its windows; empty where `names` are not all those of windows."""
    found: dict[str, list[int]] = {}
    for place, name in enumerate(names or ()):
        match = WINDOW.fullmatch(name)
        if match is None:
            return {}
        found.setdefault(match[1], []).append(place)
    return found
