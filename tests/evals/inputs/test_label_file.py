from __future__ import annotations

import json
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from sslcli.data.dataset import Dataset
from sslcli.data.samples.exclude import exclude
from sslcli.data.sources.image_folder import image_folder
from sslcli.errors import DataError, RequestError
from sslcli.evals.artefacts.predictions import FILE
from sslcli.evals.attentive import attentive
from sslcli.evals.base.cross_validation import cross_validated
from sslcli.evals.base.features import EvalData
from sslcli.evals.finetune import finetune
from sslcli.evals.inputs.label_file import apply_label_file, is_file, measured_notes, with_label_fingerprint
from sslcli.evals.inputs.label_subsets import parse
from sslcli.evals.knn import knn
from sslcli.evals.probe import probe
from sslcli.runs.results import has_labels, result_name, saved_results
from tests.evals import learners, toys
from tests.evals.test_attentive import vit


def class_name(n: int = 40, n_test: int = 20, labels: bool = True) -> Dataset:
    """Class of sample i is i % 2; train names are photos/a00.png ..., those of test photos/t00.png ..."""
    rows = toys.dataset(n, n_test, classes=2)
    for source, letter in ((rows.train, "a"), (rows.test, "t")):
        y = torch.arange(len(source)) % 2
        source.x[:, 0, 0] = (y * 200)[:, None].to(torch.uint8)
        source.labels = y if labels else None
        source.names = [f"photos/{letter}{i:02}.png" for i in range(len(source))]
    return replace(rows, classes=("cat", "dog") if labels else (), fingerprint="f")


@pytest.fixture
def write(tmp_path):
    def write(text: str) -> str:
        (tmp_path / "labels.csv").write_text(text)
        return str(tmp_path / "labels.csv")

    return write


def lines(ids, letter="a", head="name,label", word=("cat", "dog"), split=""):
    return "\n".join([head, *(f"photos/{letter}{i:02}.png,{word[i % 2]}{split}" for i in ids)]) + "\n"


def test_label_file_replaces_all_labels(write):
    file = write(lines([3, 4, 8, 9]))
    rows, notes = apply_label_file(class_name(), file)
    assert torch.nonzero(rows.train.labels >= 0).flatten().tolist() == [3, 4, 8, 9]
    assert rows.train.labels[[3, 4, 8, 9]].tolist() == [1, 0, 0, 1]
    assert rows.test.labels.tolist() == class_name().test.labels.tolist()
    assert rows.fingerprint == "f"  # of the same samples: features are still good
    assert with_label_fingerprint(rows).fingerprint != "f"  # results are not
    assert "own labels" in notes[-1]
    assert str(parse(file, rows)) == file
    with pytest.raises(RequestError, match="was not read"):
        parse(file, class_name())
    data = EvalData(rows, untrained=toys.Blind, recipes={})
    for evaluator, given in (
        (probe, {}),
        (knn, {"k": 2}),
        (finetune, {"augment": "clean", "epochs": 0, "min_steps": 20}),
    ):
        if evaluator is finetune:
            data.untrained = learners.Net
            result = evaluator(learners.Net(), data, labels=file, **given)
        else:
            result = evaluator(toys.Rows(), data, labels=file, **given)
        assert result.protocol["labels"] == file
        assert result.protocol["splits"]["labelled"] == 4
        assert result.metrics["top1"] > 0.8
    assert attentive(vit(), EvalData(rows), labels=file, epochs=0, min_steps=20).protocol["splits"]["labelled"] == 4


def test_label_file_with_names_and_ids(write):
    by_end, _ = apply_label_file(
        class_name(), write("name,label\na03.png,dog\n./photos/a04.png,cat\n/data/x/photos/a08.png,cat\n")
    )
    assert torch.nonzero(by_end.train.labels >= 0).flatten().tolist() == [3, 4, 8]
    by_id, notes = apply_label_file(class_name(), write("\ufeffid,label\n3,cat\n4,cat\n5,\n"))
    assert by_id.train.labels[3:6].tolist() == [0, 0, -1]
    assert any("1 row" in note for note in notes)
    assert any("1 label of" in note and "differ" in note for note in notes)  # 3 is a dog
    spoken, _ = apply_label_file(class_name(), write("path,label,by\nphotos/a00.png,cat,ann\n"))
    assert int((spoken.train.labels >= 0).sum()) == 1


