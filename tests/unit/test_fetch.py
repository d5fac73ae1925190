"""Fetching pictures: from a real server that behaves well or badly, and never from where nobody may look."""

from __future__ import annotations

import ipaddress
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from indexer.addresses import Network, networks, refusal
from indexer.fetch import PER_HOST, Fetcher
from mmsearch.errors import ConfigError, MediaError
from tests.shop_server import Shop, picture, shop

LOOPBACK = networks(["127.0.0.0/8", "::1"])


@pytest.fixture
def server() -> Iterator[Shop]:
    with shop() as made:
        yield made


class Waits:
    """What a fetcher waits is added up, and not waited for."""

    def __init__(self) -> None:
        self.seconds: list[float] = []

    def __call__(self, seconds: float) -> None:
        self.seconds.append(seconds)


@pytest.fixture
def waits() -> Waits:
    return Waits()


@pytest.fixture
def fetcher(waits: Waits) -> Iterator[Fetcher]:
    with Fetcher(LOOPBACK, max_bytes=1 << 20, seconds=1.0, wait=waits) as made:
        yield made


def reason(fetcher: Fetcher, url: str) -> str:
    with pytest.raises(MediaError) as caught:
        fetcher.get(url)
    assert caught.value.path == url
    return caught.value.reason


def test_a_picture_comes_as_it_is_and_says_who_asks(fetcher: Fetcher, server: Shop) -> None:
    server.versions["/red.png"] = '"v1"'
    found = fetcher.get(f"{server.url}/red.png")
    assert (found.data, found.etag, found.modified) == (picture("red"), '"v1"', None)
    assert server.headers["user-agent"] == "mmsearch"
    assert server.headers["accept-encoding"] == "identity"
    assert server.headers["host"] == server.url.removeprefix("http://")


def test_a_known_version_is_not_sent_again(fetcher: Fetcher, server: Shop) -> None:
    server.versions["/red.png"] = '"v1"'
    again = fetcher.get(f"{server.url}/red.png", etag='"v1"')
    assert (again.data, again.etag) == (None, '"v1"')
    server.versions["/red.png"], server.pictures["/red.png"] = '"v2"', picture("blue")
    assert fetcher.get(f"{server.url}/red.png", etag='"v1"').data == picture("blue")
    dated = fetcher.get(f"{server.url}/dated.png")
    assert fetcher.get(f"{server.url}/dated.png", modified=dated.modified).data is None


def test_redirects_are_followed_and_loops_end(fetcher: Fetcher, server: Shop) -> None:
    assert fetcher.get(f"{server.url}/to?/green.png").data == picture("green")
    assert fetcher.get(f"{server.url}/to?{server.url}/to?/green.png").data == picture("green")
    assert reason(fetcher, f"{server.url}/loop") == "is redirected more than 5 times"
    assert server.asked["/loop"] == 6
    assert "file:///etc/passwd" in reason(fetcher, f"{server.url}/to?file:///etc/passwd")
    assert "user name" in reason(fetcher, f"{server.url}/to?http://me:secret@127.0.0.1/")


@pytest.mark.parametrize("status", [400, 401, 403, 404, 410, 418, 501])
def test_an_answer_that_stays_is_not_asked_for_again(fetcher: Fetcher, server: Shop, status: int) -> None:
    assert reason(fetcher, f"{server.url}/status/{status}") == f"the server answers {status}"
    assert server.asked[f"/status/{status}"] == 1


@pytest.mark.parametrize("status", [429, 500, 503])
def test_what_may_pass_is_tried_again(fetcher: Fetcher, server: Shop, waits: Waits, status: int) -> None:
    assert fetcher.get(f"{server.url}/busy/{status}/3?0").data == picture("green")
    assert server.asked[f"/busy/{status}/3"] == 4
    tries = [seconds for seconds in waits.seconds if seconds > 0.3]
    assert [0.75 * 0.5 * 2**n <= seconds <= 1.25 * 0.5 * 2**n for n, seconds in enumerate(tries)] == [
        True
    ] * 3
    assert reason(fetcher, f"{server.url}/busy/{status}/9?0") == f"the server answers {status} (4 tries)"


def test_a_busy_server_says_when_to_come_back(fetcher: Fetcher, server: Shop, waits: Waits) -> None:
    assert fetcher.get(f"{server.url}/busy/429/1?7").data == picture("green")
    assert 7 in waits.seconds
    date = format_datetime(datetime.now(UTC) + timedelta(seconds=30), usegmt=True)
    assert fetcher.get(f"{server.url}/busy/429/01?{quote(date)}").data == picture("green")
    assert 20 < waits.seconds[-1] <= 30
    assert "asks to wait 3600 s" in reason(fetcher, f"{server.url}/busy/503/9?3600")
    assert server.asked["/busy/503/9"] == 1


