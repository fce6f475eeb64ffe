"""`dataset.id`: a column that names the rows of a table, and is no feature and no text.

1. The identifiers are the names of samples, as they are written.
2. A row without one, a repeated one, a wrong column and a column with two uses are errors that name the lines.
3. The preprocessor keeps the column; without it, its content is what it was.
4. Columns that look like identifiers are suggested.
5. Files of labels name samples by them.
"""

from __future__ import annotations

import pytest

from sslcli.data.sources.text_table import text_table
from sslcli.data.tables.ids import is_id_name
from sslcli.data.tables.preprocessor import TablePreprocessor
from sslcli.data.text.preprocessor import TextPreprocessor
from sslcli.data.user_files.tables import read_table_files
from sslcli.data.user_files.text import read_text_files
from sslcli.errors import DataError, RequestError
from sslcli.evals.inputs.label_file import apply_label_file

from .conftest import N, notes, people, write

WORDS = ["card", "refund", "invoice", "crash", "error", "login", "screen", "price"]


def named(ids, n=N):
    return [{"customer_id": ids(i), **row} for i, row in enumerate(people(n))]


def tickets(path, ids, empty=()):
    rows = [
        f"{' '.join(WORDS[(i + j) % 8] for j in range(4)) if i not in empty else ''},{x},{'ab'[i % 2]}" for i, x in ids
    ]
    path.write_text("\n".join(["text,ticket_id,label", *rows]) + "\n")
    return str(path)


def test_rows_are_named_by_a_column(read):
    dataset = read(named(lambda i: f" 00{i}"), id="customer_id", holdout=0.25)
    assert sorted([*dataset.train.names, *dataset.test.names], key=int) == [f"00{i}" for i in range(N)]
    assert dataset.id == "customer_id"
    assert dataset.preprocessor.names == ["age", "height", "job", "town"]
    assert "rows are named by the column customer_id" in notes(dataset)
    without = read(people(), holdout=0.25)
    assert (without.train.x == dataset.train.x).all()


def test_split_and_repeated_identifiers_across_files(read, tmp_path):
    other = write(tmp_path / "test.csv", named(str, 10))
    dataset = read(named(str), id="customer_id", test=other)
    assert list(dataset.test.names) == [str(i) for i in range(10)]
    assert "warning: 10 identifiers of customer_id in more than one file" in notes(dataset)


@pytest.mark.parametrize(
    ("ids", "message"),
    [
        (lambda i: "C7" if i in (3, 9) else i, "lines 5 and 11: the identifier C7 occurs twice"),
        (lambda i: "" if i == 3 else i, "line 5: no identifier in the column customer_id: the cell is empty"),
        (lambda i: "NA" if i == 3 else i, "line 5: no identifier in the column customer_id: NA"),
    ],
)
def test_missing_and_repeated_identifiers_are_errors(read, ids, message):
    with pytest.raises(DataError, match=message) as error:
        read(named(ids), id="customer_id")
    assert "dataset.id=none" in error.value.hint
    assert read(named(ids), id="none", drop=["customer_id"]).id is None


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"id": "customer"}, "dataset.id: .* has no column customer"),
        ({"id": "age", "numeric": ["age"]}, "age is in dataset.id and in dataset.numeric"),
        ({"id": "label", "label": "label"}, "label is in dataset.id and in dataset.label"),
        ({"id": "town", "group": "town"}, "town is in dataset.id and in dataset.group"),
    ],
)
def test_wrong_columns_are_refused(read, options, message):
    with pytest.raises(RequestError, match=message):
        read(named(str), **options)


def test_later_files_have_the_column(read, tmp_path):
    trained = read(named(str), id="customer_id").preprocessor
    assert TablePreprocessor.from_json(trained.to_json(), {}) == trained
    new = write(tmp_path / "new.csv", [{**row, "customer_id": f"N{i}"} for i, row in enumerate(people(4))])
    found = read_table_files([new], trained, [])
    assert (found.dataset.id, list(found.dataset.train.names)) == ("customer_id", ["N0", "N1", "N2", "N3"])
    assert found.ids[0] == f"{new}:N0"
    assert len(trained.encode(people(4))) == 4
    with pytest.raises(DataError, match="has no column customer_id, which identifies rows") as error:
        read_table_files([write(tmp_path / "bare.csv", people(4))], trained, [])
    assert f"dataset=table dataset.path={tmp_path}/bare.csv dataset.id=none" in error.value.hint
    assert trained.configure({"id": None}) == {"id": "customer_id"}
    assert trained.configure({"id": "none"}) == {"id": "none"}


def test_preprocessor_without_identifiers_is_unchanged(read):
    content = read(people()).preprocessor.to_json()
    assert not {"id", "header", "delimiter"} & content.keys()
    assert TablePreprocessor.from_json(content, {}).id is None
    with pytest.raises(ValueError, match="id: expected"):
        TablePreprocessor.from_json({**content, "id": 3}, {})