def test_label_file_with_other_folders_and_ids_as_names(write):
    elsewhere = "".join(f"/old/disk/{'ab'[i % 2]}/photos/a{i:02}.png,{('cat', 'dog')[i % 2]}\n" for i in range(4))
    for text in (
        "name,label\n/old/photographs/a03.png,dog\n/old/photographs/a04.png,cat\n",  # another folder above
        "name,label\n/old/photographs/a03,dog\n/old/photographs/a04.jpg,cat\n",  # and no, or another extension
        "id,label\na03,dog\na04,cat\n",
        "id,breed\na03.png,dog\na04.png,cat\n",
    ):
        rows, notes = apply_label_file(class_name(), write(text))
        assert torch.nonzero(rows.train.labels >= 0).flatten().tolist() == [3, 4], text
        assert ("column breed" in "".join(notes)) is ("breed" in text)
    assert int((apply_label_file(class_name(), write(f"name,label\n{elsewhere}"))[0].train.labels >= 0).sum()) == 4
    metrics = class_name()
    metrics.train.names = [f"{i}.png" for i in range(40, 0, -1)]
    by_name, _ = apply_label_file(metrics, write("id,label\n1,dog\n2,cat\n"))
    assert torch.nonzero(by_name.train.labels >= 0).flatten().tolist() == [38, 39]  # not samples 1 and 2
    by_number, _ = apply_label_file(metrics, write("id,label\n0,cat\n2,cat\n"))
    assert torch.nonzero(by_number.train.labels >= 0).flatten().tolist() == [0, 2]
    with pytest.raises(
        DataError, match="names 1 sample"
    ) as error:  # dogs/a03.png may be another image than photos/a03.png
        apply_label_file(class_name(), write("name,label\nphotos/a04.png,cat\ndogs/a03.png,dog\n"))
    assert "folders above and the extension may be left out" in error.value.hint


def test_label_file_split_names(write):
    text = "name,label,split\n" + "".join(
        f"a{i:02}.png,{('cat', 'dog')[i % 2]},{'Training' if i < 4 else 'valid'}\n" for i in range(8)
    )
    rows, _ = apply_label_file(class_name(labels=False), write(text))
    assert len(rows.test) == 4
    rows, notes = apply_label_file(class_name(labels=False), write(text + "t00.png,cat,eval\nt01.png,dog,test\n"))
    assert list(rows.test.names) == ["photos/t00.png", "photos/t01.png"]
    assert any("4 rows of" in note and "left aside" in note for note in notes)


def test_label_file_rows_in_unlabeled_test_split_are_tested(write):
    file = write(lines(range(6)) + lines(range(50), "t").partition("\n")[2])
    rows, notes = apply_label_file(class_name(n_test=60, labels=False), file)
    assert rows.classes == ("cat", "dog")
    assert len(rows.train) == 40
    assert int((rows.train.labels >= 0).sum()) == 6
    assert rows.test.labels.tolist() == [0, 1] * 25
    assert list(rows.test.names) == [f"photos/t{i:02}.png" for i in range(50)]
    assert torch.equal(rows.test.resident.tensor, class_name(n_test=60, labels=False).test.x[:50])
    assert not rows.details["labels"].get("few")
    assert rows.fingerprint != "f"
    assert "held out" in notes[-1]
    assert probe(toys.Rows(), EvalData(rows), labels=file).metrics["top1"] > 0.8


def test_label_file_holds_out_a_fifth_without_test_rows(write):
    file = write(lines(range(20)))
    for test in (class_name(labels=False).test, None):
        rows, notes = apply_label_file(replace(class_name(labels=False), test=test), file)
        assert rows.test.labels.tolist().count(0) == rows.test.labels.tolist().count(1) == 2
        assert int((rows.train.labels >= 0).sum()) == 16
        assert not set(rows.test.names) & set(rows.train.names)  # no feature of a test sample standardises anything
        assert len(rows.train) == 36
        assert rows.details["labels"]["few"]
        assert "each of the 20 is tested once" in measured_notes(rows, cross_validated=True)[0]
        assert "4 labelled samples: a stratified 20% of 20" in measured_notes(rows, cross_validated=False)[0]
        for folds in (True, False):
            assert "without labels" in measured_notes(rows, folds)[-1]
        assert not any(
            "cross-validation" in note or "20%" in note for note in notes
        )  # each is true for some evaluators
    again, _ = apply_label_file(class_name(labels=False), file)
    assert list(again.test.names) == list(rows.test.names)
    with pytest.raises(DataError, match="dog has a single label") as error:
        apply_label_file(class_name(labels=False), write(lines([0, 1, 2])))
    assert "split" in error.value.hint


