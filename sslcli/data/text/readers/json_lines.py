"""Read JSON Lines: an object on each line, in the form of `DelimitedFile`."""

from __future__ import annotations

import codecs
import itertools
import json
from collections.abc import Collection, Iterator, Sequence
from typing import Any

import numpy as np

from sslcli.console import escape
from sslcli.data.text.lines import TextFile
from sslcli.errors import DataError

BLOCK = 1 << 13  # rows
SAMPLE = 1000  # lines whose keys are the columns


def is_json(path: str) -> bool:
    """Whether a file begins as JSON, also where it is compressed. DataError where it cannot be read."""
    with TextFile(path).open() as file:
        head = file.read(1 << 10).removeprefix(codecs.BOM_UTF8).lstrip()[:1]
    if head == b"[":
        raise DataError(
            f"{escape(path)} is one JSON array, not an object on each line",
            "convert it: jq -c '.[]' FILE.json > NEW.jsonl",
        )
    return head == b"{"


class JsonLinesFile:
    """The objects of a file. `columns`: the keys of the first ones. Values are text; a text column must hold strings.

    DataError for a line that is no object, with its number."""

    def __init__(self, path: str):
        self.path, self.what = path, escape(path)
        keys: dict[str, None] = {}
        for _, row in itertools.islice(self._rows(), SAMPLE):
            keys |= dict.fromkeys(row)
        self.columns = list(keys)

    def blocks(self, names: Collection[str]) -> Iterator[tuple[np.ndarray, dict[str, Sequence[Any]]]]:
        """Blocks of rows: the line of each (n,) int64, and by the name of a column its values (n,): "" where it is null, None
        where there is none."""
        rows = self._rows()
        while block := list(itertools.islice(rows, BLOCK)):
            lines = np.array([line for line, _ in block])
            yield lines, {name: [_value(row, name) for _, row in block] for name in names}

    def _rows(self) -> Iterator[tuple[int, dict[str, Any]]]:
        for number, line in self._lines():
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except (ValueError, RecursionError) as error:
                problem = error.msg if isinstance(error, json.JSONDecodeError) else "not valid"
                raise DataError(f"{self.what}, line {number:,}: not valid JSON: {problem}") from None
            if not isinstance(row, dict):
                raise DataError(
                    f"{self.what}, line {number:,}: expected an object such as {{'text': '...', 'label': '...'}}"
                )
            yield number, row

    def _lines(self) -> Iterator[tuple[int, bytes]]:
        rest, number = [], 1
        for block in TextFile(self.path).blocks():
            first, *others = block.split(b"\n")
            rest.append(first)
            for line in others:
                yield number, b"".join(rest)
                rest, number = [line], number + 1
        yield number, b"".join(rest)


def _value(row: dict[str, Any], name: str) -> Any:
    """The value of a key; null is an empty cell of a CSV file."""
    value = row.get(name)
    return "" if value is None and name in row else value
