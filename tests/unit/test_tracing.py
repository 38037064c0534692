"""What traces show of statements, and where they go."""

import pytest
from pydantic import SecretStr

from samplemind.connections.mongo_spans import shape
from samplemind.settings import TracingSettings
from samplemind.tracing import NO_SPAN, begin_span, is_within_span, span, trace_headers
from samplemind.tracing import Role as SpanRole


def test_the_shape_of_a_filter_has_its_fields_and_none_of_its_values() -> None:
    asked = {"filter": {"owner": "ada", "state": {"$in": ["a", "b"]}, "seq": {"$gte": 3}}}
    assert shape(asked) == {"filter": {"owner": "?", "state": {"$in": ["?"]}, "seq": {"$gte": "?"}}}


@pytest.mark.parametrize(
    ("endpoint", "posted_to"),
    [
        ("http://collector:4318", "http://collector:4318/v1/traces"),
        ("http://collector:4318/", "http://collector:4318/v1/traces"),
        ("https://api.example.org/otlp/v1/traces", "https://api.example.org/otlp/v1/traces"),
    ],
    ids=["bare", "slash", "path"],
)
def test_a_bare_address_gets_the_path_of_the_protocol(endpoint: str, posted_to: str) -> None:
    assert TracingSettings(endpoint=endpoint).traces_url() == posted_to


def test_headers_are_read_by_name() -> None:
    given = TracingSettings(headers=SecretStr("authorization=Bearer a=b, x-team = audio"))
    assert given.header_fields() == {"authorization": "Bearer a=b", "x-team": "audio"}


def test_nothing_is_told_while_traces_are_off() -> None:
    with span("step") as step:
        assert step is NO_SPAN
        assert begin_span("statement", SpanRole.CLIENT, {}) is NO_SPAN
        assert not is_within_span()
        assert trace_headers() == {}