def test_label_file_trains_on_a_class_with_one_label(write, capsys):
    file = write(lines(range(20)) + "a30.png,DOG\n")
    rows, notes = apply_label_file(class_name(labels=False), file)
    assert any("DOG has a single label" in note and note.startswith("warning") for note in notes)
    assert any("nearly the same name, such as DOG and dog" in note for note in notes)
    assert sorted(rows.test.labels.tolist()) == [1, 1, 2, 2]
    assert int((rows.train.labels == 0).sum()) == 1
    data = EvalData(rows, untrained=toys.Blind)
    for evaluate in (partial(probe, labels=file), partial(knn, k=3, labels=file)):
        result = cross_validated(evaluate, toys.Rows(), data, 2)
        assert result.protocol["splits"] == {"train": 40, "labelled": 21, "test": 20}
        assert "photos/a30.png" not in [
            list(rows.train.names)[i] for i in result.artefacts[FILE].ids.tolist() if i < 36
        ]
        if result.fitted is not None:
            assert result.fitted.make().classes == ("DOG", "cat", "dog")
    assert "each of the 20 is tested" in measured_notes(rows, cross_validated=True)[0]


@pytest.mark.parametrize("shared", [True, False])
def test_label_file_with_a_class_in_one_group(write, shared):
    """A recording of the only fox is trained on, and not measured; where each class is in one recording, nothing is measured."""
    rows = class_name(labels=False)
    group = torch.arange(40) // 4 if shared else torch.arange(40) % 2
    for source in (rows.train, rows.test):
        source.groups = group[: len(source)] + (100 if source is rows.test else 0)
    file = write(lines(range(36)) + "".join(f"photos/a{i}.png,fox\n" for i in range(36, 40) if shared))
    if not shared:
        with pytest.raises(DataError, match="all labelled samples of cat, dog are of one group"):
            apply_label_file(rows, file)
        return
    found, notes = apply_label_file(rows, file)
    assert any("fox are of one group" in note and note.startswith("warning") for note in notes)
    assert sorted(found.test.labels.unique().tolist()) == [0, 1]
    assert int((found.train.labels == 2).sum()) == 4
    assert not set(found.test.groups.tolist()) & set(found.train.groups.tolist())
    assert "each of the 36 is tested once" in measured_notes(found, cross_validated=True)[0]


def test_label_file_with_one_group_that_others_predict(write):
    """The first of two recordings has the only fox, so that the second is the test."""
    rows = class_name(labels=False)
    rows.train.groups, rows.test.groups = torch.arange(40) // 20, torch.full((20,), 9)
    found, _ = apply_label_file(rows, write(lines(range(2, 40)) + "photos/a00.png,fox\nphotos/a01.png,fox\n"))
    assert found.test.groups.unique().tolist() == [1]
    assert sorted(found.train.labels.unique().tolist()) == [0, 1, 2]  # all of the first


def test_label_file_of_known_classes_may_leave_one_out(write):
    unlabeled = replace(class_name(labels=False), classes=("cat", "dog", "fox"))
    rows, notes = apply_label_file(unlabeled, write(lines(range(8))))
    assert sorted(rows.test.labels.tolist()) == [0, 1]
    assert not any("single label" in note for note in notes)


def test_label_file_of_one_class_is_named(write):
    file = write(lines([0, 2, 4, 6]))
    with pytest.raises(DataError, match=r"labels\.csv has 4 labels, all of the class cat"):
        apply_label_file(class_name(labels=False), file)
    rows, _ = apply_label_file(class_name(), file)  # a labeled test split: anomaly trains on one class
    for evaluate in (probe, knn, finetune, attentive):
        with pytest.raises(DataError, match=r"labels\.csv has 4 training labels, all of the class cat"):
            evaluate(None, EvalData(rows), labels=file)


