"""Any number of chunks like some real ones: their sentences mixed, and their vectors likewise.

A made-up chunk is a real one in which one or two of its four quarters are another's, mostly of the
same meeting, as calls of one company return to the same matters. Its vector is the two vectors
mixed in that share, and a step as between two real near neighbours: not random noise, which is as
far from everything, but a difference in the directions in which real vectors differ.
"""

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from benchmarks.retrieval import Meeting, VectorOf

Vector = NDArray[np.float32]

QUARTERS = 4
MASKS = np.array([1, 2, 4, 8, 3, 5, 6, 9, 10, 12], np.int16)  # which quarters are the other's
OF_THE_MEETING = 0.7  # the share of others that are of the same meeting
STEP = 0.45  # of a difference between neighbours; so neighbours are as far as real ones
NEIGHBOURS = 10


@dataclass(frozen=True, slots=True)
class Mixed:
    """Made-up chunks: the real chunk of each, the other, which quarters are its, and vectors."""

    own: NDArray[np.int32]
    other: NDArray[np.int32]
    mask: NDArray[np.int16]
    vectors: Vector


class Similar:
    """Makes recordings like the real meetings, each of so many chunks that follow each other."""

    def __init__(self, meetings: Sequence[Meeting], vectors: VectorOf) -> None:
        texts = [each.text for meeting in meetings for each in meeting.chunks]
        self.quarters = [_quarters(text) for text in texts]
        self.real: Vector = np.stack([vectors[text] for text in texts])
        self.sizes = np.array([len(meeting.chunks) for meeting in meetings])
        self._starts = np.concatenate([[0], np.cumsum(self.sizes)[:-1]])
        alike = self.real @ self.real.T
        np.fill_diagonal(alike, -1)
        self._near = np.argpartition(-alike, NEIGHBOURS, axis=1)[:, :NEIGHBOURS]

    def mixed(self, recordings: int, chunks: int, seed: int) -> Mixed:
        """The chunks of so many recordings, one recording's after the other's."""
        draw = np.random.default_rng(seed)
        meeting = draw.choice(len(self.sizes), recordings, p=self.sizes / self.sizes.sum())
        size, start = self.sizes[meeting][:, None], self._starts[meeting][:, None]
        first = (draw.random(recordings) * np.maximum(1, size[:, 0] - chunks + 1)).astype(int)
        own = (start + (first[:, None] + np.arange(chunks)) % size).ravel()
        count = len(own)
        of_meeting = np.repeat(start[:, 0], chunks) + (
            draw.random(count) * np.repeat(size[:, 0], chunks)
        ).astype(int)
        anywhere = draw.integers(len(self.real), size=count)
        other = np.where(draw.random(count) < OF_THE_MEETING, of_meeting, anywhere)
        mask = draw.choice(MASKS, count)
        share = (np.bitwise_count(mask) / QUARTERS).astype(np.float32)[:, None]
        here = draw.integers(len(self.real), size=count)
        there = self._near[here, draw.integers(NEIGHBOURS, size=count)]
        step = STEP * (self.real[here] - self.real[there])
        vectors = (1 - share) * self.real[own] + share * self.real[other] + step
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        return Mixed(own.astype(np.int32), other.astype(np.int32), mask, vectors)

    def text(self, own: int, other: int, mask: int) -> str:
        """The text of a made-up chunk."""
        of = (self.quarters[own], self.quarters[other])
        return " ".join(of[mask >> n & 1][n] for n in range(QUARTERS))


def _quarters(text: str) -> list[str]:
    sentences = re.split(r"(?<=[.?!\n])\s+", text)
    if len(sentences) < QUARTERS:
        sentences = text.split()
    return [" ".join(part) for part in np.array_split(np.array(sentences, object), QUARTERS)]


def distances(
    vectors: Vector, ranks: Sequence[int] = (1, 10, 100)
) -> dict[int, NDArray[np.float32]]:
    """Quartiles of the cosine distance to the nearest, the tenth nearest and so on, by rank."""
    alike = np.sort(1 - vectors @ vectors.T, axis=1)  # of each row the first is itself
    return {rank: np.percentile(alike[:, rank], [25, 50, 75]).astype(np.float32) for rank in ranks}


def digest(text: str) -> bytes:
    """The hash by which a text's vector is found."""
    return hashlib.sha256(text.encode()).digest()
