"""Later data are encoded with the columns, categories and statistics of training."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from sslcli.data import notify
from sslcli.data.sources.table import table
from sslcli.data.tables.preprocessor import TablePreprocessor
from sslcli.errors import DataError, RequestError

from .conftest import N, notes, people, write


@pytest.fixture
def fitted(read):
    return read(people(), holdout=0)


@pytest.fixture
def logged():
    lines: list[str] = []
    notify.set_hooks(log=lines.append)
    yield lines
    notify.set_hooks()


def test_preprocessor_is_the_same_after_json(fitted):
    pre = fitted.preprocessor
    files = pre.files()
    content = json.loads(files["preprocessor.json"])
    assert content.pop("kind") == "table"
    again = TablePreprocessor.from_json(content, files)
    assert again == pre
    assert again.sha256 == pre.sha256
    assert pre.differences(again) == []
    assert pre.values == fitted.values


def test_rows_and_columns_and_files_are_encoded_alike(fitted, tmp_path):
    pre, x = fitted.preprocessor, fitted.train.resident.tensor
    rows = people()
    assert torch.equal(pre.encode(rows), x)
    assert torch.equal(pre.encode({k: [r[k] for r in rows] for k in reversed(rows[0])}), x)
    assert torch.equal(pre.encode(write(tmp_path / "new.csv", rows)), x)
    assert torch.equal(pre.encode([{k: str(v) for k, v in r.items()} for r in rows]), x)
    frame = type("Frame", (dict,), {"columns": list(rows[0]), "to_dict": None, "__len__": lambda self: N})
    assert torch.equal(pre.encode(frame({k: [r[k] for r in rows] for k in rows[0]})), x)


def test_decode_inverts_encode(fitted):
    for got, row in zip(fitted.preprocessor.decode(fitted.train.resident.tensor), people(), strict=True):
        assert got["age"] == pytest.approx(row["age"], abs=1e-4)
        assert (got["job"], got["town"]) == (row["job"], row["town"])
    empty = fitted.preprocessor.encode([{"age": None, "height": float("nan"), "job": "", "town": "?"}])
    assert fitted.preprocessor.decode(empty) == [dict.fromkeys(("age", "height", "job", "town"))]


def test_missing_column_is_an_error_that_names_it(fitted):
    with pytest.raises(DataError, match="has no column height, town, which the encoder was trained with"):
        fitted.preprocessor.encode({"age": [1], "job": ["cook"]})


def test_extra_column_and_unseen_category_are_said(fitted, logged):
    rows = [{**row, "iq": 100} for row in people()]
    for row in rows[:3]:
        row["job"] = "pilot"
    x = fitted.preprocessor.encode(rows)
    assert x[:3, 2].tolist() == [0, 0, 0]
    assert logged == [
        "columns that were not in training ignored: iq",
        "warning: categories that no training row has, read as unknown: job 3",
    ]


def test_text_where_training_had_numbers_is_an_error(fitted):
    rows = [{**row, "age": "old" if i in (4, 6) else row["age"]} for i, row in enumerate(people())]
    with pytest.raises(
        DataError, match="column age holds numbers in training, but text here: 'old' in line 5, 'old' in"
    ):
        fitted.preprocessor.encode(rows)


def test_cells_with_decimal_commas_are_no_text(read):
    text = "a;b\n" + "".join(f"{i * i % 17},5;{i * 7 % 13}\n" for i in range(40))
    pre = read(text, decimal="comma").preprocessor
    with pytest.raises(DataError, match=r"text here: 'abc' in line 5$"):
        read(text.replace("9,5;8\n", "abc;8\n", 1), like=pre)


def test_numbers_of_a_category_match_in_any_form(read):
    rows = [{**row, "zip": [10, 20, 30][i % 3]} for i, row in enumerate(people())]
    pre = read(rows, holdout=0, categorical=["zip"]).preprocessor
    for form in ([10, 20, 30], ["10", "20.0", "+30"], [10.0, 20.0, 30.0], [np.int64(10), np.float32(20), 30]):
        new = [{**row, "zip": form[i % 3]} for i, row in enumerate(people())]
        assert pre.encode(new)[:3, -1].tolist() == [1, 2, 3]


def test_far_values_are_clipped(fitted):
    x = fitted.preprocessor.encode([{"age": 1e38, "height": -1e38, "job": None, "town": None}])
    assert x[0, :2].tolist() == [1e6, -1e6]
    with pytest.raises(DataError, match="holds inf"):
        fitted.preprocessor.encode([{"age": float("inf"), "height": 1, "job": None, "town": None}])


def test_like_reads_other_data_as_in_training(fitted, read):
    rows = [dict(reversed({**row, "age": 10 * int(row["age"])}.items())) for row in people()]
    dataset = read([{"extra": i, **row} for i, row in enumerate(rows)], like=fitted.preprocessor, holdout=0)
    assert dataset.preprocessor is fitted.preprocessor
    assert dataset.values == fitted.values
    assert dataset.classes == fitted.classes
    assert "columns that were not in training ignored: extra" in notes(dataset)
    assert torch.equal(dataset.train.resident.tensor[:, 1:], fitted.train.resident.tensor[:, 1:])
    restored = dataset.preprocessor.decode(dataset.train.resident.tensor)
    assert restored[0]["age"] == pytest.approx(rows[0]["age"], rel=1e-5)


def test_like_without_labels_needs_no_label_column(fitted, read):
    dataset = read([{k: v for k, v in row.items() if k != "label"} for row in people()], like=fitted.preprocessor)
    assert dataset.train.labels is None
    assert torch.equal(dataset.train.resident.tensor, fitted.train.resident.tensor)


@pytest.mark.parametrize(
    "change",
    [
        {"columns": []},
        {"columns": [{"name": "a"}]},
        {"columns": [{"name": "a", "type": "number", "mean": 0.0, "std": 0.0}]},
        {"columns": [{"name": "a", "type": "number", "mean": float("inf"), "std": 1.0}]},
        {"columns": [{"name": "a", "type": "category", "categories": ["b", "b"]}]},
        {"columns": [{"name": "a", "type": "category", "categories": [1]}]},
        {"columns": [{"name": "a", "type": "number", "mean": 0.0, "std": 1.0}] * 2},
        {"task": "other"},
        {"classes": [1]},
        {"decimal": "ab"},
        {"missing": None},
    ],
)
def test_invalid_json_is_a_value_error(fitted, change):
    with pytest.raises(ValueError):
        TablePreprocessor.from_json({**fitted.preprocessor.to_json(), **change}, {})


def test_differences_name_the_columns(fitted, read):
    rows = [{**row, "age": 2 * int(row["age"]), "town": "Rome", "new": i % 7} for i, row in enumerate(people())]
    rows[0]["town"] = "Bern"
    rows[1]["town"] = "Oslo"
    text = "; ".join(fitted.preprocessor.differences(read(rows, holdout=0).preprocessor))
    assert "column new is new" in text
    assert "column age has mean" in text
    assert "column town has the new category Bern" in text
    fewer = [row for row in people() if row["job"] != "judge"]
    text = "; ".join(fitted.preprocessor.differences(read(fewer, holdout=0).preprocessor))
    assert "column job has no longer judge" in text


def headerless(rows: list[dict[str, object]], mark: str = ",", without: tuple[str, ...] = ()) -> str:
    return "\n".join(mark.join(str(v) for k, v in row.items() if k not in without) for row in rows) + "\n"


NAMES = ["age", "height", "job", "town", "label"]


@pytest.mark.parametrize("without", [(), ("label",)])  # later rows need no label
def test_files_without_a_header_have_the_names_of_training(read, tmp_path, without):
    fitted = read(headerless(people()), names=NAMES, holdout=0)
    pre = fitted.preprocessor
    assert pre.header == tuple(NAMES)
    later = tmp_path / "later.csv"
    later.write_text(headerless(people(), without=without))
    assert torch.equal(pre.encode(str(later)), fitted.train.resident.tensor)
    again = TablePreprocessor.from_json(json.loads(json.dumps(pre.to_json())), {})
    assert again == pre
    assert torch.equal(again.encode(later), fitted.train.resident.tensor)


def test_files_with_a_header_match_by_name(read, tmp_path):
    """Also where the training data had none; with other columns, in another order."""
    fitted = read(headerless(people()), names=NAMES, holdout=0)
    rows = [{"new": 1, **{k: row[k] for k in reversed(NAMES[:4])}} for row in people()]
    assert torch.equal(fitted.preprocessor.encode(write(tmp_path / "later.csv", rows)), fitted.train.resident.tensor)
    for row in rows:
        del row["town"]
    with pytest.raises(DataError, match="has no column town, which the encoder was trained with"):
        fitted.preprocessor.encode(write(tmp_path / "short.csv", rows))


def test_later_files_have_the_delimiter_of_training(read, tmp_path):
    options = {"names": NAMES, "delimiter": "space", "holdout": 0}
    fitted = read(headerless(people(), " "), **options)
    pre, x = fitted.preprocessor, fitted.train.resident.tensor
    later = tmp_path / "later.txt"
    later.write_text(headerless(people(), " ", without=("label",)))
    assert torch.equal(pre.encode(str(later)), x)
    assert torch.equal(pre.encode(write(tmp_path / "commas.csv", people())), x)  # another one with a header
    assert TablePreprocessor.from_json(pre.to_json(), {}) == pre


def test_another_number_of_columns_without_a_header(read, tmp_path):
    fitted = read(headerless(people()), names=NAMES, holdout=0)
    later = tmp_path / "later.csv"
    later.write_text(headerless(people(), without=("label", "town")))
    with pytest.raises(DataError, match=r"has no header|has 3 columns"):
        fitted.preprocessor.encode(str(later))


def test_table_with_a_preprocessor_needs_no_names(read, tmp_path):
    fitted = read(headerless(people()), names=NAMES, holdout=0)
    (tmp_path / "later.csv").write_text(headerless(people()))
    later = table(str(tmp_path / "later.csv"), like=fitted.preprocessor, holdout=0)
    assert torch.equal(later.train.resident.tensor, fitted.train.resident.tensor)
    assert torch.equal(later.train.labels, fitted.train.labels)


def test_preprocessors_of_the_first_version_keep_their_hash(fitted):
    content = fitted.preprocessor.to_json()
    assert not {"header", "delimiter"} & content.keys()
    assert TablePreprocessor.from_json(content, {}).sha256 == fitted.preprocessor.sha256


def test_orders_are_differences(fitted):
    pre = fitted.preprocessor
    turned = replace(pre, columns=pre.columns[::-1])
    assert pre.differences(turned) == ["the columns are in another order"]
    town = next(c for c in pre.columns if c.name == "town")
    swapped = [replace(c, categories=town.categories[::-1]) if c is town else c for c in pre.columns]
    assert pre.differences(replace(pre, columns=tuple(swapped))) == ["column town has its categories in another order"]


def test_adapt_accepts_equal_columns(fitted):
    pre = fitted.preprocessor
    assert pre.adapt(fitted, []) is fitted
    other = replace(fitted, preprocessor=replace(pre, label="cost", task="value"))  # another label does not change rows
    assert pre.adapt(other, []) is other


def test_adapt_names_the_columns_that_differ(fitted, read):
    """Three columns again, with the same shape, but others."""
    rows = [{"years" if k == "age" else k: v for k, v in row.items()} for row in people()]
    other = read(rows, holdout=0)
    assert other.shape == fitted.shape
    with pytest.raises(RequestError, match="column age is missing; column years is new") as error:
        fitted.preprocessor.adapt(other, [])
    assert "`like" in error.value.hint
    taller = read([{**row, "height": 2 * float(row["height"])} for row in people()], holdout=0)
    with pytest.raises(RequestError, match="column height has mean"):
        fitted.preprocessor.adapt(taller, [])


def test_adapt_refuses_columns_without_names(fitted):
    with pytest.raises(RequestError, match="its columns have no names") as error:
        fitted.preprocessor.adapt(replace(fitted, preprocessor=None), [])
    assert "age, height" in error.value.hint
    with pytest.raises(RequestError, match="it is no table: series"):
        fitted.preprocessor.adapt(replace(fitted, preprocessor=None, modality="series"), [])


@pytest.mark.parametrize("samples", [3, [1, 2], torch.zeros(2, 4), "nothing.csv"])
def test_samples_of_another_kind_are_refused(fitted, samples):
    with pytest.raises(Exception, match=r"expected|does not exist"):
        fitted.preprocessor.encode(samples)
