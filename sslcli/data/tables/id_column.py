"""`dataset.id`: the column of a table whose values name its rows, in predictions, picks, labels and reports."""

from __future__ import annotations

import shlex
from collections.abc import Collection, Mapping, Sequence

from sslcli.console import escape
from sslcli.data.tables.ids import NONE
from sslcli.data.tables.label import require_column
from sslcli.errors import DataError, RequestError, listing


def choose_id(id: str | None) -> str | None:
    """The column that `dataset.id` names, or None."""
    return None if id in (None, NONE) else str(id)


def require_id(id: str | None, columns: Sequence[str], what: str, others: Mapping[str, Collection[str | None]]) -> None:
    """RequestError where a table has no such column, or where another key (`others`, key -> columns) names the same one."""
    if id is None:
        return
    require_column(id, columns, what, "id")
    for key, names in others.items():
        if id in names:
            raise RequestError(
                f"column {escape(id)} is in dataset.id and in dataset.{key}", f"leave it out of dataset.{key}"
            )


def require_trained_id(id: str | None, columns: Sequence[str], what: str, reader: str) -> None:
    """DataError where a table lacks the column that named the rows of the training data. `reader`: the data set that reads it in
    another way."""
    if id is None or id in columns:
        return
    data = f"dataset={reader} dataset.path={shlex.quote(what)}"
    raise DataError(
        f"{what} has no column {escape(id)}, which identifies rows (dataset.id of the training data)",
        f"add it; or in place of the file: {data} dataset.id={NONE} reads it without identifiers, dataset.id=NAME with another "
        f"column of {listing(map(escape, columns), 8)}",
    )
