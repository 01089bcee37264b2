"""The project's measure of length: word pieces, the same for every embedding model.

They are counted with the vocabulary of bert-base-uncased (the offline model's), so that chunks stay
the same when the model changes. WordPiece handles each word alone, so the counts of words are
cached: ten times faster than running the tokenizer on the whole text.
"""

import hashlib
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING

from embedding_assets.engine.errors import ConfigurationError

if TYPE_CHECKING:
    from tokenizers import Tokenizer

MAX_BYTES_PER_TOKEN = 8
"""A text of n tokens has at most 8·n UTF-8 bytes, and a byte-level BPE makes no more tokens of it
than that: words without a space (base64, a URL) count by their bytes, not as one unknown word."""

VOCABULARY_SHA256 = "07eced375cec144d27c900241f3e339478dec958f92fddbc551f295c992038a3"
REMEMBERED_WORDS = 200_000
UNKNOWN = "[UNK]"
LONGEST_WORD = 100  # characters


def count(text: str) -> int:
    """Tokens in `text`, at least one; the sum over parts is never less than for the whole."""
    pieces = sum(map(_pieces_of, text.split()))
    size = len(text) if text.isascii() else len(text.encode())
    return max(pieces, size // MAX_BYTES_PER_TOKEN + 1)  # one byte more, for white space


@cache
def wordpiece() -> "Tokenizer":
    """The tokenizer, without special tokens, truncation or padding.

    Raises:
        ConfigurationError: the vocabulary in this package was altered.
    """
    # Imported here: what reads the queue's state counts no tokens.
    from tokenizers import Tokenizer  # noqa: PLC0415
    from tokenizers.models import WordPiece  # noqa: PLC0415
    from tokenizers.normalizers import BertNormalizer  # noqa: PLC0415
    from tokenizers.pre_tokenizers import BertPreTokenizer, FixedLength, Sequence  # noqa: PLC0415

    data = (files("embedding_assets.engine.embedders") / "data" / "vocab.txt").read_bytes()
    if hashlib.sha256(data).hexdigest() != VOCABULARY_SHA256:
        raise ConfigurationError(
            "the vocabulary of the offline model is damaged: install embedding-assets again"
        )
    vocabulary = {word: number for number, word in enumerate(data.decode().split("\n"))}
    # Longer words are cut in pieces of that length: WordPiece would see nothing of them, or take
    # the square of their length in time.
    model = WordPiece(vocabulary, unk_token=UNKNOWN, max_input_chars_per_word=LONGEST_WORD)
    tokenizer = Tokenizer(model)
    tokenizer.normalizer = BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = Sequence([BertPreTokenizer(), FixedLength(LONGEST_WORD)])
    return tokenizer


class _Words(dict[str, int]):
    """Word pieces of each word seen so far."""

    def __missing__(self, word: str) -> int:
        if len(self) > REMEMBERED_WORDS:
            self.clear()
        pieces = len(wordpiece().encode(word, add_special_tokens=False).ids)
        if len(word) <= LONGEST_WORD:
            self[word] = pieces
        return pieces


_pieces_of = _Words().__getitem__
