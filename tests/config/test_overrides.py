"""Python values as Hydra overrides: whatever value is written is read back."""

from __future__ import annotations

from typing import Any

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from hypothesis import given, settings
from hypothesis import strategies as st

from sslcli.config.messages import unknown_key
from sslcli.config.overrides import to_overrides
from sslcli.errors import RequestError

PARSER = OverridesParser.create()
TEXT = st.text(st.characters(codec="utf-8", exclude_categories=("Cc", "Cs")))
NUMBERS = st.integers() | st.floats(allow_nan=False, allow_infinity=False)
VALUES = st.recursive(
    st.none() | st.booleans() | NUMBERS | TEXT, lambda inner: st.lists(inner, max_size=3), max_leaves=5
)


def read(value: Any) -> Any:
    """A value that Hydra parsed, with quoted strings as strings."""
    if isinstance(value, list):
        return [read(v) for v in value]
    return getattr(value, "text", value)


@settings(max_examples=200, deadline=None)
@given(VALUES)
def test_values_are_read_back(value):
    (override,) = to_overrides({"key": value})
    assert read(PARSER.parse_override(override).value()) == value


def test_mappings_are_keys_of_a_group():
    options = {"method": "byol", "train": {"epochs": 5, "steps": None}, "method.plan": {"global": 2}}
    assert to_overrides(options) == [
        "method=byol",
        "train.epochs=5",
        "train.steps=null",
        "method.plan.global=2",
    ]
    assert to_overrides({"method": {"weights": {"simclr": 0.5}}}) == ["method.weights={simclr:0.5}"]


@pytest.mark.parametrize("value", [object(), float("nan"), {1, 2}, b"bytes"])
def test_values_without_a_yaml_type_are_refused(value):
    with pytest.raises(RequestError, match=r"`train.steps`: expected a number, a string, a list or a mapping"):
        to_overrides({"train": {"steps": value}})


def test_a_key_of_an_evaluator_is_suggested_by_eval_alone():
    of_eval = unknown_key("seen", "eval", ["evaluator=recommend", "seen=mask"])
    assert of_eval.hint == "did you mean `evaluator.seen`?"
    assert "evaluator" not in str(unknown_key("seen", "pretrain", ["seen=mask"]).hint)
