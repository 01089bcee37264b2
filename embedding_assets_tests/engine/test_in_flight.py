"""Who waits for which text, who pays for it, and when an attempt can end."""

import numpy as np

from embedding_assets.engine.embedders import Embedded
from embedding_assets.engine.errors import InvalidInputError, TransientError
from embedding_assets.engine.in_flight import InFlight, Lane, Recording, State
from embedding_assets.engine.packing import Input
from embedding_assets.engine.queue import Claim
from embedding_assets.engine.vectors import VectorRow

A, B, C = b"a", b"b", b"c"


def _two(in_flight: InFlight) -> tuple[Recording, Recording]:
    """The first needs A and B, the second B and C."""
    first = Recording(Claim("first", 0), Lane.standard)
    second = Recording(Claim("second", 0), Lane.small_batch)
    for recording in (first, second):
        in_flight.add(recording)
    assert in_flight.wait_for(first, [A, B]) == [A, B]
    assert in_flight.wait_for(second, [B, C]) == [C]
    return first, second


def _rows(*hashes: bytes) -> list[VectorRow]:
    return [VectorRow(each, np.ones(2, np.float32), 5) for each in hashes]


def test_a_recording_is_complete_when_its_last_text_arrived() -> None:
    in_flight = InFlight()
    first, second = _two(in_flight)
    in_flight.arrived([A])
    assert [r.state for r in in_flight] == [State.WAITING, State.WAITING]
    in_flight.arrived([B])
    assert (first.state, second.state) == (State.COMPLETE, State.WAITING)
    in_flight.remove(first)
    assert list(in_flight) == [second]
    assert len(in_flight) == 1


def test_a_shared_text_is_paid_by_the_first_and_handled_with_the_most_care() -> None:
    in_flight = InFlight()
    first, second = _two(in_flight)
    answer = Embedded(np.ones((2, 2), np.float32), tokens=10, requests=2)
    in_flight.pay(_rows(B, C), answer)
    assert (first.tokens, first.embedded, first.requests) == (5, 1, 2)
    assert (second.tokens, second.embedded, second.requests) == (5, 1, 0)
    assert [in_flight.lane_of(each) for each in (A, B, C)] == [
        Lane.standard,
        Lane.small_batch,
        Lane.small_batch,
    ]


def test_a_text_that_is_given_up_fails_all_that_need_it_and_the_first_error_stays() -> None:
    in_flight = InFlight()
    first, second = _two(in_flight)
    error = InvalidInputError("bad")
    error.requests, error.tokens = 1, 7
    in_flight.charge([Input(B, "text", 7)], error)
    assert in_flight.fail([B], error) == [first, second]
    assert (first.requests, first.tokens, second.requests) == (1, 7, 0)
    assert in_flight.fail([C], TransientError("later")) == [second]
    assert second.failure is error
    assert second.state is State.FAILED
    assert first.state is State.WAITING  # for A, which is under way
    assert in_flight.abandon(first, [A]) == [A]
    assert first.state is State.FAILED


def test_a_text_that_somebody_else_needs_is_not_unwanted() -> None:
    in_flight = InFlight()
    first, second = _two(in_flight)
    assert in_flight.abandon(first, [A, B]) == [A]
    assert in_flight.payer(B) is second
