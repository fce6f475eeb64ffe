"""Tables that a user names for a trained encoder.

1. How a file is written is a property of the file: dataset.decimal, thousands and missing apply to it.
2. Beside files, such a key is refused with a command that works.
3. Errors name each file once, all columns, and what to type.
4. Evaluations on another file, and trainings that begin with a trained encoder, honor these keys as well.
"""

from __future__ import annotations

import csv
import json
import shlex
from pathlib import Path

import pytest

from sslcli.data.tables.cells import CellFormat
from sslcli.data.tables.encoding import ColumnEncoding
from sslcli.data.tables.preprocessor import TablePreprocessor
from sslcli.errors import RequestError
from tests.inference.encoders import short_run

ROWS = [
    (f"{1000 + 37.25 * i:.2f}", f"{20 + i % 7}.5", ("rome", "paris")[i % 2], ("no", "yes")[i > 30]) for i in range(64)
]
NEW = [(f"{1234.56 + 300 * i:.2f}", f"{20 + i}.5", "rome") for i in range(5)]


def write(path: Path, rows: list[tuple[str, ...]], comma: bool = False) -> str:
    head = ("income", "age", "city", "label")[: len(rows[0])]
    lines = [";".join(head), *(";".join(row).replace(".", "," if comma else ".") for row in rows)]
    path.write_text("\n".join(lines) + "\n")
    return str(path)


def pretrain(folder: Path, comma: bool) -> Path:
    data = ["dataset=table", f"dataset.path={write(folder / 'rows.csv', ROWS, comma)}"]
    return short_run(folder, *data, *(["dataset.decimal=comma"] if comma else []))


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return pretrain(tmp_path_factory.mktemp("points"), comma=False)


@pytest.fixture(scope="module")
def comma_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return pretrain(tmp_path_factory.mktemp("commas"), comma=True)


def rows_of(out: str) -> list[dict[str, str]]:
    return [{**row, "path": ""} for row in csv.DictReader(out.splitlines())]


def test_marks_of_numbers_are_those_of_the_file(run: Path, comma_run: Path, tmp_path: Path, cli):
    points, commas = write(tmp_path / "points.csv", NEW), write(tmp_path / "commas.csv", NEW, comma=True)
    grouped = write(tmp_path / "grouped.csv", [(f"{float(a):,.2f}", b, c) for a, b, c in NEW])
    expected = [rows_of(cli("predict", str(run), points, "device=cpu").out)]
    expected.append(rows_of(cli("predict", str(comma_run), commas, "device=cpu").out))
    assert len(expected[0]) == len(expected[1]) == len(NEW)
    for spec, path, keys, rows in (
        (run, commas, ["dataset.decimal=comma"], expected[0]),
        (run, grouped, ["dataset.thousands=comma"], expected[0]),
        (comma_run, points, ["dataset.decimal=point"], expected[1]),
        (comma_run, grouped, ["dataset.thousands=comma"], expected[1]),
    ):
        done = cli("predict", str(spec), "dataset=table", f"dataset.path={path}", *keys, "device=cpu")
        assert (done.code, rows_of(done.out)) == (0, rows), (keys, done.err)


def test_markers_of_missing_values_are_those_of_the_file(run: Path, tmp_path: Path, cli):
    some = write(tmp_path / "some.csv", [("unknown", "forty", "rome"), *NEW])
    empty = write(tmp_path / "empty.csv", [("", "", "rome"), *NEW])
    data = ["dataset=table", f"dataset.path={some}", "device=cpu"]
    done = cli("predict", str(run), *data, "dataset.missing=[forty,unknown]")
    assert done.code == 0, done.err
    assert rows_of(done.out) == rows_of(cli("predict", str(run), empty, "device=cpu").out)
    first = cli("embed", str(run), *data, "dataset.missing=[forty,unknown,rome]", "out=e.npz")
    second = cli("embed", str(run), *data, "dataset.missing=[forty,unknown]", "out=e.npz")
    assert (first.code, second.code, "samples differ" in second.err) == (0, 2, True)


