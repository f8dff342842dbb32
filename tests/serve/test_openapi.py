"""The OpenAPI document and the server agree: schemathesis sends what the document allows, and what it doesn't."""

import pytest
from hypothesis import HealthCheck, settings

from tests.serve.serving import client

schemathesis = pytest.importorskip("schemathesis", reason="schemathesis is not installed")


@pytest.fixture(scope="module")
def api_schema():
    with client(max_bytes=1_000_000, max_pixels=1_000_000) as opened:
        yield schemathesis.openapi.from_asgi("/openapi.json", opened.app)


schema = schemathesis.pytest.from_fixture("api_schema")


@schema.parametrize()
@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
def test_whatever_is_sent_is_answered_as_documented(case):
    """No 5xx, no answer of another form or status than the document says.

    A request may fit the document and hold no image: that such a one is refused is no contradiction.
    """
    case.call_and_validate(excluded_checks=[schemathesis.checks.positive_data_acceptance])
