import pytest

from tests.engine.store.helpers import freeze_models


@pytest.fixture(autouse=True)
def frozen_models(monkeypatch):
    freeze_models(monkeypatch.setattr)