def test_label_file_split_column_selects_test_rows(write):
    text = (
        lines([0, 1, 2, 3], head="name,label,split", split=",train") + lines([4, 5], split=",test").partition("\n")[2]
    )
    text += lines([0], "t", split=",").partition("\n")[2] + lines([1], "t", split=",TEST").partition("\n")[2]
    for labels in (True, False):
        rows, notes = apply_label_file(class_name(labels=labels), write(text))
        assert list(rows.test.names) == ["photos/a04.png", "photos/a05.png", "photos/t01.png"]
        assert rows.test.labels.tolist() == [0, 1, 1]
        assert int((rows.train.labels >= 0).sum()) == 5
        assert len(rows.train) == 39
        assert "photos/t00.png" in list(rows.train.names)
        assert notes[-1].startswith("2 of these lie in the training split")


@pytest.mark.parametrize(
    ("text", "message", "hint"),
    [
        (lines([0]) + "photos/a00.png,cat\n", "line 3: photos/a00.png of line 2 a second time", "leave one"),
        (lines([0]) + "a00.png,dog\n", "line 3: a00.png of line 2 with another label", "leave one"),
        (
            lines([0, 1]) + "nope.png,cat\nphotos/no.png,dog\n",
            "names 2 samples that rows does not have, such as nope.png",
            "a00.png",
        ),
        (lines([0], word=("dogg", "dog")), "line 2: dogg is no class", "did you mean dog"),
        (lines([0, 1], word=("7", "dog")), "line 2: 7 is no class", "cat, dog"),
        (lines([0], "t"), "names 1 sample of the test split of rows, such as photos/t00.png", "split"),
        ("", "header of .* is empty", "name,label"),
        ("name;tag;who\na00.png;cat;x\n", "header of .* is name,tag,who", "name,label"),
        ("name,id,label\n", "header of", "name,label"),
        ("name,label\n", "holds no label", "name,label"),
        ("name,label\na00.png\n", "line 2: expected 2 columns", "correct that line"),
        ('name,label\n"a00.png,cat\n', "is not a CSV file: line 2", "quotation"),
        ("name,label,split\na00.png,cat,vali\n", "split is vali", "train or test"),
        ("id,label\n40,cat\n-1,cat\n", "names 2 samples that rows does not have, such as 40, -1", "from 0 to 39"),
    ],
)
def test_label_file_rejects_invalid_rows(write, text, message, hint):
    with pytest.raises(DataError, match=message) as error:
        apply_label_file(class_name(), write(text))
    assert hint in error.value.hint


def test_label_file_reports_missing_files_and_names(write, tmp_path):
    file = write("name,label\na00.png,cat\n")
    assert is_file(file)
    assert not is_file("10/class")
    assert not is_file(10)
    with pytest.raises(RequestError, match="no such file") as error:
        apply_label_file(class_name(), str(tmp_path / "lables.csv"))
    assert "labels.csv" in error.value.hint
    rows = class_name()
    rows.train.names = rows.test.names = None
    with pytest.raises(DataError, match="have no names"):
        apply_label_file(rows, file)
    rows = class_name()
    rows.train.names[1] = "other/a00.png"
    with pytest.raises(DataError, match=r"a00.png may be photos/a00.png, other/a00.png"):
        apply_label_file(rows, file)
    apply_label_file(rows, write("name,label\nother/a00.png,cat\n"))


@pytest.fixture
def photos(tmp_path):
    """Sixty unlabeled images in one folder; every second is bright."""
    (tmp_path / "photos").mkdir()
    g = np.random.default_rng(0)
    for i in range(60):
        x = g.integers(0, 80, (8, 8), dtype=np.uint8) + (i % 2) * 120
        Image.fromarray(x).save(tmp_path / "photos" / f"p{i:02}.png")
    return tmp_path


