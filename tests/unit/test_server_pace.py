"""Searches go before writes; writes are not kept for ever."""

from __future__ import annotations

import threading
import time

import pytest

from mmsearch.server import pace
from mmsearch.server.pace import Pace, Turns


def test_a_turn_waits_until_the_last_search_is_done() -> None:
    kept = Pace()
    kept.entered()
    kept.entered()
    order: list[str] = []

    def searches() -> None:
        kept.left()
        order.append("first search")
        kept.left()
        order.append("last search")

    timer = threading.Timer(pace.PATIENCE / 10, searches)
    timer.start()
    with Turns(kept):
        timer.join()
        order.append("turn")
    assert order == ["first search", "last search", "turn"]


def test_a_turn_comes_though_searches_never_end() -> None:
    kept = Pace()
    kept.entered()
    with Turns(kept):
        pass  # or this test never ends


def test_turns_rest_between_searches_and_only_there(monkeypatch: pytest.MonkeyPatch) -> None:
    slept: list[float] = []
    monkeypatch.setattr(time, "sleep", slept.append)
    busy, idle = Pace(), Pace()
    busy.entered()
    busy.left()
    for kept in (idle, busy):
        turns = Turns(kept)
        with turns:
            until = time.thread_time() + 0.02
            while time.thread_time() < until:
                pass
        with turns:
            pass
    (rest,) = slept  # 30 times 20 ms is more than the longest rest
    assert 0 < rest <= pace.LONGEST
