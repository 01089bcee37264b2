"""The project's own measure of length, the same whatever model embeds the text.

A text is as long as the word pieces that BERT's vocabulary cuts it into. The measure belongs to no
embedding model, so chunks stay as they are when the model changes. It is additive over words
(whatever whitespace parts), so counting needs no more than a look at each word in a cache.
"""

import hashlib
import threading
from pathlib import Path

from tokenizers import Tokenizer, models, normalizers, pre_tokenizers

from embedding_assets.engine.errors import ConfigurationError

# A text of n tokens whose words stand one whitespace byte apart has at most n times this many
# UTF-8 bytes, and no byte-level BPE (that of the OpenAI models) makes more tokens than bytes.
MAX_BYTES_PER_TOKEN = 8

_VOCABULARY = Path(__file__).parent / "embedders" / "data" / "vocab.txt"
_VOCABULARY_SHA256 = "07eced375cec144d27c900241f3e339478dec958f92fddbc551f295c992038a3"
_LONGEST_PIECE = 100  # characters; WordPiece calls anything longer unknown, as one single piece
_LONGEST_CACHED = 100  # characters
_CACHED_WORDS = 100_000  # some 10 MB


class _Loader:
    """Builds the tokenizer once, for all threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._tokenizer: Tokenizer | None = None

    def __call__(self) -> Tokenizer:
        with self._lock:
            if self._tokenizer is None:
                self._tokenizer = _build_tokenizer()
            return self._tokenizer


def _build_tokenizer() -> Tokenizer:
    try:
        data = _VOCABULARY.read_bytes()
    except OSError:
        data = b""
    if hashlib.sha256(data).hexdigest() != _VOCABULARY_SHA256:
        raise ConfigurationError(
            f"{_VOCABULARY.name} of embedding-assets is missing or damaged: reinstall the package "
            "(pip install --force-reinstall --no-deps embedding-assets)"
        )
    pieces = data.decode().splitlines() if False else data.decode().removesuffix("\n").split("\n")
    vocabulary = {piece: number for number, piece in enumerate(pieces)}
    tokenizer = Tokenizer(
        models.WordPiece(vocabulary, unk_token="[UNK]", max_input_chars_per_word=_LONGEST_PIECE)
    )
    tokenizer.normalizer = normalizers.BertNormalizer()
    # The second step cuts what WordPiece would give up on, so that its content counts.
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.BertPreTokenizer(), pre_tokenizers.FixedLength(_LONGEST_PIECE)]
    )
    # No special tokens: "[SEP]" said in a call is three ordinary pieces.
    return tokenizer


wordpiece = _Loader()
