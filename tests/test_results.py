"""Pages of results say what their JSON files hold: rows that a file lost, or a page edited by hand, would show here."""

from __future__ import annotations

import json
from importlib import import_module
from pathlib import Path

import pytest

from benchmarks.few_labels_page import page as few_labels_page

RESULTS = Path(__file__).resolve().parents[1] / "docs" / "results"
STUDIES = ("reviews", "tables")
PAGES = {  # module of benchmarks -> name of its files
    "audio": "audio",
    "forecast": "series_forecast",
    "frames": "frames",
    "pairs": "pairs",
    "picks": "picks",
    "precision": "precision",
    "road": "road",
    "short_runs": "short_runs",
}


@pytest.mark.parametrize("name", [*STUDIES, *PAGES])
def test_page_is_that_of_its_json_file(name):
    module, file = import_module(f"benchmarks.{name}"), PAGES.get(name, name)
    known = json.loads((RESULTS / f"{file}.json").read_text())
    drawn = few_labels_page(known, module.STUDY) if name in STUDIES else module.page(known)
    text = drawn if isinstance(drawn, str) else "\n".join(drawn) + "\n"
    assert (RESULTS / f"{file}.md").read_text() == text
