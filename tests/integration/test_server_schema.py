"""Every route, asked what its OpenAPI document allows and what it does not: no failure, nothing undocumented."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis.errors import Unsatisfiable
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.core.result import Ok
from schemathesis.specs.openapi.checks import positive_data_acceptance

from mmsearch.server.app import create_app
from mmsearch.server.options import Options
from tests.abused import SEARCH, is_idle, make_home
from tests.serving import serving

DOCUMENT = create_app(Path("nowhere")).openapi()
FOUND = list(schemathesis.openapi.from_dict(DOCUMENT).get_all_operations())
OPERATIONS = [found.ok() for found in FOUND if isinstance(found, Ok)]
MODES = (GenerationMode.POSITIVE, GenerationMode.NEGATIVE)
EXAMPLES = 12
LEFT_OUT = [not_a_server_error, positive_data_acceptance]
"""501 is what a server without an extra says, and a filter is any text to the document."""


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_home(tmp_path_factory.mktemp("schema"))


@pytest.fixture(scope="module")
def url(home: Path) -> Iterator[str]:
    options = Options(max_body=2_000_000, max_pixels=500_000, timeout=10, rate=10**9)
    with serving(home, options) as address:
        yield address


@pytest.mark.parametrize("mode", MODES, ids=lambda mode: mode.value)
@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda operation: operation.label)
def test_every_route_answers_as_its_document_says(
    url: str, home: Path, operation: Any, mode: GenerationMode
) -> None:
    path: dict[str, Any] = {"collection": "default", "item": 1, "part": 1}
    path = {name: value for name, value in path.items() if f"{{{name}}}" in operation.path}
    only_path = not operation.query and not operation.body
    if operation.method == "delete" or (mode is GenerationMode.NEGATIVE and only_path):
        path = {}  # what is generated: not the collection that all others need, or what is wrong about it

    @given(case=operation.as_strategy(generation_mode=mode, path_parameters=path or None))
    @settings(
        max_examples=EXAMPLES,
        deadline=None,
        derandomize=True,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    def ask(case: Any) -> None:
        if mode is GenerationMode.POSITIVE and operation.label == "POST /v1/collections":
            case.body["model"] = str(home.parent / "model")
        response = case.call(base_url=url)
        assert response.status_code != 500, response.text
        if response.status_code != 413:  # a refusal too, which it does not know
            case.validate_response(response, excluded_checks=LEFT_OUT)
        if response.status_code >= 400:
            assert response.headers["content-type"] == ["application/problem+json"]

    try:
        ask()
    except Unsatisfiable:
        assert mode is GenerationMode.NEGATIVE
        assert not operation.path_parameters
        assert only_path, "only of a route that takes nothing there is nothing wrong to ask"


def test_all_of_the_document_can_be_read() -> None:
    assert len(OPERATIONS) == len(FOUND) > 15
    for operation in OPERATIONS:
        assert {"400", "413", "500"} <= set(operation.definition.raw["responses"])


def test_afterwards_the_server_is_as_before(url: str) -> None:
    with httpx.Client(base_url=url, timeout=30) as http:
        assert http.post(SEARCH, json={"text": "red"}).status_code == 200
        assert is_idle(http)
