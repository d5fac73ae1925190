"""Bodies that no honest client sends: each is answered with a reason, quickly, and costs the server nothing."""

from __future__ import annotations

import gzip
import json
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from mmsearch.server.options import Options
from tests.abused import DEFAULT, ITEMS, SEARCH, is_idle, make_home, until
from tests.serving import serving

SETTINGS = DEFAULT + "/settings"
OPTIONS = Options(max_k=100, max_batch=50, max_queries=4, rate=10**9, timeout=8)
"""What takes longer than ``timeout`` is answered 503, which no test here allows."""


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_home(tmp_path_factory.mktemp("bodies"))


@pytest.fixture(scope="module")
def http(home: Path) -> Iterator[httpx.Client]:
    with (
        serving(home, OPTIONS) as url,
        httpx.Client(base_url=url, timeout=30) as client,
    ):
        yield client
        assert client.post(SEARCH, json={"text": "red"}).status_code == 200
        assert is_idle(client)


def post(http: httpx.Client, path: str, body: bytes, kind: str = "application/json") -> httpx.Response:
    return http.post(path, content=body, headers={"content-type": kind})


def seen(
    http: httpx.Client,
    path: str,
    asked: dict[str, Any],
    done: Callable[[dict[str, Any]], Any] = lambda page: page["hits"],
) -> dict[str, Any]:
    """What a search finds as soon as what was written is seen: within a second."""
    page: dict[str, Any] = {}

    def look() -> bool:
        nonlocal page
        response = http.post(path, json=asked)
        page = response.json()
        return response.status_code == 200 and bool(done(page))

    until(look)
    return page


@pytest.mark.parametrize(
    "body",
    [
        b"[" * 200_000,
        b'{"a":' * 100_000 + b"1" + b"}" * 100_000,
        b'{"k":' + b"9" * 5000 + b"}",
        b'{"text_weight":1e999}',
        b'{"text_weight":NaN}',
        b'{"min_score":-Infinity}',
        b'{"min_score":-1e308}',
        b'{"boosts":[{"where":"width > 0","factor":1e-300}]}',
        b'{"terms":[{"text":"red","weight":1e-320}]}',
        b'{"text":"\\ud800"}',
        b'{"\\ud800":1}',
        b'{"text":"\xff\xfe"}',
        b'{"k":1,"k":100000}',
        b'{"text":"' + b"a" * 2001 + b'"}',
        b'{"where":"' + b"a" * 20_001 + b'"}',
        b'"red"',
        b"null",
        b"",
        b"\x00",
    ],
    ids=lambda body: repr(body[:24]),
)
def test_json_that_is_none_or_says_too_much_is_refused(http: httpx.Client, body: bytes) -> None:
    response = post(http, SEARCH, body)
    assert response.status_code in (400, 422), response.text
    assert response.headers["content-type"] == "application/problem+json"
    assert len(response.content) < 5000


def test_of_a_key_that_comes_twice_the_last_counts(http: httpx.Client) -> None:
    assert len(post(http, SEARCH, b'{"k":100000,"k":1}').json()["hits"]) == 1


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", "application/xml", ""])
def test_a_body_is_json_only_if_it_says_so(http: httpx.Client, kind: str) -> None:
    assert post(http, SEARCH, b'{"text":"red"}', kind).status_code == 415


def test_packed_bodies_are_not_unpacked(http: httpx.Client) -> None:
    bomb = gzip.compress(b'{"text":"' + b" " * 10_000_000 + b'"}')
    headers = {"content-type": "application/json", "content-encoding": "gzip"}
    assert http.post(SEARCH, content=bomb, headers=headers).status_code == 415


@pytest.mark.parametrize("method", ["POST", "PATCH"])
def test_of_a_million_wrong_entries_the_first_is_told(http: httpx.Client, method: str) -> None:
    name = "items" if method == "POST" else "updates"
    body = b'{"%s":[' % name.encode() + b"1," * 1_000_000 + b"1]}"
    response = http.request(method, ITEMS, content=body, headers={"content-type": "application/json"})
    assert response.status_code == 422
    assert len(response.json()["errors"]) == 1


