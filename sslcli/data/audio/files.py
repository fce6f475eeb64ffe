"""Which audio files there are, with their splits, classes and groups: of a folder, a list file, or the names of the
files."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence
from fnmatch import fnmatchcase

from sslcli.console import escape, format_override, plural
from sslcli.data.audio.reader import ENDINGS, INSTALL, has_soundfile, is_audio_name
from sslcli.data.files.list_file import read_list
from sslcli.data.folders.contents import FileList, FolderContents
from sslcli.data.folders.layout import LABEL_RULES, read_folder
from sslcli.data.folders.nouns import reword
from sslcli.data.folders.paths import require_path, require_regular
from sslcli.data.folders.scan import FolderListing, is_output, scan
from sslcli.errors import DataError, MachineError, RequestError, listing

LISTS = (".txt", ".csv", ".tsv")
EXPECTED = "a folder of audio files or a list of them (.txt, .csv, .tsv)"
GROUP_RULES = ("auto", "top", "parent", "none")
FIELD = re.compile(r"\{(\w+)\}")


def read_files(
    path: str, label: str | None, group: str | None, pattern: str | None, splits: object, notes: list[str]
) -> FolderContents:
    """The files below a folder, or that a list names, as `dataset.label`, `group`, `name_pattern` and `splits` say.
    RequestError, DataError."""
    found: list[str] = []
    try:
        contents = _read(path, label if pattern is None else "none", splits, found)
    except DataError as error:
        raise DataError(reword(error.message, "audio file"), error.hint) from error
    except RequestError as error:
        raise RequestError(reword(error.message, "audio file"), error.hint) from error
    notes += [reword(note, "clip") for note in found if pattern is None or "no labels" not in note]
    if pattern is not None:
        _apply_pattern(contents, pattern, label, notes)
    _set_groups(contents, group, notes)
    _require_formats(contents)
    return contents


def _read(path: str, label: str | None, splits: object, notes: list[str]) -> FolderContents:
    if not os.path.isdir(path):
        if not path.lower().endswith(LISTS):
            hint = format_override("dataset.path", os.path.dirname(path) or ".") if is_audio_name(path) else None
            raise RequestError(f"dataset.path={escape(path)} is a file: expected {EXPECTED}", hint)
        return read_list(require_regular(path), label, notes)
    if label is not None and label not in LABEL_RULES:
        raise RequestError(
            f"dataset.label={escape(label)} is a column of a list file, but {escape(path)} is a folder",
            "dataset.label=top or parent reads the names of folders, dataset.name_pattern those of files",
        )
    folder = scan(path, is_audio_name)
    if not folder.files:
        raise _no_files_error(folder)
    return read_folder(folder, notes, label, splits)


def _no_files_error(folder: FolderListing) -> DataError:
    holds = ", ".join(f"{n:,} {ending}" for ending, n in folder.ignored.most_common(6)) or "nothing"
    empty = f"; {plural(len(folder.empty), 'file')} of zero bytes" if folder.empty else ""
    hint = "this folder was written by sslcli" if is_output(folder.root, os.listdir(folder.root)) else None
    return DataError(
        f"no audio file ({', '.join(ENDINGS)}) in {escape(folder.root)}; it contains {holds}{empty}",
        hint or "dataset.path=FOLDER with .wav files",
    )


def _apply_pattern(contents: FolderContents, pattern: str, label: str | None, notes: list[str]) -> None:
    """Labels and groups by the names of files: `{label}_{group}_{take}` of `7_jackson_12.wav`."""
    fields = FIELD.findall(pattern)
    if not {"label", "group"} & set(fields) or len(set(fields)) != len(fields):
        raise RequestError(
            f"dataset.name_pattern={escape(pattern)} needs the field {{label}} or {{group}}, each field once",
            "dataset.name_pattern='{label}_{group}_{take}' for files such as 7_jackson_12.wav",
        )
    regex = re.compile("".join(f"(?P<{p}>.+?)" if i % 2 else re.escape(p) for i, p in enumerate(FIELD.split(pattern))))
    others = []
    for files in contents.parts.values():
        matches = [regex.fullmatch(os.path.splitext(name.rpartition("/")[2])[0]) for name in files.names]
        others += [name for name, match in zip(files.names, matches, strict=True) if match is None]
        if "label" in fields and label != "none":
            files.classes = [None if m is None else m["label"] for m in matches]
        if "group" in fields:
            files.groups = ["" if m is None else m["group"] for m in matches]
    total = sum(map(len, contents.parts.values()))
    if others:
        raise DataError(
            f"{plural(len(others), 'name')} of {total:,} do not match dataset.name_pattern={escape(pattern)}: "
            f"{listing(map(escape, others), 3)}",
            "move those files, or write a list: a CSV file with the header path,label,group",
        )
    notes.append(
        f"{' and '.join(f for f in ('label', 'group') if f in fields)} from the names of {plural(total, 'file')}"
    )


def _set_groups(contents: FolderContents, rule: str | None, notes: list[str]) -> None:
    """Groups by `dataset.group`: those of the list or of the names, or of folders."""
    if rule not in (*GROUP_RULES, None):
        raise RequestError(
            f"dataset.group: expected {', '.join(GROUP_RULES)}, got {escape(str(rule))}", "dataset.group=parent"
        )
    for files in contents.parts.values():
        if rule == "none":
            files.groups = None
        elif rule in ("top", "parent"):
            folders = [name.rpartition("/")[0] for name in files.names]
            files.groups = [f.partition("/")[0] if rule == "top" else f for f in folders]
    names = {g for files in contents.parts.values() for g in files.groups or ()}
    if names:
        notes.append(f"{plural(len(names), 'group')}: {listing(map(escape, sorted(names)), 6)}")


def _require_formats(contents: FolderContents) -> None:
    """MachineError where there are files of formats that need soundfile, and it is not installed."""
    names = [name for files in contents.parts.values() for name in files.names]
    others = [name for name in names if not name.lower().endswith((".wav", ".wave"))]
    if others and not has_soundfile():
        raise MachineError(
            f"{plural(len(others), 'file')} in formats other than WAV, such as {escape(others[0])}, require soundfile",
            INSTALL,
        )


def choose_test(
    contents: FolderContents, test: str | None, path: str, read: Callable[[str], FolderContents], notes: list[str]
) -> None:
    """Make the test split that `dataset.test` names: a folder or a list, or a pattern of names of files.
    RequestError where it names none."""
    if test is None:
        return
    base = path if os.path.isdir(path) else os.path.dirname(path) or "."
    place = next((p for p in (os.path.expanduser(test), os.path.join(base, test)) if os.path.exists(p)), None)
    if place is not None and (os.path.isdir(place) or place.lower().endswith(LISTS)):
        parts = read(require_path(place, EXPECTED, "dataset.test")).parts.items()
        others = _concatenate([files for kind, files in parts if kind != "unlabelled"])
        named = {os.path.realpath(file): i for i, file in enumerate(others.paths)}
        found = _split_off(contents, lambda _, file: named.pop(os.path.realpath(file), None) is not None)
        found = _concatenate([found, others.take(sorted(named.values()))])
    else:
        found = _split_off(
            contents, lambda name, _: fnmatchcase(name, test) or fnmatchcase(name.rpartition("/")[2], test)
        )
        if not found:
            raise RequestError(
                f"dataset.test={escape(test)} is no folder and no list, and matches no file of {escape(path)}",
                "a pattern such as dataset.test='*_jackson_*'",
            )
    contents.parts["test"] = found
    contents.parts.pop("val", None)
    contents.split_in_fingerprint = contents.explicit_splits = True
    notes.append(f"test: {plural(len(found), 'clip')} by dataset.test={escape(test)}")


def _split_off(contents: FolderContents, chosen: Callable[[str, str], bool]) -> FileList:
    """Take the chosen files, by name and path, out of their splits."""
    taken = []
    for kind, files in list(contents.parts.items()):
        inside = [chosen(name, path) for name, path in zip(files.names, files.paths, strict=True)]
        taken.append(files.take(i for i, yes in enumerate(inside) if yes))
        contents.parts[kind] = files.take(i for i, yes in enumerate(inside) if not yes)
    return _concatenate(taken)


def _concatenate(parts: Sequence[FileList]) -> FileList:
    out = FileList()
    grouped = any(files.groups for files in parts)
    groups: list[str] = []
    for files in parts:
        for row in zip(files.paths, files.names, files.sizes, files.classes, strict=True):
            out.add(*row)
        groups += files.groups or [""] * len(files)
    out.groups = groups if grouped else None
    return out