def test_others_wait_for_a_busy_host_too(fetcher: Fetcher, server: Shop, waits: Waits) -> None:
    fetcher.get(f"{server.url}/busy/429/1?5")
    waits.seconds.clear()
    fetcher.get(f"{server.url}/red.png")
    assert waits.seconds
    assert 3 < waits.seconds[0] <= 5


def test_what_is_no_picture_says_what_it_is(fetcher: Fetcher, server: Shop) -> None:
    assert reason(fetcher, f"{server.url}/page") == "is no picture, it is text/html"
    assert reason(fetcher, f"{server.url}/empty.png") == "is empty (zero bytes)"
    assert "packed (gzip)" in reason(fetcher, f"{server.url}/packed.png")


def test_what_is_too_large_is_given_up(fetcher: Fetcher, server: Shop) -> None:
    assert reason(fetcher, f"{server.url}/huge.png") == "is larger than 1 MiB"
    assert reason(fetcher, f"{server.url}/claims.png") == "is larger than 1 MiB"


@pytest.mark.parametrize("path", ["dripping.png", "dripping-headers.png", "silent.png"])
def test_what_takes_too_long_is_given_up(server: Shop, waits: Waits, path: str) -> None:
    started = time.monotonic()
    with Fetcher(LOOPBACK, seconds=0.3, wait=waits) as fetcher:
        assert "did not arrive within 0.3 s (4 tries)" in reason(fetcher, f"{server.url}/{path}")
    assert server.asked[f"/{path}"] == 4
    assert time.monotonic() - started < 30  # it ends at all, however slow the machine


def test_what_is_cut_short_is_tried_again_and_told(fetcher: Fetcher, server: Shop) -> None:
    assert "cannot be fetched" in reason(fetcher, f"{server.url}/torn.png")
    assert server.asked["/torn.png"] == 4


def test_a_host_is_asked_by_so_many_at_once_and_no_more(server: Shop) -> None:
    with Fetcher(LOOPBACK) as fetcher, ThreadPoolExecutor(3 * PER_HOST) as pool:
        found = list(pool.map(lambda n: fetcher.get(f"{server.url}/slow.png?{n}").data, range(3 * PER_HOST)))
    assert found == [picture("blue")] * 3 * PER_HOST
    assert 1 < server.most_at_once <= PER_HOST


def test_a_connection_serves_many_requests_and_another_thread_may_be_slow(server: Shop) -> None:
    with Fetcher(LOOPBACK, seconds=5) as fetcher:
        for _ in range(20):
            assert fetcher.get(f"{server.url}/red.png").data == picture("red")


@pytest.mark.parametrize(
    "url",
    [
        "ftp://example.org/a.png",
        "file:///etc/passwd",
        "gopher://127.0.0.1/",
        "data:image/png;base64,AAAA",
        "javascript:alert(1)",
    ],
)
def test_only_http_is_fetched(fetcher: Fetcher, url: str) -> None:
    assert reason(fetcher, url) == "only http and https addresses are fetched"


@pytest.mark.parametrize(
    "url", ["http://", "http:///a.png", "http://[::1/a.png", "http://a:99999/", "http://a..b/"]
)
def test_what_is_no_address_is_told(fetcher: Fetcher, url: str) -> None:
    assert "address" in reason(fetcher, url)


# -- addresses that nobody may look at -------------------------------------------------------------------------------

INSIDE = [
    "127.0.0.1",
    "127.255.255.254",
    "0.0.0.0",
    "10.1.2.3",
    "172.16.0.1",
    "172.31.255.255",
    "192.168.1.1",
    "169.254.169.254",  # where clouds keep their keys
    "100.64.0.1",
    "192.0.2.1",
    "198.18.0.1",
    "224.0.0.1",
    "240.0.0.1",
    "255.255.255.255",
    "::",
    "::1",
    "::ffff:127.0.0.1",
    "::ffff:10.0.0.1",
    "::127.0.0.1",
    "64:ff9b::7f00:1",
    "64:ff9b::a9fe:a9fe",
    "2002:7f00:1::",
    "2002:c0a8:101::1",
    "2001:0:4136:e378:8000:63bf:3fff:fdd2",
    "fe80::1",
    "fe80::1%eth0",
    "fc00::1",
    "fd12:3456::1",
    "ff02::1",
    "2001:db8::1",
]


@pytest.mark.parametrize("address", INSIDE)
def test_an_address_inside_is_refused(address: str) -> None:
    assert refusal(address) is not None
    with Fetcher(resolver=lambda host, port: [address]) as fetcher:
        assert "only public addresses are fetched" in reason(fetcher, "http://shop.example/a.png")