@pytest.mark.parametrize("name", ["predict", "embed"])
def test_keys_beside_files_are_refused_with_a_command(run: Path, tmp_path: Path, cli, name: str):
    path = write(tmp_path / "new commas.csv", NEW, comma=True)
    refused = cli(name, str(run), path, "dataset.decimal=comma", "device=cpu", f"out={tmp_path / 'out.csv'}")
    assert refused.code == 2
    hint = refused.err.partition("hint: ")[2].strip()
    words = shlex.split(hint)
    assert words[:5] == ["sslcli", name, str(run), "dataset=table", f"dataset.path={path}"]
    if name == "predict":
        assert cli(*words[1:]).code == 0
        assert len(rows_of((tmp_path / "out.csv").read_text())) == len(NEW)


@pytest.mark.parametrize(
    ("before", "options", "after"),
    [
        ((".", ","), {"decimal": "comma"}, (",", None)),
        ((",", "."), {"thousands": "comma"}, (".", ",")),
        ((",", None), {"thousands": "comma"}, (".", ",")),
        ((".", None), {"thousands": "point"}, (",", ".")),
        ((".", ","), {"thousands": None}, (".", None)),
        ((".", ","), {}, (".", ",")),
    ],
)
def test_marks_that_change(before, options, after):
    form = CellFormat(*before, frozenset({"-"})).changed(options)
    assert (form.decimal, form.thousands, form.missing) == (*after, {"-"})


def test_equal_marks_are_refused():
    with pytest.raises(RequestError, match="are both"):
        CellFormat().changed({"decimal": "comma", "thousands": "comma"})


def test_hints_are_commands_that_work(run: Path, comma_run: Path, tmp_path: Path, cli):
    """All columns with text are named; so is the file, once."""
    points, commas = write(tmp_path / "points.csv", NEW), write(tmp_path / "commas.csv", NEW, comma=True)
    marked = write(tmp_path / "marked.csv", [("unknown", "forty", "rome"), *NEW])
    for spec, path, key in (
        (run, commas, "dataset.decimal=comma"),
        (comma_run, points, "dataset.decimal=point"),
        (run, marked, "dataset.missing=[unknown,forty]"),
    ):
        refused = cli("predict", str(spec), path, "device=cpu")
        assert (refused.code, refused.err.partition("\nhint: ")[0].count(path)) == (7, 1), refused.err
        assert "column income holds numbers" in refused.err
        assert "column age holds numbers" in refused.err
        words = shlex.split(refused.err.partition("\nhint: ")[2].rpartition(" reads ")[0].rpartition("; ")[2])
        assert words == ["dataset=table", f"dataset.path={path}", key]
        done = cli("predict", str(spec), *words, "device=cpu")
        assert done.code == 0, done.err


def test_files_that_cannot_be_read_are_named_with_a_hint(run: Path, tmp_path: Path, cli):
    good, bad = write(tmp_path / "good.csv", NEW), tmp_path / "bad.csv"
    bad.write_bytes("income;age;city\n1;2;München\n".encode("cp1252"))
    alone = cli("predict", str(run), str(bad), "device=cpu")
    assert (alone.code, alone.err.count(str(bad)), "iconv -f CP1252" in alone.err) == (7, 1, True)
    both = cli("predict", str(run), good, str(bad), "device=cpu")
    assert both.code == 0
    assert f"1 file cannot be read: {bad} (line 2, byte 21: 0xfc is not UTF-8)" in both.err
    assert "iconv -f CP1252" in both.err
    rows = list(csv.DictReader(both.out.splitlines()))
    assert [(row["path"], row["error"]) for row in rows if row["error"]] == [
        (str(bad), "line 2, byte 21: 0xfc is not UTF-8")
    ]
    worse = write(tmp_path / "worse.csv", NEW, comma=True)
    neither = cli("predict", str(run), str(bad), worse, "device=cpu")
    assert (neither.code, neither.err.count(str(bad)), neither.err.count(worse)) == (7, 1, 1)
    assert "iconv -f CP1252" in neither.err