def test_limits_of_batches_hits_and_searches(http: httpx.Client) -> None:
    def status(path: str, body: Any) -> int:
        return http.post(path, json=body).status_code

    assert status(ITEMS, {"items": [{"key": str(n), "title": "x"} for n in range(51)]}) == 422
    assert status(SEARCH, {"text": "red", "k": 100}) == 200
    assert status(SEARCH, {"text": "red", "k": 101}) == 422
    assert status(SEARCH, {"text": "red", "k": 10, "group_by": "format", "group_size": 11}) == 422
    assert status(DEFAULT + "/similar", {"like": [1], "k": 101}) == 422
    one = {"collection": "default", "text": "red", "k": 25}
    assert status("/v1/multi-search", {"searches": [one] * 4}) == 200
    assert status("/v1/multi-search", {"searches": [one] * 5}) == 422
    assert status("/v1/multi-search", {"searches": [one | {"k": 26}] * 4}) == 422
    assert status(DEFAULT + "/encode", {"texts": ["a"] * 257}) == 422


WHERES = {
    "sql": "title = 'x'' OR 1=1; DROP TABLE items; --'",
    "union": "title in ('a') UNION SELECT * FROM catalog",
    "comment": "width > 1 /* */",
    "deep": "(" * 5000 + "width > 1" + ")" * 5000,
    "not": "not " * 4000 + "width > 1",
    "or": " or ".join(["width > 1"] * 1500),
    "like": "format like '" + "%a" * 4000 + "'",
    "like_": "title like '" + "%_" * 4000 + "!'",
    "in": "width in (" + ",".join(["1"] * 9000) + ")",
    "nul": "title = '\0'",
    "huge": "width > 1e999 or width > " + "9" * 5000,
    "name": "`" + "``" * 50 + "` = 1",
}


@pytest.mark.parametrize("where", WHERES.values(), ids=WHERES.keys())
def test_a_filter_is_only_ever_a_filter_and_soon_done(http: httpx.Client, where: str) -> None:
    response = http.post(SEARCH, json={"where": where})
    assert response.status_code in (200, 422), response.text
    assert http.get(ITEMS, params={"k": 1}).json()["items"], "the table is still there"


ODD = [
    "it's",
    "x' OR '1'='1",
    "a\0b",
    "a\r\nb",
    "../../etc/passwd",
    "/etc/passwd",
    '{"level":"error"}',
    "\u202egnp.exe",
    "%2e%2e",
    "\x1b[2J",
    "\ufffe" * 300,
    "<script>",
]


@pytest.mark.parametrize("odd", ODD, ids=repr)
def test_keys_titles_names_and_values_are_kept_as_they_are(http: httpx.Client, odd: str) -> None:
    item = {"key": odd, "title": odd, "description": odd, "attributes": {odd[:200]: odd, "tags": [odd]}}
    told = http.post(ITEMS, json={"items": [item]})
    assert told.status_code == 200, told.text
    assert told.json()["added"] == 1, told.text
    found = http.get(ITEMS, params={"key": odd}).json()["items"][0]
    assert (found["key"], found["title"], found["attributes"][odd[:200]]) == (odd, odd, odd)
    quoted = "`" + odd[:200].replace("`", "``") + "` = '" + odd.replace("'", "''") + "'"
    asked = {"text": odd, "where": quoted, "highlight": True, "explain": True}
    assert [hit["item"]["key"] for hit in seen(http, SEARCH, asked)["hits"]] == [odd]
    assert http.get(DEFAULT + "/suggest", params={"text": odd[:200]}).status_code == 200
    number = found["id"]
    assert http.get(f"{ITEMS}/{number}/file").status_code == 404, "a key that looks like a path names no file"
    assert http.post(ITEMS + "/remove", json={"keys": [odd]}).json() == {"removed": 1, "unknown": []}


@pytest.mark.parametrize(
    "value", ["1e308", "-1e308", str(2**63), str(2**64), str(-(2**64)), "-0.0", "1e-320", "0.1"]
)
def test_any_number_that_is_taken_is_given_back(http: httpx.Client, value: str) -> None:
    item = f'{{"items":[{{"key":"{value}","title":"x","attributes":{{"size_of":{value}}}}}]}}'
    assert post(http, ITEMS, item.encode()).json()["rejected"] == []
    asked = {
        "where": f"key = '{value}'",
        "facets": [{"attribute": "size_of"}],
        "sort": [{"attribute": "size_of"}],
        "boosts": [{"attribute": "size_of", "weight": 100}],
    }
    (hit,) = seen(http, SEARCH, asked)["hits"]
    assert hit["item"]["attributes"]["size_of"] == float(value)
    http.post(ITEMS + "/remove", json={"keys": [value]})


