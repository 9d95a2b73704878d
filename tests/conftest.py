"""Options of the whole test suite."""

import os

import pytest
from hypothesis import HealthCheck, settings

# Machines are busy and shared: how long an example took says nothing about the code. In CI the examples are the same each time.
settings.register_profile(
    "tabinet", deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=bool(os.environ.get("CI")), print_blob=True
)
settings.load_profile("tabinet")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--update-golden", action="store_true", help="write the golden files anew instead of comparing with them")
