"""What users did: a table of events, each with a user and an item, and usually a time and a rating."""

from __future__ import annotations

import os

from sslcli.console import escape
from sslcli.data.dataset import Dataset
from sslcli.data.folders.paths import require_path, require_regular
from sslcli.data.histories.build import Options, build_dataset
from sslcli.data.histories.events import EventColumns, read_events
from sslcli.data.histories.preprocessor import InteractionsPreprocessor
from sslcli.data.histories.select import select_events
from sslcli.data.histories.titles import read_titles
from sslcli.data.tables.build import as_names
from sslcli.data.tables.cells import as_markers
from sslcli.data.tables.find import beside
from sslcli.errors import RequestError

WHAT = "a table of events (.csv, .tsv, .inter, u.data, .parquet)"


def interactions(
    path: str | None = None,
    name: str = "interactions",
    user: str | None = None,
    item: str | None = None,
    time: str | None = None,
    rating: str | None = None,
    label: str = "none",
    delimiter: str | None = None,
    names: list[str | int] | None = None,
    items: str | None = None,
    missing: list[str | float] | None = None,
    min_rating: float | None = None,
    core: int = 1,
    max_length: int = 50,
    split: str = "last",
    dates: list[str | int | float] | None = None,
    holdout: float | str = "auto",
    split_seed: int = 0,
    like: InteractionsPreprocessor | None = None,
) -> Dataset:
    """A data set of the histories of users: a sample is a user, a view its last items.

    `path`: a table with a row for each event. `user`, `item`, `time`, `rating`: the names of columns; None, found by their names;
    `time=none`, the order of the file. Events of equal time keep the order of the file. `label`: a column with a class of the
    user, the same in all events of the user; none, or auto.
    `delimiter`, `names`: of text files, as in `table`; files without a header have the columns user and item, or of MovieLens'
    `u.data` user, item, rating and time. `items`: a table with the title of each item, for people.
    `missing`: words of cells without a value. The names of users and items are text, of which only an empty cell has no value.
    `min_rating`: events with a lower rating are left out. `core`: users and items with fewer events are left out, repeatedly.
    `max_length`: the items of a view. `split`: last, the last item of each user is the test, the one before it validation; time, by
    two `dates` for all users; none, all events are for training. Where users have labels, `holdout` of them are held out.
    `like`: the preprocessor whose items and length are used.

    Raises RequestError for options, DataError for the contents of files."""
    options = Options(max_length, split, dates, holdout, split_seed)
    text = require_path(path, WHAT)
    if os.path.isdir(text):
        raise RequestError(f"dataset.path={escape(text)} is a folder; expected {WHAT}", "dataset.path=FILE")
    file = require_regular(text)
    named = None if names is None else tuple(as_names("names", names))
    columns = EventColumns(user, item, time, rating, label, delimiter, named, tuple(sorted(as_markers(missing))))
    notes: list[str] = []
    if rating is not None and min_rating is None:
        notes.append("warning: dataset.rating has no effect without dataset.min_rating")
    titles = (
        read_titles(require_regular(beside(items, file, "dataset.items", "a table of items")), notes) if items else {}
    )
    events = select_events(read_events(file, columns, min_rating is not None, notes), min_rating, core, notes)
    return build_dataset(name, events, options, notes, titles, columns, like)
