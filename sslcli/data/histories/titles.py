"""Titles of items, for people: a table with the name of an item and its title in each row."""

from __future__ import annotations

from sslcli.console import escape, plural
from sslcli.data.histories.events import ITEMS, TYPED, cell_texts
from sslcli.data.recordings.recordings import find_column
from sslcli.data.tables.delimited import DelimitedFile
from sslcli.data.tables.parquet import ParquetFile, is_parquet

TITLES = ("title", "name", "movie_title", "item_name", "item_title", "product_name", "description")


def read_titles(path: str, notes: list[str]) -> dict[str, str]:
    """The title of each item. Without known names, the first column has the items, and the second the titles."""
    file = ParquetFile(path) if is_parquet(path) else DelimitedFile(path, header=None)
    file.columns = [TYPED.sub("", name) for name in file.columns]
    item = find_column(None, ("id", *ITEMS), file.columns, "items", file.what) or file.columns[0]
    others = [name for name in file.columns if name != item]
    title = find_column(None, TITLES, others, "items", file.what) or others[0]
    if isinstance(file, ParquetFile):
        file.exact = (item,)
    out: dict[str, str] = {}
    for _, block in file.blocks({item, title}):
        pairs = zip(cell_texts(block[item]), cell_texts(block[title]), strict=True)
        out |= {name: text for name, text in pairs if name and text}
    notes.append(f"{plural(len(out), 'title')} of items, from the column {escape(title)}")
    return out
