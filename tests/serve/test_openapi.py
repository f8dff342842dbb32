"""The OpenAPI document and the server agree: schemathesis sends what the document allows, and what it doesn't."""

import pytest
from hypothesis import HealthCheck, settings

from showtell.serve.app import create_app
from showtell.serve.settings import Settings
from tests.serve.serving import fake_captioner

schemathesis = pytest.importorskip("schemathesis", reason="schemathesis is not installed")


# As many images as there may be: schemathesis knows no 413.
SETTINGS = Settings(max_bytes=1_000_000, max_pixels=1_000_000, max_images=10_000, queue=10_000)
schema = schemathesis.openapi.from_asgi("/openapi.json", create_app({"fake": fake_captioner()}, SETTINGS))


@schema.parametrize()
@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
def test_whatever_is_sent_is_answered_as_documented(case):
    """No 5xx, no answer of another form or status than the document says.

    A request may fit the document and hold no image: that such a one is refused is no contradiction.
    """
    excluded = [schemathesis.checks.positive_data_acceptance]
    if case.media_type == "multipart/form-data":  # all is text there: a number sent for a null is a good seed
        excluded.append(schemathesis.checks.negative_data_rejection)
    case.call_and_validate(excluded_checks=excluded)
