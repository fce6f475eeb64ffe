"""Labels, values to predict, leaks and held-out splits of tables."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from sslcli.data.sources.table import table
from sslcli.errors import DataError

from .conftest import N, notes, people, write


def test_label_is_found_by_name_and_never_in_x(read):
    rows = [{**row, "income": row["label"]} for row in people()]
    for row in rows:
        del row["label"]
    unlabelled = read(rows)
    assert "no label: no column is named" in notes(unlabelled)
    assert unlabelled.train.labels is None
    assert unlabelled.test is None
    dataset = read(rows, label="income", holdout=0)
    assert dataset.classes == ("no", "yes")
    assert "income" not in dataset.preprocessor.names
    assert dataset.train.labels.tolist() == [int(row["income"] == "yes") for row in rows]
    assert read([{**r, "target": i % 3} for i, r in enumerate(people())]).preprocessor.label == "target"  # the last one


def test_rows_without_a_label_are_unlabelled(read):
    rows = [{**row, "label": "?" if i % 4 == 0 else row["label"]} for i, row in enumerate(people())]
    dataset = read(rows)
    assert int((dataset.train.labels == -1).sum()) == N // 4
    assert int((dataset.test.labels == -1).sum()) == 0
    assert "15 rows without a label" in notes(dataset)


@pytest.mark.parametrize(
    "copy",
    [
        lambda row, i: {"no": "0", "yes": "1"}[row["label"]],
        lambda row, i: {"no": "left", "yes": "right"}[row["label"]],
        lambda row, i: {"no": 3.5, "yes": ""}[row["label"]],
    ],
    ids=["number", "text", "missing"],
)
def test_column_that_determines_the_label_is_refused(read, copy):
    rows = [{**row, "result": copy(row, i)} for i, row in enumerate(people())]
    with pytest.raises(DataError, match="column result determines the label label one to one") as error:
        read(rows)
    assert error.value.hint == "leave it out: dataset.drop=[result]"
    assert "result" not in read(rows, drop=["result"]).preprocessor.names
    rows[0]["result"] = copy({"label": "no" if rows[0]["label"] == "yes" else "yes"}, 0)  # one row differs
    assert "result" in read(rows).preprocessor.names


def test_linear_function_of_the_value_is_refused(read):
    rows = [{**row, "label": row["height"], "inches": float(row["height"]) / 2.54} for row in people()]
    for row in rows:
        del row["height"]
    with pytest.raises(DataError, match="column inches is the label label, or a linear function of it"):
        read(rows)
    assert read(rows, drop=["inches"]).task == "value"


def test_value_is_a_target_and_not_a_label(read):
    rows = [{**row, "label": "" if i == 3 else i**1.5} for i, row in enumerate(people())]
    dataset = read(rows)
    assert (dataset.task, dataset.classes, dataset.train.labels) == ("value", (), None)
    both = torch.cat([dataset.train.targets["value"], dataset.test.targets["value"]])
    assert both.dtype == torch.float64
    assert sorted(both[~both.isnan()].tolist()) == [i**1.5 for i in range(N) if i != 3]
    assert not dataset.test.targets["value"].isnan().any()
    assert len(dataset.test) == 12  # a fifth of those with a value
    with pytest.raises(DataError, match=r"is text where dataset\.task=value needs numbers: 'x' in line 2"):
        read([{**row, "label": "x" if i == 0 else i} for i, row in enumerate(people())], task="value")


@pytest.mark.parametrize(
    ("values", "task"), [(lambda i: i % 4, "classes"), (lambda i: i * i, "value"), (lambda i: (i % 4) / 2, "value")]
)
def test_task_follows_from_the_label(read, values, task):
    rows = [{**row, "label": values(i)} for i, row in enumerate(people())]
    assert read(rows).task == task
    assert read(rows, task="classes", holdout=0).task == "classes"


def test_classes_that_are_numbers_are_sorted_by_value(read):
    rows = [{**row, "label": [10, 9, -1][i % 3]} for i, row in enumerate(people())]
    assert read(rows).classes == ("-1", "9", "10")


def test_holdout_is_stratified(read):
    dataset = read(people())
    assert (len(dataset.train), len(dataset.test)) == (48, 12)
    counts = [torch.bincount(s.labels, minlength=2) / len(s) for s in (dataset.train, dataset.test)]
    assert torch.allclose(counts[0], counts[1], atol=0.05)
    assert dataset.split
    assert dataset.split != read(people(), split_seed=1).split


def test_groups_are_not_divided(read):
    rows = [{"who": f"p{i // 5}", **row} for i, row in enumerate(people())]
    dataset = read(rows, group="who")
    assert "who" not in dataset.preprocessor.names
    assert not set(dataset.train.groups.tolist()) & set(dataset.test.groups.tolist())
    assert "by group (who)" in notes(dataset)
    lines = [int(n.split()[1]) - 2 for n in dataset.test.names]
    assert len({i // 5 for i in lines}) * 5 == len(lines)


def test_split_column_defines_the_split(read):
    rows = [{**row, "split": ["train", "train", "Test", "validation"][i % 4]} for i, row in enumerate(people())]
    dataset = read(rows)
    assert (len(dataset.train), len(dataset.test), dataset.split) == (30, 15, "")
    assert "split" not in dataset.preprocessor.names
    assert "the column split defines the split" in notes(dataset)
    assert "val: 15 rows not used" in notes(dataset)
    other = read([{**row, "set": ["a", "b"][i % 2]} for i, row in enumerate(people())])
    assert "set" in other.preprocessor.names


def test_unlabelled_rows_are_read_by_pretraining_only(read):
    rows = [{**row, "split": ["train", "test", "unlabelled"][i % 3]} for i, row in enumerate(people())]
    dataset = read(rows)
    assert (len(dataset.train), len(dataset.test), len(dataset.pretrain)) == (20, 20, 40)
    assert len(read(rows, pretrain_on="unlabelled").pretrain) == 20


def test_test_file_without_labels_is_not_used(tmp_path):
    write(tmp_path / "train.csv", people())
    write(tmp_path / "test.csv", [{k: v for k, v in row.items() if k != "label"} for row in people()])
    dataset = table(str(tmp_path))
    assert "test: 60 rows not used, because they have no label" in notes(dataset)
    assert len(dataset.test) == 12


def test_training_rows_alone_are_fitted(tmp_path):
    rows = people()
    write(tmp_path / "train.csv", rows)
    write(tmp_path / "test.csv", rows)
    before = table(str(tmp_path))
    changed = [{**rows[0], "age": 5000, "town": "Bern"}, *rows[1:]]
    write(tmp_path / "test.csv", changed)
    after = table(str(tmp_path))
    assert after.preprocessor == before.preprocessor
    assert torch.equal(after.train.resident.tensor, before.train.resident.tensor)
    assert int(after.test.resident.tensor[0, 3]) == 0
    assert "categories that no training row has, read as unknown: town 1" in notes(after)


def test_statistics_are_those_of_training_rows(read):
    dataset = read(people())
    age = np.array([float(row["age"]) for row in people()])
    of_train = age[[int(n.split()[1]) - 2 for n in dataset.train.names]]
    assert dataset.values.mean[0] == pytest.approx(of_train.mean())
    assert dataset.values.std[0] == pytest.approx(of_train.std())
    assert dataset.train.resident.tensor[:, 0].mean().abs() < 1e-6
    assert dataset.values.categories == (0, 0, 4, 3)


def test_equal_rows_in_train_and_test_cause_a_warning(tmp_path):
    write(tmp_path / "train.csv", people())
    write(tmp_path / "test.csv", [{**row, "age": 200} if i else row for i, row in enumerate(people())])
    assert "1 test row also in train" in notes(table(str(tmp_path)))


def test_fingerprint_identifies_the_content(read):
    assert read(people()).fingerprint == read(people(), name="other.csv").fingerprint
    rows = people()
    rows[3]["age"] = 99
    assert read(rows).fingerprint != read(people()).fingerprint
