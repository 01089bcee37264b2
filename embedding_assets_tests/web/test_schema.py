"""The API is as it describes itself, whatever is sent to it."""

from typing import Any

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
]
OPERATIONS = {
    "GET /api/search", "GET /api/recordings", "GET /api/recordings/{recording_id}",
    "GET /api/recordings/{recording_id}/transcript", "POST /api/import/meeting",
    "POST /webhooks/fathom/{key}", "GET /healthz", "GET /readyz", "GET /metrics",
}  # fmt: skip


@pytest.fixture(scope="module")
def described(shared: str) -> schemathesis.BaseSchema:
    return schemathesis.openapi.from_url(f"{shared}/api/openapi.json")


QUIET = settings(
    max_examples=25, deadline=None, derandomize=True, database=None,
    suppress_health_check=list(HealthCheck),
)  # fmt: skip
TEXTS = st.text(max_size=60) | st.sampled_from(
    ["", " ", "0", "-1", "1e999", "nan", "2026-01-31", "2026", "\0", "é", "0001-01-01",
     "9999-12-31", "9999-12-31T23:59:59-23:59", "99999999999999999999", "[]", "{}", '"', "'", "%00"]
)  # fmt: skip
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | TEXTS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS, inner, max_size=4),
    max_leaves=12,
)
FIELDS = st.sampled_from(
    ["title", "recorded_at", "segments", "recorded_by", "invitees", "url", "duration", "summary",
     "participants", "speakers", "language", "started_at", "ended_at"]
)  # fmt: skip
SEGMENT = st.dictionaries(
    st.sampled_from(["speaker", "text", "start", "end", "email", "words"]), JSON, max_size=5
)
MEETING = st.dictionaries(FIELDS, JSON | st.lists(SEGMENT, max_size=3), max_size=8)


@pytest.mark.parametrize("label", sorted(OPERATIONS))
def test_every_answer_is_as_described(described: schemathesis.BaseSchema, label: str) -> None:
    method, path = label.split()

    @QUIET
    @given(described[path][method].as_strategy())
    def check(case: schemathesis.Case) -> None:
        case.call_and_validate(checks=CHECKS, timeout=30)

    check()


@pytest.mark.parametrize(
    "label", sorted(each for each in OPERATIONS if "/api/rec" in each or "search" in each)
)
def test_parameters_of_any_form_are_understood_or_refused(
    described: schemathesis.BaseSchema, client: httpx.Client, label: str
) -> None:
    method, path = label.split()
    operation = described[path][method]
    names = [each.name for each in operation.query]

    @settings(QUIET, max_examples=80)
    @given(st.dictionaries(st.sampled_from([*names, "q"]), TEXTS | st.lists(TEXTS, max_size=3)))
    def check(params: dict[str, str | list[str]]) -> None:
        answer = client.get(path.replace("{recording_id}", "zoom-price"), params=params)
        assert answer.status_code in {200, 422}, (params, answer.text)
        operation.validate_response(answer)

    check()


def test_a_meeting_of_any_form_is_taken_or_refused(
    described: schemathesis.BaseSchema, client: httpx.Client
) -> None:
    operation = described["/api/import/meeting"]["POST"]

    @settings(QUIET, max_examples=150)
    @given(st.fixed_dictionaries({"source": st.just("any"), "external_id": st.just("1"),
                                  "meeting": MEETING}) | JSON)  # fmt: skip
    def check(body: Any) -> None:
        answer = client.post("/api/import/meeting", json=body)
        assert answer.status_code in {200, 422}, (body, answer.text)
        operation.validate_response(answer)

    check()


def test_the_description_is_valid_and_names_every_operation(
    described: schemathesis.BaseSchema,
) -> None:
    described.validate()
    found = {operation.ok().label for operation in described.get_all_operations()}
    assert found == OPERATIONS


def test_every_operation_describes_its_errors(described: schemathesis.BaseSchema) -> None:
    for path in described.raw_schema["paths"].values():
        for operation in path.values():
            for status, answer in operation["responses"].items():
                if status.startswith(("4", "5")):
                    assert list(answer["content"]) == ["application/problem+json"], operation
