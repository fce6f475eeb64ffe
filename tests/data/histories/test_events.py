"""Tables of events: formats, order, filters, divisions, and bad input."""

from __future__ import annotations

import json
import random
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch

from sslcli.data.dataset import Dataset
from sslcli.data.histories.interactions import interactions
from sslcli.data.histories.preprocessor import InteractionsPreprocessor
from sslcli.data.histories.select import core_mask
from sslcli.data.tables import delimited
from sslcli.errors import DataError, RequestError

EVENTS = [  # user, item, rating, time: two of ann's events share a time
    ("ann", "10", 5, 100),
    ("bob", "9", 2, 90),
    ("ann", "9", 4, 50),
    ("ann", "tea", 1, 100),
    ("bob", "10", 5, 95),
    ("ann", "2", 3, 200),
    ("cyn", "2", 3, 10),
]
HISTORIES = {"ann": ["9", "10", "tea", "2"], "bob": ["9", "10"], "cyn": ["2"]}


def write(path: Path, rows=EVENTS, header="user,item,rating,time", sep=",") -> str:
    lines = [header] if header else []
    path.write_text("\n".join([*lines, *(sep.join(map(str, row)) for row in rows)]) + "\n", encoding="utf-8")
    return str(path)


def histories(dataset: Dataset) -> dict[str, list[str]]:
    """All events of each user."""
    whole, own = dataset.next_items, dataset.preprocessor
    assert whole is not None
    assert isinstance(own, InteractionsPreprocessor)
    return {whole.users[i]: own.decode([whole.events[i]])[0] for i in range(len(whole.events))}


@pytest.mark.parametrize(
    ("name", "header", "sep"),
    [
        ("a.csv", "user,item,rating,time", ","),
        ("a.tsv", "userId\tmovieId\trating\ttimestamp", "\t"),
        ("ml.inter", "user_id:token\titem_id:token\trating:float\ttimestamp:float", "\t"),
    ],
)
def test_formats_with_header(tmp_path, name, header, sep):
    assert histories(interactions(write(tmp_path / name, header=header, sep=sep))) == HISTORIES


def test_file_without_header_is_movielens(tmp_path):
    rows = [(3, 4, 5, 881250949), (1, 2, 3, 881250900), (1, 7, 3, 881250800)]
    found = histories(interactions(write(tmp_path / "u.data", rows, "", "\t")))
    assert found == {"3": ["4"], "1": ["7", "2"]}
    found = histories(
        interactions(write(tmp_path / "u.data", sorted(rows), "", "\t"))
    )  # a first row that looks like positions
    assert found["1"] == ["7", "2"]
    with pytest.raises(DataError, match="no header") as caught:
        interactions(write(tmp_path / "v.data", [(3, 4, 5), (1, 2, 3)], "", "\t"))
    assert "dataset.names=" in (caught.value.hint or "")
    assert histories(
        interactions(write(tmp_path / "v.data", [(3, 4, 5), (3, 2, 3)], "", "\t"), names=["user", "item", "time"])
    ) == {"3": ["2", "4"]}


def test_parquet(tmp_path):
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    columns = list(zip(*EVENTS, strict=True))
    table = pyarrow.table({"user": columns[0], "item": columns[1], "time": columns[3]})
    parquet.write_table(table, tmp_path / "a.parquet")
    assert histories(interactions(str(tmp_path / "a.parquet"))) == HISTORIES
    large = [2**60, 2**60 + 1]  # equal as floats
    table = pyarrow.table({"user": [large[0], large[1], None], "item": large[::-1] + large[:1], "time": [1, None, 3]})
    parquet.write_table(table, tmp_path / "b.parquet")
    first, second = map(str, large)
    assert histories(interactions(str(tmp_path / "b.parquet"), time="none", split="none")) == {
        first: [second],
        second: [first],
    }
    with pytest.raises(DataError, match=r"b\.parquet, row 2: the event has no time"):
        interactions(str(tmp_path / "b.parquet"))


def test_dates_and_file_order(tmp_path):
    rows = [("u", "a", "2021-03-01"), ("u", "b", "2021-01-01 10:00:00"), ("u", "c", "2021-01-01")]
    path = write(tmp_path / "a.csv", rows, "user,item,date")
    assert histories(interactions(path)) == {"u": ["c", "b", "a"]}
    assert histories(interactions(path, time="none")) == {"u": ["a", "b", "c"]}