@pytest.mark.parametrize("resident", ["auto", "false"])
def test_label_file_for_unlabeled_folder_from_the_cli(cli, photos, resident, monkeypatch):
    from tests.conftest import SMOKE

    (photos / "labels.csv").write_text(
        "name,label\n" + "".join(f"p{i:02}.png,{('dark', 'light')[i % 2]}\n" for i in range(40))
    )
    folder = ["dataset=image_folder", "dataset.path=photos", "backbone=convnet", f"dataset.resident={resident}"]
    made = cli("pretrain", *SMOKE, *folder, "train.batch_size=16", "device.workers=0")
    assert made.code == 0, made.err
    few = ["labels=labels.csv", "device=cpu", "device.threads=1", "device.workers=0"]
    found = cli("eval", "probe", *few)
    assert found.code == 0, found.err
    assert "labels of 40 samples" in found.err
    assert "40 labelled test samples are few" in found.err
    record = json.loads(next(Path("runs/latest/eval").glob("probe@labels-*.json")).read_text())
    assert record["protocol"]["splits"] == {"train": 60, "labelled": 40, "test": 40}
    assert record["protocol"]["cross_validation"]["folds"] == 5
    low, high = record["intervals"]["top1_ci95"]
    assert low < record["numbers"]["top1"] < high or record["numbers"]["top1"] == high
    assert float(dict(line.split() for line in found.out.splitlines())["probe.top1"]) > 0.7
    tuned = cli("eval", "finetune", *few, "evaluator.min_steps=5", "evaluator.epochs=0", "evaluator.baselines=false")
    assert tuned.code == 0, tuned.err
    assert "measured on 8 labelled samples: a stratified 20% of 40" in tuned.err
    assert "cross-validation" not in tuned.err
    assert "each of the 40 is tested once" in found.err
    assert "20%" not in found.err
    assert "image_folder: 60 samples, divided into folds" in found.err
    assert "image_folder: 52 train, 8 test" in tuned.err
    assert any("each of the 40" in note for note in record["protocol"]["notes"])
    wrong = cli("eval", "probe", "evaluator.labels=labels.csv")
    assert wrong.code == 2
    assert "was not read" in wrong.err


def test_label_file_results_without_a_labels_option_are_named_by_it(cli, photos):
    from tests.conftest import SMOKE

    (photos / "labels.csv").write_text(
        "name,label\n" + "".join(f"p{i:02}.png,{('dark', 'light')[i % 2]}\n" for i in range(40))
    )
    few = ["labels=labels.csv", "device=cpu", "device.threads=1", "device.workers=0"]
    folder = ["dataset=image_folder", "dataset.path=photos", "backbone=convnet"]
    assert cli("pretrain", *SMOKE, *folder, "train.batch_size=16", "device.workers=0").code == 0
    assert cli("eval", "cluster", *few[1:]).code == 0  # of all samples, without labels
    before = Path("runs/latest/eval/cluster.json").read_text()
    for name in ("cluster", "retrieval"):
        compared = cli("eval", name, *few, "evaluator.baselines=false")
        assert compared.code == 0, compared.err
        assert "no effect" not in compared.err
        assert "measured on 8 labelled samples" in compared.err
        assert "cross-validation" not in compared.err
        (saved,) = Path("runs/latest/eval").glob(f"{name}@labels-*.json")
        assert json.loads(saved.read_text())["protocol"]["labels"] == "labels.csv"
        found = saved_results(Path("runs/latest"))[saved.stem]
        assert (found.evaluator, found.labels, found.dataset) == (name, "labels.csv", "")
    assert Path("runs/latest/eval/cluster.json").read_text() == before
    assert "labels=10/class has no effect on cluster" in cli("eval", "cluster", "labels=10/class", *few[1:]).err
    assert cli("runs", "report", "latest").code == 0


def test_label_file_for_an_image_folder(photos):
    file = photos / "labels.csv"
    file.write_text("name,label\n" + "".join(f"p{i:02}.png,{i % 2}\n" for i in range(60)))
    for holdout in ("auto", 0.2):  # nothing, and as runs made before held it out
        rows = image_folder(str(photos / "photos"), holdout=holdout)
        found, _ = apply_label_file(rows, str(file))
        assert found.classes == ("0", "1")
        assert len(found.test) == 12
        assert len(found.train) == 48
        assert found.details["labels"]["few"]
    for source in (found.train, found.test):
        bright = source.resident.tensor.float().mean(dim=(1, 2, 3)) > 100
        assert torch.equal(bright.long(), source.labels)


