from __future__ import annotations

import pytest

from sslcli.evals.base.features import EvalData


@pytest.fixture
def data():
    from tests.evals import toys

    return EvalData(toys.dataset(), untrained=toys.Blind)
