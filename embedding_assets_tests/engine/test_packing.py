from hypothesis import given
from hypothesis import strategies as st

from embedding_assets.engine.embedders import RequestLimits
from embedding_assets.engine.packing import Input, Packer, share

LIMITS = RequestLimits(max_inputs=5, max_tokens=100, max_input_tokens=100, concurrency=2)


@given(st.lists(st.integers(1, 100), max_size=60), st.booleans())
def test_every_text_is_sent_once_in_order_and_no_request_passes_a_limit(
    sizes: list[int], flush_early: bool
) -> None:
    packer = Packer(LIMITS)
    sent: list[int] = []

    def take(flush: bool) -> None:
        while request := packer.take(flush=flush):
            assert len(request) <= LIMITS.max_inputs
            assert sum(item.planned_tokens for item in request) <= LIMITS.max_tokens
            sent.extend(int(item.text) for item in request)

    for number, size in enumerate(sizes):
        packer.add(Input(number.to_bytes(4), str(number), size))
        take(flush_early)
    take(True)
    assert sent == list(range(len(sizes)))
    assert not packer


@given(st.lists(st.integers(1, 100), min_size=1, max_size=60))
def test_a_full_packer_always_has_a_request_to_take(sizes: list[int]) -> None:
    packer = Packer(LIMITS)
    for number, size in enumerate(sizes):
        packer.add(Input(number.to_bytes(4), str(number), size))
        if packer.is_full:
            assert packer.take(flush=False)


@given(st.integers(0, 10**6), st.lists(st.integers(0, 1000), min_size=1, max_size=50))
def test_shares_add_up_and_are_in_proportion(total: int, weights: list[int]) -> None:
    shares = share(total, weights)
    assert all(each >= 0 for each in shares)
    whole = sum(weights)
    if whole:
        assert sum(shares) == total
        for each, weight in zip(shares, weights, strict=True):
            assert abs(each - total * weight / whole) <= 1


def test_requests_that_were_put_back_come_first() -> None:
    packer = Packer(LIMITS)
    inputs = [Input(bytes([n]), str(n), 1) for n in range(4)]
    packer.add(inputs[3])
    packer.put_back(inputs[:1], inputs[1:3])
    taken = [packer.take(flush=True) for _ in range(3)]
    assert taken == [inputs[:1], inputs[1:3], inputs[3:]]


def test_texts_can_be_dropped_wherever_they_wait() -> None:
    packer = Packer(LIMITS)
    inputs = [Input(bytes([n]), str(n), 1) for n in range(6)]
    packer.add(inputs[4])
    packer.add(inputs[5])
    packer.put_back(inputs[:2], inputs[2:4])
    assert packer.queued([bytes([n]) for n in (1, 3, 5, 9)]) == [bytes([n]) for n in (1, 3, 5)]
    packer.drop([item.content_hash for item in (inputs[0], inputs[1], inputs[3], inputs[5])])
    assert [packer.take(flush=True) for _ in range(3)] == [[inputs[2]], [inputs[4]], []]
    packer.put_back(inputs[:2])
    packer.drop([item.content_hash for item in inputs[:2]])
    assert not packer