def test_times_with_zones_are_compared_in_utc(tmp_path):
    rows = [
        ("u", "c", "2024-01-01T12:00:00+05:30"),
        ("u", "a", "2024-01-01T01:00:00-02:00"),
        ("u", "b", "2024-01-01T04:00Z"),
    ]
    path = write(tmp_path / "a.csv", rows, "customer_id,sku,ordered_at")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert histories(interactions(path)) == {"u": ["a", "b", "c"]}


def test_a_table_without_known_times_warns(tmp_path):
    path = write(tmp_path / "a.csv", [("u", "a", 3), ("u", "b", 1)], "user,item,bought")
    warned = "warning: no column of times is known by its name"
    assert any(note.startswith(warned) and "bought" in note for note in interactions(path).notes)
    for settings in ({"time": "bought"}, {"time": "none"}):
        assert not any(note.startswith(warned) for note in interactions(path, **settings).notes)


def test_times_that_are_no_dates_name_the_key(tmp_path):
    path = write(tmp_path / "a.csv", [("u", "a", "01/02/2024")], "user,item,time")
    with pytest.raises(DataError) as error:
        interactions(path)
    assert "dataset.time=none" in str(error.value.hint)


def test_vocabulary_is_in_natural_order(tmp_path):
    own = interactions(write(tmp_path / "a.csv")).preprocessor
    assert isinstance(own, InteractionsPreprocessor)
    assert own.items == ("2", "9", "10", "tea")


def test_filters_are_counted(tmp_path):
    rows = [*EVENTS, ("ann", "10", 5, 100), ("", "10", 5, 1), ("bob", "", 5, 1)]
    data = interactions(write(tmp_path / "a.csv", rows), min_rating=3, max_length=5)
    assert histories(data) == {"ann": ["9", "10", "2"], "bob": ["10"], "cyn": ["2"]}
    notes = " ".join(data.notes)
    for part in ("2 events without a user or an item", "2 events with a rating below 3", "1 repeated event"):
        assert part in notes


@pytest.mark.parametrize("word", ["NA", "None", "NULL", "null", "nan", "?"])
def test_names_of_users_and_items_are_text(tmp_path, word):
    rows = [(word, "tea", 1, 1), (word, word, 1, 2), ("ann", word, 1, 3), ("", "tea", 1, 4), ("ann", "", 1, 5)]
    path = write(tmp_path / "a.csv", rows)
    data = interactions(path)
    assert histories(data) == {word: ["tea", word], "ann": [word]}
    warned = [note for note in data.notes if f"are named {word}:" in note]
    assert len(warned) == (word != "?")
    assert all(f"""'dataset.missing=["{word}"]'""" in note for note in warned)
    with pytest.raises(DataError, match="none of 5 events is left"):
        interactions(path, missing=[word])
    own = interactions(write(tmp_path / "b.csv", [*EVENTS, ("ann", word, 1, 300)]), missing=[word]).preprocessor
    assert isinstance(own, InteractionsPreprocessor)
    assert own.items == ("2", "9", "10", "tea")
    files = own.files()
    content = {key: value for key, value in json.loads(files["preprocessor.json"]).items() if key != "kind"}
    assert content["columns"]["missing"] == [word]
    assert InteractionsPreprocessor.from_json(content, files) == own


def test_words_for_missing_labels_are_reported(tmp_path):
    rows = [(f"u{i}", f"i{t}", t, "NA" if i == 3 else "ab"[i % 2]) for i in range(20) for t in range(4)]
    data = interactions(write(tmp_path / "a.csv", rows, "user,item,time,label"), label="auto")
    assert data.classes == ("a", "b")
    assert any("4 labels read as missing (4 x NA" in note for note in data.notes)


def test_rating_without_a_limit_has_no_effect(tmp_path):
    data = interactions(write(tmp_path / "a.csv"), rating="rating")
    assert "warning: dataset.rating has no effect without dataset.min_rating" in data.notes


def test_core_is_the_largest_set():
    draw = np.random.default_rng(0)
    users, items = draw.integers(0, 40, 200), draw.integers(0, 30, 200)
    rows = list(range(200))
    while True:  # slow reference: remove one at a time
        bad = [
            r
            for r in rows
            if sum(users[o] == users[r] for o in rows) < 4 or sum(items[o] == items[r] for o in rows) < 4
        ]
        if not bad:
            break
        rows.remove(bad[0])
    assert np.flatnonzero(core_mask(users, items, 4)).tolist() == rows
    assert rows


