"""The API against its own description: schemathesis asks for what the OpenAPI document allows, and what it forbids."""

from __future__ import annotations

from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis import checks
from schemathesis.specs.openapi import checks as openapi
from served import Served


@pytest.fixture(scope="module")
def api(served: Served) -> Any:
    with served.client("ann"):
        pass
    # A stream of events has no end to wait for.
    return schemathesis.openapi.from_url(served.url + "/v1/openapi.json").exclude(path_regex="events")


SURE = [
    checks.not_a_server_error,
    openapi.content_type_conformance,
    openapi.response_headers_conformance,
    openapi.response_schema_conformance,
    openapi.ignored_auth,
]
"""Not asked: whether all that fits the schema is taken. A model's name is a string, and must be one that is there."""


def test_the_api_answers_as_it_says(api: Any) -> None:
    labels, wrong = [], {}
    for found in api.get_all_operations():
        operation = found.ok()
        labels.append(operation.label)

        @settings(
            max_examples=12, deadline=None, database=None, derandomize=True, suppress_health_check=list(HealthCheck)
        )
        @given(case=operation.as_strategy())
        def ask(case: schemathesis.Case) -> None:
            answer = case.call(headers={"Authorization": "Bearer key-of-ann"})
            case.validate_response(answer, checks=SURE)

        try:
            ask()
        except BaseExceptionGroup as error:
            wrong[operation.label] = error
    assert len(labels) > 20, labels
    assert not wrong, wrong
