"""Find files whose names in a table are spelled differently on disk.

Windows writes backslashes and ignores letter case, macOS decomposes accented letters, spreadsheets add spaces and quotation
marks, other code pages change bytes, and some tables omit the extension. The exact name has priority; another spelling is
accepted only where it identifies one file.
"""

from __future__ import annotations

import os
import posixpath
import unicodedata

from sslcli.console import escape, plural
from sslcli.data.files.csv_table import decode_cp1252
from sslcli.errors import DataError, listing


def normalize_path(name: str) -> str:
    """A canonical form, equal for all spellings of one name: `A\\b.PNG`, ` a/b.png ` and `./a/b.png`."""
    text = unicodedata.normalize("NFC", decode_cp1252(name)).casefold().replace("\\", "/")
    text = "/".join(part.strip(" \t\"'") for part in text.split("/"))
    return posixpath.normpath(text) if text else ""


def stem(name: str) -> str:
    return posixpath.splitext(name)[0]


class FileLookup:
    """Looks up files by names relative to a folder."""

    def __init__(self, base: str):
        self.base = base
        self.respelled: list[str] = []  # names that are spelled differently on disk
        self._folders: dict[str, dict[str, list[str]]] = {}

    def find(self, name: str) -> tuple[str, int]:
        """(path, bytes) of the file with this name. Raises OSError or ValueError where there is none, DataError where several
        match."""
        path = os.path.join(self.base, os.path.expanduser(name))
        try:
            return path, os.stat(path).st_size
        except (OSError, ValueError) as error:
            other = None if "\0" in name else self._other(name)
            if other is None:
                raise error
            self.respelled.append(name)
            return other, os.stat(other).st_size

    def has(self, name: str) -> bool:
        """Whether there is such a file; does not count as a respelled name."""
        try:
            return os.path.isfile(os.path.join(self.base, os.path.expanduser(name))) or self._other(name) is not None
        except (OSError, ValueError, DataError):
            return False

    def _other(self, name: str) -> str | None:
        slashed = decode_cp1252(name).replace("\\", "/").strip(" \t\"'")
        path = os.path.join(self.base, os.path.expanduser(slashed))
        if os.path.isfile(path):
            return path
        folder_path = "/" if slashed.startswith("/") else self.base
        parts = [p for p in slashed.split("/") if p not in ("", ".")]
        for i, part in enumerate(parts):
            if part == "..":
                folder_path = os.path.join(folder_path, part)
                continue
            entries_by_name, key = self._listed(folder_path), normalize_path(part)
            near = entries_by_name.get(key, [])
            if not near and i == len(parts) - 1:
                near = entries_by_name.get(f"{key}.", [])  # the extension is omitted
            if len(near) > 1:
                raise DataError(f"{escape(name)} matches {listing(map(escape, near), 3)}", "spell the name as on disk")
            if not near:
                return None
            folder_path = os.path.join(folder_path, near[0])
        return folder_path if os.path.isfile(folder_path) else None

    def _listed(self, folder: str) -> dict[str, list[str]]:
        """The entries of a folder by their canonical name, and by `stem.`."""
        if folder not in self._folders:
            by_name: dict[str, list[str]] = {}
            try:
                entries = sorted(os.listdir(folder))
            except OSError:
                entries = []
            for entry in entries:
                key = normalize_path(entry)
                for k in (key, f"{stem(key)}."):
                    by_name.setdefault(k, []).append(entry)
            self._folders[folder] = by_name
        return self._folders[folder]

    def notes(self) -> list[str]:
        if not self.respelled:
            return []
        n = len(self.respelled)
        return [f"{plural(n, 'name')} spelled differently on disk, such as {escape(self.respelled[0])}"]
