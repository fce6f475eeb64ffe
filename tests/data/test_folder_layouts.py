"""Splits and classes of common folder layouts, and the warnings about ambiguous ones."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping
from typing import Any

import pytest

from sslcli.data.folders.layout import detect_layout
from sslcli.data.folders.split_names import matching_splits, parse_split
from sslcli.data.sources.arrays import arrays
from sslcli.data.sources.image_folder import image_folder
from sslcli.data.sources.pack import pack
from sslcli.data.sources.pack_files.writer import write_pack
from sslcli.data.sources.tar import tar
from sslcli.errors import DataError, RequestError
from tests.data.test_tar import encoded, write

AB = {"a": 4, "b": 4}


def tree(**folders: Any) -> dict[str, int]:
    """tree(train=AB, test=2): {"train/a": 4, "train/b": 4, "test": 2}."""
    out = {}
    for name, below in folders.items():
        if isinstance(below, Mapping):
            out |= {f"{name}/{k}" if k else name: n for k, n in tree(**below).items()}
        else:
            out[name] = below
    return out


def below(*folders: str, of: Mapping[str, int]) -> dict[str, int]:
    return {f"{f}/{k}": n for f in folders for k, n in of.items()}


def seen(counts: Mapping[str, int], label: str | None = "auto", splits: Any = "auto") -> tuple[dict[str, Any], str]:
    """Kind -> class -> images, and the notes. `counts`: folder -> images; "dir/x.png" -> one image of that name."""
    paths = [
        tuple(f.split("/")) if f.endswith(".png") else (*(p for p in f.split("/") if p), f"{i}.png")
        for f, n in counts.items()
        for i in range(n)
    ]
    notes: list[str] = []
    reading = detect_layout(sorted(paths), (), "data", label, splits, notes)
    found: dict[str, Counter[str | None]] = defaultdict(Counter)
    for kind, cls in zip(reading.kinds, reading.classes, strict=True):
        found[kind or "left out"][cls] += 1
    return {k: dict(v) for k, v in found.items()}, "\n".join(notes)


SPLIT = tree(train=AB, val=AB, test=AB)
ALL = {"train": AB, "val": AB, "test": AB}
QUIET = {  # read without a warning
    "imagenette": (below("imagenette2", of=tree(train=AB, val=AB)), {"train": AB, "val": AB}),
    "asl": (
        below("asl_train/asl_train", of=AB) | {"asl_test/asl_test": 3},
        {"train": AB, "test": {None: 3}},
    ),
    "train_val and another version": (tree(train_val2018=AB, test2018=5), {"train": AB, "test": {None: 5}}),
    "mini beside val": (tree(train_mini=AB, val=AB), {"train": AB, "val": AB}),
    "numbered parts": ({"HAM_images_part_1": 4, "HAM_images_part_2": 3}, {"train": {None: 7}}),
    "numbered parts of images": ({"images_001/images": 4, "images_002/images": 3}, {"train": {None: 7}}),
    "people with masks": (
        {"mask/images": 3, "no_mask/images": 3, "face": 3, "face_mask": 4},
        {"train": {"mask": 3, "no_mask": 3, "face": 3, "face_mask": 4}},
    ),
    "one folder called like images": ({"img_align": 4}, {"train": {None: 4}}),
    "splits of the labelled": (
        tree(labeled={"train": AB, "test": AB}, unlabeled=5),
        {"train": AB, "test": AB, "unlabelled": {None: 5}},
    ),
    "numbers": ({str(i): 2 for i in range(10)}, {"train": {str(i): 2 for i in range(10)}}),
    "a domain in each split": (
        tree(train={"x": AB}, test={"x": AB}),
        {"train": AB, "test": AB},
    ),
    "good and broken": (
        {"train/good": 4, "test/good": 2, "test/broken": 2},
        {"train": {"good": 4}, "test": {"good": 2, "broken": 2}},
    ),
    "in a wrapper": (below("archive", of=SPLIT), ALL),
    "in two wrappers": (below("archive/data_v2", of=SPLIT), ALL),
    "other words": (tree(Training=AB, Validation=AB, Testing=AB), ALL),
    "dev and eval": (tree(TRAIN=AB, dev=AB, eval=AB), ALL),
    "unsup": (tree(train=AB, unsup=5), {"train": AB, "unlabelled": {None: 5}}),
    "labelled and unlabelled": (tree(labeled=AB, unlabeled=5), {"train": AB, "unlabelled": {None: 5}}),
    "a common prefix": (below("seg_train/seg_train", "seg_test/seg_test", of=AB), {"train": AB, "test": AB}),
    "a common ending": (tree(train2017=4, val2017=2), {"train": {None: 4}, "val": {None: 2}}),
    "several parts": (
        {"train.X1/a": 4, "train.X2/b": 4, "val.X/a": 1},
        {"train": {"a": 4, "b": 4}, "val": {"a": 1}},
    ),
    "images and sets": (tree(train_images=AB, testSet=AB), {"train": AB, "test": AB}),
    "trainval": (tree(trainval=AB, test=AB), {"train": AB, "test": AB}),
    "images inside": (below("train/images", "val/images", of=AB), {"train": AB, "val": AB}),
    "images inside classes": (
        {"train/a/images": 4, "train/b/images": 4, "val/images": 3},
        {"train": AB, "val": {None: 3}},
    ),
    "splits inside classes": (
        {"a/train": 4, "b/train": 4, "a/test": 1, "b/test": 2},
        {"train": AB, "test": {"a": 1, "b": 2}},
    ),
    "plurals": (
        tree(train={"cat": 4, "dog": 4}, test={"Cats": 2, "dogs": 2}),
        {"train": {"cat": 4, "dog": 4}, "test": {"cat": 2, "dog": 2}},
    ),
    "a folder for test images": (
        tree(train=AB, test={"unknown": 3}),
        {"train": AB, "test": {None: 3}},
    ),
    "only images": ({"images": 5}, {"train": {None: 5}}),
    "one class": ({"only": 5}, {"train": {"only": 5}}),
    "classes with words of splits": (
        {"valid": 4, "invalid": 4},
        {"train": {"valid": 4, "invalid": 4}},
    ),
    "stations": ({"train_station": 4, "bus_station": 4}, {"train": {"train_station": 4, "bus_station": 4}}),
    "classes beside unlabelled": ({"a": 4, "b": 4, "unlabeled": 5}, {"train": AB, "unlabelled": {None: 5}}),
    "classes beside their test": (
        {"a": 4, "b": 4, "test/a": 1, "test/b": 1},
        {"train": AB, "test": {"a": 1, "b": 1}},
    ),
    "images beside class folders": ({"": 2, "a": 4, "b": 4}, {"train": {None: 2, **AB}}),
}


@pytest.mark.parametrize("name", QUIET)
def test_layouts_read_without_a_warning(name):
    counts, wanted = QUIET[name]
    found, notes = seen(counts)
    assert found == wanted
    assert "warning" not in notes


SAID = {  # (layout, what is read, what the warning says)
    "cityscapes": (
        below("leftImg8bit", "gtFine", of=tree(train={"bonn": 4, "ulm": 4}, val={"ulm": 4})),
        {"train": {"bonn": 4, "ulm": 4}, "val": {"ulm": 4}, "left out": {None: 12}},
        "gtFine/ (12 images)",
    ),
    "mvtec": (
        {"train/good": 4, "test/good": 2, "test/broken": 2, "ground_truth/broken": 2},
        {"train": {"good": 4}, "test": {"good": 2, "broken": 2}, "left out": {None: 2}},
        "ground_truth/ (2 images)",
    ),
    "an augmented one": (
        tree(train=AB, train_aug=AB, test=AB),
        {"train": AB, "test": AB, "left out": {None: 8}},
        "images in no split are excluded: train_aug/ (8 images)",
    ),
    "ground truth of each split": (
        tree(A_Training_Data=4, A_Test_Data=2, A_Training_GroundTruth=4, A_Test_GroundTruth=2),
        {"train": {None: 4}, "test": {None: 2}, "left out": {None: 6}},
        "A_Training_GroundTruth/ (4 images)",
    ),
    "photographs by date": (
        {"2021-04": 4, "2021-05": 4},
        {"train": {"2021-04": 4, "2021-05": 4}},
        "look like dates: dataset.label=none",
    ),
    "other folders": (
        SPLIT | tree(extra=AB),
        ALL | {"left out": {None: 8}},
        "extra/ (8 images); to pretrain on them as well: 'dataset.splits={train: train, test: test, val: val, unlabelled: extra}'",
    ),
    "images beside splits": (
        SPLIT | {"": 2},
        ALL | {"left out": {None: 2}},
        "images in no split are excluded: (2 images)",
    ),
    "a wrapper and others": (
        below("data", of=SPLIT) | {"plots": 3},
        ALL | {"left out": {None: 3}},
        "plots/ (3 images)",
    ),
    "a second test": (
        tree(TRAIN=AB, TEST=AB, TEST_SIMPLE=AB),
        {"train": AB, "test": AB, "left out": {None: 8}},
        "TEST_SIMPLE/ (8 images)",
    ),
    "test alone": ({"test/a": 4, "test/b": 4}, {"train": AB}, "test/ is the only split"),
    "test beside classes": (
        {"a": 4, "b": 4, "test": 3},
        {"train": AB, "test": {None: 3}},
        "test/ is read as the test split, beside a/ (4 images), b/ (4 images); dataset.splits=none",
    ),
    "train among classes": (
        {"train": 4, "plane": 4},
        {"train": {"train": 4, "plane": 4}},
        "train/ (4 images) is read as a class, as is plane/ (4 images); if it is the training split: "
        "'dataset.splits={train: train}'",
    ),
    "train with classes and others": (
        {"train/a": 4, "train/b": 4, "figures": 3},
        {"train": AB, "left out": {None: 3}},
        "figures/ (3 images)",
    ),
    "domains": (
        {"photo/dog": 2, "photo/cat": 2, "sketch/dog": 2, "sketch/cat": 2},
        {"train": {"photo": 4, "sketch": 4}},
        "(cat, dog) are in several of photo, sketch, which are read as the classes; if the inner folders are: dataset.label=parent",
    ),
    "masks beside images": (
        {"train/images": 4, "train/masks": 4, "val/images": 2, "val/masks": 2},
        {"train": {None: 4}, "val": {None: 2}, "left out": {None: 6}},
        "excluded as masks: train/masks/ (4 images), val/masks/ (2 images); dataset.splits=none",
    ),
    "annotations beside images": (
        {"images/training": 4, "images/validation": 2, "annotations/training": 4, "annotations/validation": 2},
        {"train": {None: 4}, "val": {None: 2}, "left out": {None: 6}},
        "annotations/ (6 images)",
    ),
    "masks of train": (
        {"train": 4, "train_masks": 4, "test": 4},
        {"train": {None: 4}, "test": {None: 4}, "left out": {None: 4}},
        "train_masks/ (4 images)",
    ),
    "masks among images": (
        {"a/1.png": 1, "a/1_mask.png": 1, "a/1_mask_1.png": 1, "b/x_mask.png": 1},
        {"train": {"a": 1, "b": 1}, "left out": {None: 2}},
        "2 images named like another image",
    ),
}


@pytest.mark.parametrize("name", SAID)
def test_ambiguous_layouts_warn(name):
    counts, wanted, warning = SAID[name]
    found, notes = seen(counts)
    assert found == wanted
    assert any(line.startswith("warning: ") and warning in line for line in notes.splitlines()), notes


@pytest.mark.parametrize(
    ("counts", "sentence", "hint"),
    [
        (tree(val=AB, test=AB), "no training split", "'dataset.splits={train: val, test: test}'"),
        (
            below("one", "two", of=tree(train=AB, test=AB)),
            "one/, two/ in data each contain splits with class folders",
            "dataset.path=data/one; to read all: 'dataset.splits={train: */train, test: */test}'",
        ),
        (SPLIT | {"cars": 30}, "and more images beside them: cars/ (30 images)", "dataset.splits=none"),
    ],
)
def test_layouts_that_must_be_chosen(counts, sentence, hint):
    with pytest.raises(DataError, match="data") as error:
        seen(counts)
    assert sentence in error.value.message
    assert hint in error.value.hint
    assert sum(seen(counts, splits="none")[0]["train"].values()) == sum(counts.values())


def test_explicit_splits():
    def splits(**asked: Any) -> dict[str, Any]:
        return seen(SPLIT | tree(more=AB), splits=asked)[0]

    double = {"a": 8, "b": 8}
    assert splits(train=["train", "more"], test="val") == {"train": double, "test": AB, "left out": {None: 8}}
    assert splits(Training=".", eval="test/") == {"train": {"train": 8, "val": 8, "more": 8}, "test": AB}
    inside, _ = seen({"a/x": 4, "b/x": 4, "a/y": 1, "b/y": 1}, splits={"train": "*/x", "test": "*/y"})
    assert inside == {"train": AB, "test": {"a": 1, "b": 1}}
    for asked, words in (
        ({"tst": "test"}, "unknown split"),
        ({"train": "trian"}, "no image in trian"),
        ({"train": {"a": 1}}, "a folder or a list"),
    ):
        with pytest.raises(RequestError, match=words):
            seen(SPLIT, splits=asked)


def test_label_selects_top_or_parent_folder():
    domains = {"photo/dog": 2, "photo/cat/images": 2, "sketch/dog": 2}
    assert seen(domains, "parent")[0] == {"train": {"dog": 4, "cat": 2}}
    assert seen(domains, "top") == ({"train": {"photo": 4, "sketch": 2}}, seen(domains, "top")[1])
    assert "warning" not in seen(domains, "top")[1] + seen(domains, "parent")[1]
    assert seen(domains, "none")[0] == {"train": {None: 6}}


def test_words_of_splits():
    assert matching_splits(["train", "test", "testset", "cat"]) == {"train": "train", "test": "test", "testset": "test"}
    assert matching_splits(["test_of_cats", "train_of_dogs"]) == {}
    assert parse_split("unlabeledTrain") == ("unlabelled", ())
    assert parse_split("train_test_split") is None


def test_folder_and_tar_have_the_same_layout(tmp_path, monkeypatch):
    monkeypatch.setenv("SSLCLI_DATA", str(tmp_path / "cache"))
    cases = {
        "domains": ({"photo/dog": 3, "photo/cat": 3, "sketch/dog": 3, "sketch/cat": 3}, {}),
        "parents": ({"photo/dog": 3, "photo/cat": 3, "sketch/dog": 3, "sketch/cat": 3}, {"label": "parent"}),
        "splits": (below("archive", of=SPLIT | {"extra": 3}), {}),
        "chosen splits": (SPLIT, {"splits": {"train": ["train", "val"], "test": "test"}}),
    }
    for name, (counts, keys) in cases.items():
        members = {f"{f}/{i}.png": encoded(i, 8, 8) for f, n in counts.items() for i in range(n)}
        for member, content in members.items():
            (tmp_path / name / member).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name / member).write_bytes(content)
        write(tmp_path / f"{name}.tar", {f"./{member}": content for member, content in members.items()})
        files, tarred = image_folder(str(tmp_path / name), **keys), tar(str(tmp_path / f"{name}.tar"), **keys)
        assert files.classes == tarred.classes
        of_files, of_tar = (
            {(n.rpartition("./")[2], y, split if "split" in name else "") for split in ("train", "test")
             for n, y in zip(getattr(d, split).names, getattr(d, split).labels.tolist(), strict=True)}
            for d in (files, tarred)
        )  # fmt: skip
        assert of_files == of_tar
    assert write_pack(files, tmp_path / "p.pack")
    packed = pack(str(tmp_path / "p.pack"))
    assert (list(packed.train.names), list(packed.test.names)) == (list(files.train.names), list(files.test.names))
    assert packed.fingerprint == files.fingerprint != image_folder(str(tmp_path / "chosen splits")).fingerprint


def test_labeled_split_is_held_out(make_folder):
    labelled = tree(train=AB, val={"a": 1, "b": 2}, test=3)
    d = image_folder(str(make_folder(labelled)))
    assert (len(d.train), d.test.labels.tolist()) == (8, [0, 1, 1])
    assert "warning: test: 3 images not used, because they have no labels; val is the held-out split" in d.notes
    d = image_folder(str(make_folder(tree(train=AB, test=3), "two")))
    assert d.test.labels.tolist() == [0, 1]  # held out of train
    assert "warning: test: 3 images not used, because they have no labels" in d.notes
    d = image_folder(str(make_folder(tree(train=5, test=3), "three")))
    assert len(d.test) == 3  # nothing has labels


def test_labels_of_val_from_its_annotations(make_folder):
    root = make_folder({"train/n1/images": 3, "train/n2/images": 3, "val/images": 4, "test/images": 2})
    (root / "val" / "val_annotations.txt").write_text("000.png\tn2\t0\n002.png\tn1\t0\n003.png\tn9\t0\n")
    d = image_folder(str(root))
    assert d.classes == ("n1", "n2")
    assert d.test.labels.tolist() == [1, -1, 0, -1]
    assert "val: 2 labels from val/val_annotations.txt" in d.notes


def test_pretraining_reads_train_and_unlabelled(make_folder, tmp_path):
    root = str(make_folder(tree(train=AB, test=AB, unlabelled=5)))
    both, alone = image_folder(root, pretrain_on="all"), image_folder(root, pretrain_on="unlabelled")
    assert (len(both.train), len(both.pretrain), len(alone.pretrain)) == (8, 13, 5)
    assert list(both.pretrain.names) == [*both.train.names, *alone.pretrain.names]
    assert both.pretrain.labels.tolist() == [0] * 4 + [1] * 4 + [-1] * 5
    assert both.fingerprint == alone.fingerprint
    assert both.pretrain.resident.tensor.data_ptr() == both.train.resident.tensor.data_ptr()  # not twice in memory
    assert any("without the 8 samples of train (dataset.pretrain_on=all" in note for note in alone.notes)
    assert write_pack(image_folder(root, pretrain_on="all", resident=False), tmp_path / "p.pack")
    for which, n in (("all", 13), ("unlabelled", 5)):
        packed = pack(str(tmp_path / "p.pack"), pretrain_on=which)
        assert len(packed.pretrain) == n
        assert sum("pretraining reads" in note for note in packed.notes) == 1
    with pytest.raises(RequestError, match="all or unlabelled"):
        image_folder(root, pretrain_on="train")


def test_outputs_of_sslcli_are_not_samples(cli, make_folder, monkeypatch):
    root = make_folder({"ant": 8, "bee": 8}, size=(16, 16))
    monkeypatch.chdir(root)
    words = ["backbone=convnet", "backbone.width=4", "train.epochs=null", "train.batch_size=4", "train.eval_every=0"]
    words += ["dataset=image_folder", "dataset.path=.", "device=cpu", "device.threads=1", "method=simsiam"]
    before = image_folder(".")
    assert cli("pretrain", *words, "train.steps=1").code == 0
    assert cli("data", "preview", *words, "train.steps=1").code == 0  # draws views.png
    assert cli("data", "pack", "dataset=image_folder", "dataset.path=.", "out=ants.pack").code == 0
    (root / "elsewhere" / "a_run").mkdir(parents=True)
    for name in ("status.json", "config.yaml"):
        (root / "elsewhere" / "a_run" / name).write_text("{}")
    for folder in ("elsewhere/a_run/eval", "@eaDir/x", ".hidden", "runs/plots"):
        (root / folder).mkdir(parents=True)
        (root / folder / "1.png").write_bytes((root / "ant" / "000.png").read_bytes())
    after = image_folder(".")
    assert (after.classes, after.fingerprint) == (before.classes, before.fingerprint)
    messages = "\n".join(after.notes)
    assert "skipped outputs of this program: ants.pack, elsewhere/a_run, runs, views.png" in messages
    assert "warning" not in messages
    resumed = cli("resume", "latest", "train.steps=2")
    assert resumed.code == 0
    (root / "ant" / "views.png").write_bytes((root / "ant" / "000.png").read_bytes())  # an image of the user
    assert len(image_folder(".", holdout=0).train) == 17


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("photos.zip", "unzip -q {path}photos.zip -d {path}photos; then dataset.path={path}photos"),
        ("my photos.tar.gz", "mkdir '{path}my photos' && tar -xf '{path}my photos.tar.gz' -C '{path}my photos'"),
        ("photos.7z", "7z x {path}photos.7z -o{path}photos"),
        ("photos.rar", "unrar x {path}photos.rar {path}photos/"),
        ("photos.tar", "or read it without unpacking: dataset=tar"),
        ("photos.npz", "dataset=arrays dataset.path={path}photos.npz"),
    ],
)
def test_archives_have_hint_to_unpack(name, hint, tmp_path):
    (tmp_path / name).write_bytes(b"PK\x03\x04")
    path = f"{tmp_path}/"
    sources = [image_folder, pack, *([arrays, tar] if "tar" not in name and "npz" not in name else [])]
    for source in sources if "npz" not in name else [image_folder]:
        with pytest.raises(RequestError) as error:
            source(str(tmp_path / name))
        assert hint.format(path=path) in str(error.value.hint)
    if "npz" not in name and name != "photos.tar":
        with pytest.raises(DataError, match="no image") as error:
            image_folder(str(tmp_path))
        assert hint.format(path=path) in str(error.value.hint)


def test_single_split_beside_empty_one_is_not_a_class(make_folder):
    root = make_folder(tree(val=AB))
    before = image_folder(str(root), holdout=0)
    (root / "train").mkdir()
    d = image_folder(str(root), holdout=0)
    assert d.classes == before.classes == ("a", "b")
    assert d.fingerprint == before.fingerprint
    assert "warning: val/ is the only split and is read as the training split" in d.notes


def test_split_folder_names_sibling_splits(make_folder, tmp_path):
    root = make_folder(tree(train=AB, test=AB))
    (root / "train" / "labels.csv").write_text("name,label\n")
    assert f"beside it are test/: dataset.path={root} reads all splits" in image_folder(str(root / "train")).notes
    messages = image_folder(str(root / "test")).notes
    assert (
        "warning: this folder looks like a held-out split, and is used for training; beside it are train/" in messages
    )
    assert not any("beside" in note or ".csv" in note for note in image_folder(str(root)).notes)
    flat = make_folder({"train": 4}, "flat")
    (flat / "labels.csv").write_text("name,label\n")
    assert any(
        "if it holds labels: labels=FILE.csv (columns name,label), or" in note for note in image_folder(str(flat)).notes
    )


def test_list_without_label_column_names_the_others(make_folder, tmp_path):
    make_folder({"a": 6})
    rows = [f"photos/a/{i:03d}.png,{'xy'[i % 2]},{'Validation' if i > 3 else 'training'}" for i in range(6)]
    (tmp_path / "list.csv").write_text("\n".join(["path,breed,split", *rows]))
    d = image_folder(str(tmp_path / "list.csv"))
    assert (d.classes, len(d.train), len(d.test)) == ((), 4, 2)
    assert any("no label column; columns not read: breed (dataset.label=" in note for note in d.notes)
    d = image_folder(str(tmp_path / "list.csv"), label="breed")
    assert (d.classes, d.test.labels.tolist()) == (("x", "y"), [0, 1])
    assert not any("not read" in note for note in d.notes)
