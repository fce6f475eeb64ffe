"""Text tables in the dialects of other programs, and damaged ones."""

from __future__ import annotations

import gzip
import lzma

import pytest
import torch

from sslcli.errors import DataError, RequestError

from .conftest import N, people, write


def text_of(rows, delimiter=",", end="\n") -> str:
    columns = list(rows[0])
    return end.join([delimiter.join(columns), *(delimiter.join(str(r[c]) for c in columns) for r in rows)]) + end


PLAIN = text_of(people())


@pytest.mark.parametrize(
    "content",
    [
        text_of(people(), ";"),
        text_of(people(), "\t"),
        text_of(people(), "|"),
        text_of(people(), ", "),
        text_of(people(), ",", "\r\n"),
        text_of(people(), ",", "\r"),
        "\ufeff" + PLAIN,
        "sep=;\n" + text_of(people(), ";"),
        PLAIN.rstrip("\n"),
        PLAIN.replace("\n", ",,\n"),
        PLAIN.replace("\n", "\n\n"),
        PLAIN.replace("Oslo", '"Oslo"'),
        PLAIN.encode("utf-16"),
        gzip.compress(PLAIN.encode()),
        lzma.compress(PLAIN.encode()),
    ],
    ids=[
        "semicolon",
        "tab",
        "bar",
        "space",
        "crlf",
        "cr",
        "bom",
        "sep",
        "end",
        "trailing",
        "blank",
        "quotes",
        "utf16",
        "gz",
        "xz",
    ],
)
def test_table_of_any_dialect_is_the_same(read, content):
    expected, got = read(PLAIN), read(content)
    assert torch.equal(got.train.resident.tensor, expected.train.resident.tensor)
    assert got.preprocessor == expected.preprocessor
    assert got.train.labels.tolist() == expected.train.labels.tolist()


def test_quoted_cells_may_hold_delimiters_and_line_feeds(read):
    rows = people()
    for i, row in enumerate(rows):
        row["job"] = ['"cook, chief"', '"judge\nof appeal"', '"the ""nurse"""'][i % 3]
    dataset = read(rows, holdout=0)
    job = next(c for c in dataset.preprocessor.columns if c.name == "job")
    assert job.categories == ("cook, chief", "judge\nof appeal", 'the "nurse"')
    assert dataset.train.name_of(0) == "line 2"
    assert dataset.train.name_of(2) == "line 5"  # the second row has two lines


def test_delimiter_given_overrides_detection(read):
    text = "a b\n" + "\n".join(f"{i * i} {i % 7}" for i in range(30))
    with pytest.raises(DataError, match="one column"):
        read(text)
    assert read(text, delimiter="space").shape == (2,)
    with pytest.raises(RequestError, match="punctuation mark"):
        read(text, delimiter="ab")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (PLAIN + "1,2,cook\n", f"line {N + 2}: expected 5 cells as in the header, got 3"),
        (PLAIN + "1,2,cook,Oslo,no,9\n", f"line {N + 2}: expected 5 cells as in the header, got 6"),
        (PLAIN + '1,2,"cook,Oslo,no\n', f"line {N + 2}: not a valid row"),
        (PLAIN.replace("Rome", "K\u00f8ge").encode("latin-1"), r"line \d+, byte \d+: 0xf8 is not UTF-8"),
        ("", "is empty"),
        ("a,b\n", "has a header but no rows"),
        ("\0\1\2\3" * 50, "null bytes"),
        (b"PK\x03\x04abc", "an archive or an Excel file"),
        ("version https://git-lfs.github.com/spec/v1\noid 1\n", "Git LFS"),
        ("<!DOCTYPE html><html>", "web page"),
        (gzip.compress(PLAIN.encode())[:-20], "damaged or incomplete"),
        (lzma.compress(PLAIN.encode())[:-20], "damaged or incomplete"),
        (PLAIN.replace("height", "age"), r"two columns named age: columns 1 and 2"),
        (PLAIN.split("\n", 1)[1], "has no header"),
    ],
    ids=[
        "short",
        "long",
        "quote",
        "latin1",
        "empty",
        "header",
        "null",
        "zip",
        "lfs",
        "html",
        "gz",
        "xz",
        "duplicate",
        "nameless",
    ],
)
def test_invalid_file_is_refused_by_line(read, content, message):
    with pytest.raises(DataError, match=message):
        read(content)


def test_byte_of_invalid_character_is_counted_from_the_start(read):
    content = PLAIN.encode()
    at = content.index(b"Rome", 500)
    with pytest.raises(DataError, match=f"line {content[:at].count(10) + 1}, byte {at:,}: 0xe9"):
        read(content[:at] + b"\xe9" + content[at + 1 :])


def test_names_replace_a_missing_header(read):
    body = PLAIN.split("\n", 1)[1]
    named = read(body, names=["age", "height", "job", "town", "label"])
    assert torch.equal(named.train.resident.tensor, read(PLAIN).train.resident.tensor)
    assert named.train.name_of(0) == "line 1"
    with pytest.raises(DataError, match=r"5 columns, but dataset.names has 2 names"):
        read(body, names=["age", "height"])


def test_empty_column_names_are_numbered(read):
    dataset = read(PLAIN.replace("job", ""), holdout=0)
    assert dataset.preprocessor.names == ["age", "height", "column 3", "town"]


def test_header_of_increasing_integers_is_valid(read):
    text = "0,1,2\n" + "\n".join(f"{i * i},{i % 7},{i * 0.5}" for i in range(30))
    assert read(text).preprocessor.names == ["0", "1", "2"]


def test_folder_of_parts_and_of_splits(read, tmp_path):
    rows = people()
    whole = read(rows, holdout=0)
    folder = tmp_path / "parts"
    folder.mkdir()
    write(folder / "part-0.csv", rows[:25])
    write(folder / "part-1.csv", [dict(reversed(r.items())) for r in rows[25:]])  # columns in another order
    from sslcli.data.sources.table import table

    parts = table(str(folder), holdout=0)
    assert torch.equal(parts.train.resident.tensor, whole.train.resident.tensor)
    (folder / "part-0.csv").rename(folder / "train.csv")
    (folder / "part-1.csv").rename(folder / "test.csv")
    split = table(str(folder))
    assert (len(split.train), len(split.test)) == (25, N - 25)
    other = table(str(folder / "train.csv"), test=str(folder / "test.csv"))
    assert torch.equal(other.test.resident.tensor, split.test.resident.tensor)
