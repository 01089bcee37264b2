from hypothesis import given
from hypothesis import strategies as st

from embedding_assets.engine.tokens import MAX_BYTES_PER_TOKEN, count, wordpiece


@given(st.text(max_size=400))
def test_bytes_are_bounded_by_tokens(text: str) -> None:
    text = text.encode("utf-8", "ignore").decode()
    assert len(text.encode()) <= MAX_BYTES_PER_TOKEN * count(text)


def test_ordinary_text_counts_its_word_pieces() -> None:
    text = "We should ship the importer before the customers' unbelievably long onboarding calls."
    assert count(text) == len(wordpiece().encode(text, add_special_tokens=False).ids)


def test_a_long_word_counts_by_its_length() -> None:
    assert count("A" * 100_000) >= 12_500


def test_a_control_token_in_the_text_is_text() -> None:
    assert wordpiece().encode("[SEP] [PAD]", add_special_tokens=False).tokens == [
        "[", "sep", "]", "[", "pad", "]",
    ]  # fmt: skip