def test_last_items_are_held_out(tmp_path):
    data = interactions(write(tmp_path / "a.csv"), max_length=3)
    whole, own = data.next_items, data.preprocessor
    assert whole is not None
    assert isinstance(own, InteractionsPreprocessor)
    assert (whole.train.tolist(), whole.val.tolist(), whole.test.tolist()) == ([2, 1, 1], [2, -1, -1], [3, 1, -1])
    assert data.train.resident is not None
    assert own.decode([data.train.read(i) for i in range(3)]) == [["9", "10"], ["9"], ["2"]]
    users, places = whole.targets("test")
    x = whole.histories(users, places, 2)
    assert own.decode(x) == [["10", "tea"], ["9"]]
    assert own.decode(whole.items_at(users, places)[:, None]) == [["2"], ["10"]]
    assert x[1].tolist()[1] == 0  # padding follows
    assert "1 user of 3 with one event" in " ".join(data.notes)


def test_split_by_date_against_slow_reference(tmp_path):
    random.seed(1)
    rows = [(f"u{random.randrange(9)}", f"i{random.randrange(12)}", 1, t) for t in random.sample(range(1000), 150)]
    whole = interactions(write(tmp_path / "a.csv", rows), split="time").next_items
    assert whole is not None
    times = sorted(t for *_, t in rows)
    first, second = times[int(0.8 * 150) - 1], times[int(0.9 * 150) - 1]
    for i, user in enumerate(whole.users):
        own = sorted(t for u, _, _, t in rows if u == user)
        assert whole.train[i] == sum(t <= first for t in own)
        between, after = [t for t in own if first < t <= second], [t for t in own if t > second]
        until = sum(t <= second for t in own)
        assert whole.val[i] == (until - 1 if between and until > 1 else -1)
        assert whole.test[i] == (len(own) - 1 if after and len(own) > 1 else -1)
    dated = interactions(write(tmp_path / "a.csv", rows), split="time", dates=[first, second]).next_items
    assert dated is not None
    assert torch.equal(dated.train, whole.train)


def test_labels_hold_users_out(tmp_path):
    rows = [(f"u{i}", f"i{t}", t, "ab"[i % 2]) for i in range(20) for t in range(4)]
    data = interactions(write(tmp_path / "a.csv", rows, "user,item,time,label"), label="auto")
    assert data.classes == ("a", "b")
    assert data.test is not None
    assert (len(data.train), len(data.test)) == (16, 4)
    assert data.test.labels.bincount().tolist() == [2, 2]
    rows[0] = ("u0", "i0", 0, "b")
    with pytest.raises(DataError, match="several labels"):
        interactions(write(tmp_path / "b.csv", rows, "user,item,time,label"), label="label")


@pytest.mark.parametrize(
    ("rows", "header", "options", "message"),
    [
        ([("a", "b", "x")], "user,item,time", {}, "neither a number nor a date"),
        ([("a", "b", 1), (), ("a", "b", "")], "user,item,time", {}, r"a\.csv, line 4: the event has no time$"),
        (
            [("a", "b", "NA"), ("a", "c", " ")],
            "user,item,time",
            {},
            "line 2: the event has no time, the first of 2 of 2",
        ),
        ([("a", "b", 1), ("a", "c", -1)], "user,item,time", {"missing": [-1]}, "line 3: the event has no time"),
        ([("a", "b", 1), ("a", "b", "inf")], "user,item,time", {}, "line 3: the time 'inf' is neither"),
        ([("a", "b", "2020-01-01"), ("a", "b", "NaT")], "user,item,time", {}, "line 3: the time 'NaT' is neither"),
        ([("a", "b", "2020-01-01"), ("a", "b", "today")], "user,item,time", {}, "line 3: the time 'today' is neither"),
        ([("a", "b", 1)], "who,item,time", {}, "no column of users"),
        ([("a", "b", 1)], "user,item,time", {"min_rating": 3}, "no column of ratings"),
        ([("a", "b", "x", 1)], "user,item,rating,time", {"min_rating": 3}, "rating 'x' is not a number"),
        ([("a", "b", 1)], "user,item,time", {}, "no user has an item to predict"),
        ([("a", "b", 1), ("a", "c", 1)], "user,item,time", {"core": 3}, "none of 2 events is left"),
        ([], "user,item,time", {}, "no events"),
        ([("a", "b", 1)], "user,item,item", {}, "two columns named item"),
    ],
)
def test_bad_tables_are_refused(tmp_path, rows, header, options, message):
    with pytest.raises(DataError, match=message) as caught:
        interactions(write(tmp_path / "a.csv", rows, header), **options)
    assert caught.value.hint or message in ("no events", "rating 'x' is not a number")