def test_label_file_names_samples_that_were_left_out(photos):
    (photos / "photos" / "empty.png").touch()
    (photos / "exclude.csv").write_text("path\np03.png\n")
    rows = exclude(image_folder(str(photos / "photos")), str(photos / "exclude.csv"))
    file = photos / "labels.csv"
    for head, more, message in (
        ("name", "p03.png,a\n", r"names 1 sample that image_folder leaves out: p03\.png \(dataset\.exclude="),
        ("name", "empty,b\n", r"leaves out: empty \(the file is empty\)"),
        ("id", "p03,a\nempty,b\n", "names 2 samples that image_folder leaves out: p03"),
        ("name", "p03.png,a\nnope.png,a\n", "names 1 sample that image_folder leaves out"),
        ("name", "nope.png,a\n", "names 1 sample that image_folder does not have, such as nope.png"),
    ):
        file.write_text(f"{head},label\n" + "".join(f"p{i},{'ab'[i % 2]}\n" for i in range(10, 20)) + more)
        with pytest.raises(DataError, match=message):
            apply_label_file(rows, str(file))


def test_label_file_ids_that_are_numbers_are_names_also_where_one_was_left_out(write):
    rows = class_name(labels=False)
    rows.train.names = [f"{i}.png" for i in range(41, 1, -1)]
    rows.details["left_out_names"] = {"1.png": "dataset.exclude=some.csv"}
    with pytest.raises(DataError, match="leaves out: 1 "):  # not samples 1, 2, 3
        apply_label_file(rows, write("id,label\n1,cat\n2,dog\n3,dog\n"))


def test_label_file_beside_own_labels(write):
    """`labels=all+FILE`: the labels of the data set stay, except those of the samples that the file names."""
    partly = class_name()
    partly.train.labels[20:] = -1
    file = write(lines([0, 21, 24], word=("dog", "cat")))
    alone, notes = apply_label_file(partly, file)
    assert torch.nonzero(alone.train.labels >= 0).flatten().tolist() == [0, 21, 24]
    assert any(n.startswith("warning: the labels of 19 other training samples of rows are not used") for n in notes)
    assert any(f"labels=all+{file}" in n for n in notes)
    both, notes = apply_label_file(partly, f"all+{file}")
    expected = partly.train.labels.clone()
    expected[[0, 21, 24]] = torch.tensor([1, 0, 1])
    assert both.train.labels.tolist() == expected.tolist()
    assert both.test.labels.tolist() == partly.test.labels.tolist()
    assert "with the labels of 19 other samples of rows" in notes
    assert not any("not used" in n for n in notes)
    assert str(parse(f"all+{file}", both)) == f"all+{file}"
    assert with_label_fingerprint(both).fingerprint != with_label_fingerprint(alone).fingerprint
    assert partly.train.labels[0] == 0  # the given data set stays as it is
    name = result_name("probe", f"all+{file}")
    assert name.startswith("probe@all-labels-")
    assert has_labels(name, f"all+{file}")
    assert not has_labels(name, file)
    assert not has_labels(result_name("probe", file), f"all+{file}")


def test_label_file_beside_own_labels_without_a_labeled_test_split(write):
    partly = class_name()
    partly = replace(partly, test=None)
    partly.train.labels[30:] = -1
    both, _ = apply_label_file(partly, "all+" + write(lines(range(30, 36))))
    labels = torch.cat([both.train.labels, both.test.labels])
    assert int((labels >= 0).sum()) == 36
    assert len(both.test) == 8  # a fifth of all 36
    explicit, _ = apply_label_file(partly, "all+" + write(lines([30, 31], split=",test", head="name,label,split")))
    assert len(explicit.test) == 2
    assert int((explicit.train.labels >= 0).sum()) == 30


def test_label_file_defines_classes_of_its_own(write):
    """Where none of its labels is a class of the data set, such as that of a folder that was read as a class."""
    odd = class_name()
    odd.train.labels = torch.where(torch.arange(40) < 3, 0, -1)
    odd.test.labels = torch.full((20,), -1)
    odd = replace(odd, classes=("office",))
    found, notes = apply_label_file(odd, write(lines(range(20))))
    assert found.classes == ("cat", "dog")
    assert any("no label" in n and "is a class of rows (office)" in n for n in notes)
    labeled = torch.cat([s.labels[s.labels >= 0] for s in (found.train, found.test)])
    assert labeled.bincount().tolist() == [10, 10]
    with pytest.raises(DataError, match="line 2: cat is no class of this data set"):
        apply_label_file(odd, "all+" + write(lines(range(20))))