@pytest.mark.parametrize(
    "value",
    [
        "0001-01-01T00:00:00+23:59",
        "9999-12-31T23:59:59-23:59",
        "0001-01-01",
        "2024-13-01",
        "",
        "now",
        "2024-W01",
    ],
)
def test_dates_at_the_ends_of_the_calendar_break_nothing(http: httpx.Client, value: str) -> None:
    item = {"key": "date", "title": "x", "attributes": {"when": {"datetime": value}}}
    assert http.post(ITEMS, json={"items": [item]}).status_code == 200
    page = http.post(SEARCH, json={"where": "key = 'date'", "text": "x"})
    assert page.status_code == 200
    http.post(ITEMS + "/remove", json={"keys": ["date"]})


def test_cursors_that_were_changed_are_refused(http: httpx.Client) -> None:
    first = http.post(SEARCH, json={"k": 3}).json()["cursor"]
    assert http.post(SEARCH, json={"k": 3, "cursor": first}).status_code == 200
    flipped = first[:20] + ("A" if first[20] != "A" else "B") + first[21:]
    for cursor in (flipped, first[:-4], first + "AAAA", "é", "\0", "A" * 8000, "", "[]", first[::-1]):
        response = http.post(SEARCH, json={"k": 3, "cursor": cursor})
        assert response.status_code == 422, cursor
        assert "cursor" in response.json()["detail"]
    assert http.post(SEARCH, json={"text": "red", "cursor": first}).status_code == 422


def test_settings_are_bounded_checked_and_never_fail_a_search(http: httpx.Client) -> None:
    def put(body: dict[str, Any]) -> int:
        return http.put(SETTINGS, json=body).status_code

    boost = {"where": "width > 1", "factor": 2}
    assert put({"rules": [{"boosts": [boost] * 50}] * 10}) == 200
    assert http.post(SEARCH, json={"text": "red"}).status_code == 200
    assert put({"rules": [{"boosts": [boost] * 50}] * 11}) == 422
    assert put({"rules": [{"query": f"q{n}", "pinned": ["a"]} for n in range(2001)]}) == 422
    assert put({"rules": [{"hidden": [str(n) for n in range(1000)]}] * 21}) == 422
    assert put({"synonyms": [{"words": [f"w{n} x" for n in range(100)]}] * 201}) == 422
    assert put({"rules": [{"boosts": [{"where": "width >", "factor": 2}]}]}) == 422
    rules = [{"query": f"query {n}", "match": "contains", "pinned": [f"k{n}"]} for n in range(2000)]
    synonyms = [{"words": [f"word{n}", f"other{n}"]} for n in range(2000)]
    assert put({"rules": rules, "synonyms": synonyms}) == 200
    assert http.post(SEARCH, json={"text": "red query 7 word9"}).status_code == 200
    gone = {"where": "nothing_has_this > 1", "factor": 2}
    assert put({"rules": [{"boosts": [gone, {"attribute": "format", "weight": 1}, boost]}]}) == 200
    page = seen(http, SEARCH, {"text": "red"}, lambda page: "notices" in page)
    assert len(page["notices"]) == 2
    assert put({}) == 200


@pytest.mark.parametrize(
    "name", ["..", ".", " ", "a/b", "a~b", "a\nb", "a\x7f", "a\u2028b", " a", "\x9b", "x" * 201]
)
def test_names_that_no_address_or_line_can_hold_are_refused(
    http: httpx.Client, home: Path, name: str
) -> None:
    body = {"name": name, "model": str(home.parent / "model")}
    assert http.post("/v1/collections", json=body).status_code == 422


@pytest.mark.parametrize(
    "name", ["%2e%2e", "a?b#c", "it's", "é" * 200, "<b>", '{"a": 1}', "𝔸", "a b", "-rf *", "con"]
)
def test_collections_may_have_odd_names(http: httpx.Client, home: Path, name: str) -> None:
    path = "/v1/collections/" + quote(name, safe="")
    body = {"name": name, "model": str(home.parent / "model")}
    assert http.post("/v1/collections", json=body).status_code == 201
    assert http.post(path + "/items", json={"items": [{"key": "k", "title": "red"}]}).json()["added"] == 1
    (hit,) = seen(http, path + "/search", {"text": "red"})["hits"]
    assert hit["item"]["key"] == "k"
    assert http.delete(path).json() == {"deleted": name, "items": 1}
    assert http.get(path).status_code == 404