def test_large_integers_of_parquet_keep_their_digits(tmp_path, read):
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    rows = named(lambda i: 2**60 + i)
    parquet.write_table(pyarrow.table({c: [r[c] for r in rows] for c in rows[0]}), tmp_path / "t.parquet")
    dataset = read((tmp_path / "t.parquet").read_bytes(), name="t.parquet", id="customer_id", holdout=0)
    assert dataset.train.names[1] == str(2**60 + 1)


def test_identifiers_are_suggested(read):
    assert "dataset.id=customer_id names the rows by it" in notes(read(named(lambda i: f"C{i}")))
    assert "leave identifiers out: dataset.id=customer_id" in notes(read(named(lambda i: (i * 37) % 1009)))
    assert "dataset.id" not in notes(read(named(lambda i: i % 30)))
    assert "dataset.id" not in notes(read(named(lambda i: f"C{i}"), id="customer_id"))
    columns = ["id", "ID", "customer_id", "Customer Id", "customerId", "row-uuid", "customerID"]
    assert [is_id_name(name) for name in [*columns, "humid", "paid", "idle", "GRID"]] == [True] * 7 + [False] * 4


def test_documents_are_named_by_a_column(tmp_path):
    path = tickets(tmp_path / "t.csv", [(i, f"T{i}") for i in range(40)], empty=(5,))
    dataset = text_table(path, id="ticket_id", tokenizer="words", holdout=0)
    assert list(dataset.train.names) == [f"T{i}" for i in range(40) if i != 5]
    own = dataset.preprocessor
    assert (dataset.id, own.id, own.column) == ("ticket_id", "ticket_id", "text")
    assert TextPreprocessor.from_json(own.to_json(), own.files()).id == "ticket_id"
    bare = text_table(path, tokenizer="words", holdout=0).preprocessor
    assert "id" not in bare.to_json()
    assert own.differences(bare) == []
    new = tickets(tmp_path / "new.csv", [(i, f"N{i}") for i in range(4)], empty=(0, 2))
    found = read_text_files([new], own, [])
    assert list(found.dataset.train.names) == ["N0", "N1", "N2", "N3"]
    assert sorted(found.dataset.train.bad) == [0, 2]
    with pytest.raises(DataError, match="lines 2 and 5: the identifier T0 occurs twice"):
        text_table(tickets(tmp_path / "two.csv", [(i, f"T{i % 3}") for i in range(9)]), id="ticket_id")
    for options in ({"id": "text", "text": "text"}, {"id": "label", "label": "label"}):
        with pytest.raises(RequestError, match=r"is in dataset\.id and in"):
            text_table(path, **options)
    with pytest.raises(RequestError, match="has no column ticket"):
        text_table(path, id="ticket")
    (tmp_path / "bare.csv").write_text("text\ncard refund\n")
    with pytest.raises(DataError, match="has no column ticket_id, which identifies rows"):
        read_text_files([str(tmp_path / "bare.csv")], own, [])


@pytest.mark.parametrize("header", ["customer_id,label", "Kunde,label", "label,Kunde", "name,label"])
def test_labels_by_identifier(read, tmp_path, header):
    dataset = read(named(lambda i: f"-{i}x"), id="customer_id", label="none", drop=["label"], holdout=0)
    first = header.endswith("label")
    rows = [(f"-{i}x" if i % 3 else f"'-{i}x", ["no", "yes"][i % 2]) for i in range(0, 40)]
    file = tmp_path / "labels.csv"
    file.write_text("\n".join([header, *(",".join(row if first else row[::-1]) for row in rows)]) + "\n")
    labeled, _ = apply_label_file(dataset, str(file))
    sources = (labeled.train, labeled.test)
    found = {name: int(y) for s in sources for name, y in zip(s.names, s.labels, strict=True) if y >= 0}
    assert found == {f"-{i}x": i % 2 for i in range(40)}
    file.write_text(file.read_text().replace("-7x", "-700x"))
    with pytest.raises(DataError, match="names 1 sample that table does not have, such as -700x") as error:
        apply_label_file(dataset, str(file))
    assert "identifiers of the column customer_id are as in -0x, -1x" in error.value.hint


def test_labels_of_ambiguous_identifiers_are_refused(read, tmp_path):
    other = write(tmp_path / "test.csv", named(str, 10))
    dataset = read(named(str), id="customer_id", test=other, label="none", drop=["label"])
    (tmp_path / "labels.csv").write_text("customer_id,label\n20,no\n3,yes\n")
    with pytest.raises(DataError, match="line 3: table has more than one sample with the identifier 3"):
        apply_label_file(dataset, str(tmp_path / "labels.csv"))


def test_identifiers_with_a_colon_are_no_windows_of_a_recording(read, tmp_path):
    dataset = read(named(lambda i: f"ward:{i}"), id="customer_id", label="none", drop=["label"], holdout=0)
    (tmp_path / "labels.csv").write_text("customer_id,label\nward,no\nward:3,yes\n")
    with pytest.raises(DataError, match="names 1 sample that table does not have, such as ward"):
        apply_label_file(dataset, str(tmp_path / "labels.csv"))