def labeled(folder: Path, comma: bool = False) -> str:
    """The training rows in other files, whose names differ from those of training."""
    return write(folder / f"again {comma}.csv", ROWS, comma)


def metrics_of(out: str) -> list[str]:
    return [line for line in out.splitlines() if " " in line and not line.startswith("/")]


def test_evaluations_read_another_file_as_the_command_line_describes_it(
    run: Path, comma_run: Path, tmp_path: Path, cli
):
    """4. eval of a run, and the audit by its features, honor the keys of the new file."""
    points, commas = labeled(tmp_path), labeled(tmp_path, comma=True)
    marked = write(tmp_path / "marked.csv", [("unknown", *ROWS[0][1:]), *ROWS[1:]])
    empty = write(tmp_path / "empty.csv", [("", *ROWS[0][1:]), *ROWS[1:]])

    def measure(spec: Path, path: str, *keys: str) -> list[str]:
        done = cli("eval", "knn", f"run={spec}", "dataset=table", f"dataset.path={path}", *keys, "device=cpu")
        assert done.code == 0, done.err
        return metrics_of(done.out)

    assert measure(run, commas, "dataset.decimal=comma") == measure(run, points)
    assert measure(comma_run, points, "dataset.decimal=point") == measure(comma_run, commas)
    assert measure(run, marked, "dataset.missing=[unknown]") == measure(run, empty)
    data = ["dataset=table", f"dataset.path={commas}", "dataset.decimal=comma", "device=cpu"]
    assert cli("data", "audit", f"run={run}", *data).code == 0
    wrong = cli("eval", "knn", f"run={run}", "dataset=table", f"dataset.path={commas}", "device=cpu")
    assert wrong.code != 0
    assert "dataset.decimal=comma" in wrong.err


def test_initial_weights_leave_the_description_of_files_to_the_new_data(
    run: Path, comma_run: Path, tmp_path: Path, cli
):
    """4. With init=, dataset.decimal and thousands are those of the new data set, also where they are the defaults; without
    dataset.missing the markers of the encoder remain."""
    points, commas = labeled(tmp_path), labeled(tmp_path, comma=True)
    short = [
        "method=scarf",
        "train.steps=2",
        "train.epochs=null",
        "train.batch_size=16",
        "train.eval_every=0",
        "device=cpu",
    ]
    weights = []
    for spec, path, keys in ((comma_run, points, []), (comma_run, commas, ["dataset.decimal=comma"])):
        made = cli("pretrain", *short, "dataset=table", f"dataset.path={path}", f"init={spec}", *keys)
        assert made.code == 0, made.err
        assert ("numbers are read with decimal mark '.'" in made.err) == (not keys), made.err
        weights.append(json.loads((Path(made.out.strip()) / "encoder.json").read_text())["sha256"])
        evaluated = cli("eval", "knn", f"run={made.out.strip()}", "device=cpu")
        assert evaluated.code == 0, evaluated.err
    assert weights[0] == weights[1]
    refused = cli("pretrain", *short, "dataset=table", f"dataset.path={commas}", f"init={run}")
    assert refused.code != 0
    assert "dataset.decimal=comma" in refused.err


def test_markers_of_the_encoder_remain_where_none_are_given():
    own = preprocessor({"missing": ["-999"]})
    for node, missing, decimal in (
        ({"decimal": "point", "thousands": None, "missing": None}, {"-999"}, "."),
        ({"decimal": "comma", "thousands": None, "missing": ["none"]}, {"none"}, ","),
    ):
        notes: list[str] = []
        cells = own.for_new_data(node, notes).cells
        assert (set(cells.missing), cells.decimal, len(notes)) == (missing, decimal, decimal == ",")


def preprocessor(options):
    column = ColumnEncoding("a", 0.0, 1.0)
    return TablePreprocessor((column,), cells=CellFormat().changed(options))