@pytest.mark.parametrize(
    "model",
    ["no-such", "a\0b", "/etc", "../../..", "hf-hub:a/b", "~nobody-has-this", "file:///etc", "x" * 1000],
)
def test_a_model_that_is_none_is_told_and_makes_nothing(http: httpx.Client, model: str) -> None:
    response = http.post("/v1/collections", json={"name": "modelled", "model": model})
    assert response.status_code == 422, response.text
    assert response.json()["detail"].startswith("model")
    assert http.get("/v1/collections/modelled").status_code == 404


def test_a_multipart_form_that_is_none_is_refused(http: httpx.Client) -> None:
    path = SEARCH + "/files"
    assert post(http, path, b"abc", "multipart/form-data").status_code == 400
    assert post(http, path, b"abc", "multipart/form-data; boundary=x").status_code in (400, 422)
    assert post(http, path, b"--x\r\n" * 1000, "multipart/form-data; boundary=x").status_code in (400, 422)
    picture = ("a.png", b"x", "image/png")
    assert http.post(path, data={"query": "[" * 100_000}, files={"files": picture}).status_code == 422
    assert http.post(path, data={"query": '{"\\ud800":1}'}, files={"files": picture}).status_code == 422
    assert http.post(path, files=[("files", picture)] * 9).status_code == 422
    assert http.post(path, files=[("files", picture)] * 2000).status_code == 400
    fields = {f"field{n}": "x" for n in range(2000)}
    assert http.post(path, data=fields, files={"files": picture}).status_code == 400


ANY_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=40),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(max_size=20), inner, max_size=5),
    max_leaves=20,
)
FIELDS = [
    *(
        "text",
        "terms",
        "k",
        "where",
        "modality",
        "min_score",
        "facets",
        "sort",
        "group_by",
        "boosts",
        "pinned",
    ),
    *(
        "taste",
        "diversity",
        "fields",
        "cursor",
        "examples",
        "like",
        "items",
        "updates",
        "keys",
        "rules",
        "searches",
    ),
]


@pytest.mark.parametrize("path", [SEARCH, DEFAULT + "/similar", "/v1/multi-search", ITEMS, ITEMS + "/remove"])
def test_no_json_makes_the_server_fail(http: httpx.Client, path: str) -> None:
    @given(st.dictionaries(st.sampled_from(FIELDS), ANY_JSON, min_size=1, max_size=4))
    @settings(
        max_examples=60,
        deadline=None,
        derandomize=True,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    def ask(body: dict[str, Any]) -> None:
        response = post(http, path, json.dumps(body).encode())
        assert response.status_code in (200, 400, 404, 422), response.text
        response.json()

    ask()


def test_a_collection_that_is_deleted_while_it_is_searched_is_found_or_not_there(
    http: httpx.Client, home: Path
) -> None:
    path = "/v1/collections/short"
    body = {"name": "short", "model": str(home.parent / "model")}
    items = {"items": [{"key": str(n), "title": f"red {n}", "attributes": {"n": n}} for n in range(20)]}
    statuses: list[int] = []
    stop = threading.Event()

    def search() -> None:
        with httpx.Client(base_url=http.base_url, timeout=30) as client:
            while not stop.is_set():
                asked = {"text": "red", "where": "n > 3", "facets": [{"attribute": "n"}], "highlight": True}
                statuses.append(client.post(path + "/search", json=asked).status_code)
                statuses.append(client.get(path).status_code)

    threads = [threading.Thread(target=search) for _ in range(3)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(8):
            assert http.post("/v1/collections", json=body).status_code == 201
            assert http.post(path + "/items", json=items).json()["added"] == 20
            assert seen(http, path + "/search", {"text": "red"})["total"] == 20
            assert http.delete(path).json()["items"] == 20
            assert http.post(path + "/search", json={"text": "red"}).status_code == 404
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert set(statuses) <= {200, 404, 422}, "422: no item had an attribute n yet"
    assert {200, 404} <= set(statuses)