@pytest.mark.parametrize(("first", "then"), [("numbers", "dates"), ("dates", "numbers")])
def test_times_of_two_forms_are_refused(tmp_path, monkeypatch, first, then):
    """Dates are seconds since 1970 and numbers are as they are, so the two have no common order."""
    monkeypatch.setattr(delimited, "BLOCK_CELLS", 48)  # blocks of 16 lines
    time = {"numbers": 5, "dates": "2020-01-01"}
    rows = [("a", f"i{i}", time[first if i < 16 else then]) for i in range(20)]
    with pytest.raises(DataError, match=f"line 18: the times are {then} from here on, and {first} before"):
        interactions(write(tmp_path / "a.csv", rows, "user,item,time"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"split": "random"}, "expected one of last, time, none"),
        ({"split": "time", "time": "none"}, "requires a column of times"),
        ({"split": "time", "dates": [5]}, "expected two dates"),
        ({"split": "time", "dates": [5, 1]}, "after the second"),
        ({"split": "time", "dates": ["soon", 1]}, "neither a number nor a date"),
        ({"dates": [1, 2]}, "no effect"),
        ({"max_length": 1}, "expected 2 to"),
        ({"core": 0}, "at least 1"),
        ({"user": "who"}, "not a column"),
    ],
)
def test_bad_options_are_refused(tmp_path, options, message):
    with pytest.raises(RequestError, match=message):
        interactions(write(tmp_path / "a.csv"), **options)


def test_preprocessor_round_trip(tmp_path):
    titles = write(tmp_path / "t.csv", [("tea", "Green tea"), ("9", "<b>nine")], "item_id,title")
    own = interactions(write(tmp_path / "a.csv"), items=titles, max_length=7).preprocessor
    assert isinstance(own, InteractionsPreprocessor)
    assert [own.title(i) for i in range(6)] == ["", "[MASK]", "2", "<b>nine", "10", "Green tea"]

    files = own.files()
    content = json.loads(files["preprocessor.json"])
    again = InteractionsPreprocessor.from_json({k: v for k, v in content.items() if k != "kind"}, files)
    assert again == own
    assert own.differences(again) == []
    assert own.decode(own.encode([["9", "unknown", "tea"], []])) == [["9", "tea"], []]
    assert own.decode(own.encode(str(tmp_path / "a.csv")))[0] == HISTORIES["ann"]
    with pytest.raises(DataError, match="expected histories"):
        own.encode(["9"])


@pytest.mark.parametrize(
    ("content", "items"),
    [
        ({"max_length": 0}, b'{"items": ["a"]}'),
        ({"max_length": True}, b'{"items": ["a"]}'),
        ({"max_length": 5}, b'{"items": []}'),
        ({"max_length": 5}, b'{"items": ["a", "a"]}'),
        ({"max_length": 5}, b'{"items": [1]}'),
        ({"max_length": 5}, b"\xff"),
        ({"max_length": 5}, b"[" * 100_000),
        ({"max_length": 5, "columns": {"label": "x"}}, b'{"items": ["a"]}'),
        ({"max_length": 5, "columns": {"user": 3}}, b'{"items": ["a"]}'),
        ({"max_length": 5, "columns": {"missing": [3]}}, b'{"items": ["a"]}'),
    ],
)
def test_forged_preprocessors_are_refused(content, items):
    with pytest.raises(ValueError, match=r"max_length|items\.json|columns"):
        InteractionsPreprocessor.from_json(content, {"items.json": items})


def test_unknown_items_are_left_out_and_counted(tmp_path):
    own = interactions(write(tmp_path / "a.csv")).preprocessor
    rows = [("dan", "9", 1, 1), ("dan", "coffee", 1, 2), ("dan", "2", 1, 3), ("eve", "coffee", 1, 1)]
    data = interactions(write(tmp_path / "new.csv", rows), like=own, split="none")
    assert histories(data) == {"dan": ["9", "2"]}
    assert "2 events of 1 item that the encoder does not know" in " ".join(data.notes)
    assert "1 user without an item that the encoder knows left out: eve" in " ".join(data.notes)
    with pytest.raises(DataError, match="knows none of the items"):
        interactions(write(tmp_path / "no.csv", [("eve", "coffee", 1, 1)]), like=own, split="none")