@pytest.mark.parametrize(
    "address", ["1.1.1.1", "93.184.215.14", "2606:4700:4700::1111", "2002:101:101::", "::ffff:1.1.1.1"]
)
def test_a_public_address_is_not(address: str) -> None:
    assert refusal(address) is None


@given(st.ip_addresses())
def test_what_is_refused_is_what_is_not_global(
    address: ipaddress.IPv4Address | ipaddress.IPv6Address,
) -> None:
    if not address.is_global or address.is_multicast:
        assert refusal(str(address)) is not None or getattr(address, "ipv4_mapped", None) is not None
    elif address.version == 4:
        assert refusal(str(address)) is None
    everything: list[Network] = [ipaddress.ip_network("0.0.0.0/0"), ipaddress.ip_network("::/0")]
    assert refusal(str(address), everything) is None


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1",
        "localhost",
        "2130706433",
        "0x7f000001",
        "0x7f.0.0.1",
        "017700000001",
        "127.1",
        "[::1]",
        "[::ffff:7f00:1]",
    ],
)
def test_no_way_to_write_this_machine_gets_through(server: Shop, host: str) -> None:
    port = server.url.rpartition(":")[2]
    with Fetcher() as fetcher:
        told = reason(fetcher, f"http://{host}:{port}/red.png")
    assert "only public addresses" in told or "no address of" in told
    assert not server.asked


def test_one_address_inside_among_others_is_enough_to_refuse(server: Shop) -> None:
    port = int(server.url.rpartition(":")[2])
    with Fetcher(resolver=lambda host, port: ["1.1.1.1", "127.0.0.1"]) as fetcher:
        assert "loopback" in reason(fetcher, f"http://shop.example:{port}/red.png")


def test_a_redirect_to_an_address_inside_is_refused(server: Shop) -> None:
    """The first address is allowed as a public one would be, the one it leads to is not."""
    port = server.url.rpartition(":")[2]
    resolved = {"shop.example": ["127.0.0.1"], "inside.example": ["127.0.0.2"], "127.0.0.2": ["127.0.0.2"]}
    with Fetcher(networks(["127.0.0.1"]), resolver=lambda host, port: resolved[host]) as fetcher:
        assert fetcher.get(f"http://shop.example:{port}/to?/red.png").data == picture("red")
        for host in ("inside.example", "127.0.0.2"):
            told = reason(fetcher, f"http://shop.example:{port}/to?http://{host}:{port}/red.png")
            assert "127.0.0.2 is a loopback address" in told
    assert server.asked["/red.png"] == 1


def test_a_name_that_means_another_address_a_moment_later_gains_nothing(server: Shop) -> None:
    """DNS rebinding: what was looked at is what is connected to, and the name is resolved once for each connection."""
    port = server.url.rpartition(":")[2]
    answers = iter([["127.0.0.1"], ["127.0.0.2"], ["127.0.0.2"]])
    asked: list[str] = []

    def rebinding(host: str, port: int) -> list[str]:
        asked.append(host)
        return next(answers)

    with Fetcher(networks(["127.0.0.1"]), resolver=rebinding) as fetcher:
        assert fetcher.get(f"http://shop.example:{port}/red.png").data == picture("red")
    assert asked == ["shop.example"]
    assert server.headers["host"] == f"shop.example:{port}"
    with Fetcher(networks(["127.0.0.1"]), resolver=rebinding) as fetcher:
        assert "127.0.0.2" in reason(fetcher, f"http://shop.example:{port}/red.png")


def test_a_host_without_an_address_is_told(waits: Waits) -> None:
    def unknown(host: str, port: int) -> list[str]:
        raise OSError("Name or service not known")

    with Fetcher(resolver=unknown, wait=waits) as fetcher:
        assert "no address of shop.example is known" in reason(fetcher, "http://shop.example/a.png")


def test_the_next_address_of_a_host_is_tried(server: Shop) -> None:
    port = server.url.rpartition(":")[2]
    resolver: Callable[[str, int], list[str]] = lambda host, port: ["127.0.0.9", "127.0.0.1"]  # noqa: E731
    with Fetcher(LOOPBACK, resolver=resolver) as fetcher:
        assert fetcher.get(f"http://shop.example:{port}/red.png").data == picture("red")


def test_proxies_of_the_environment_are_not_used(server: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    with Fetcher(LOOPBACK) as fetcher:
        assert fetcher.get(f"{server.url}/red.png").data == picture("red")


def test_networks_are_read_or_refused() -> None:
    assert networks(["10.0.0.0/8", "::1"]) == (
        ipaddress.ip_network("10.0.0.0/8"),
        ipaddress.ip_network("::1"),
    )
    with pytest.raises(ConfigError, match=r"10\.0\.0\.0/8"):
        networks(["10.0.0.1/8"])
