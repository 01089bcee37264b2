"""What the API answered, against what the ledger (`embedding_attempts`) says was paid.

A killed process has paid for answers that it did not live to write down. All of these are for
recordings that it held when it died, and were asked for after it claimed the first of them: so much
may be missing from the ledger, and for recordings that no killed process held, nothing.
"""

import json
import time
from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from embedding_assets.engine.database import Database
from embedding_assets_tests.calls import rows
from embedding_assets_tests.loopback_api import LoopbackAPI, count_tokens, text_hash

PAID = """
    SELECT recording_id, sum(embedded)::bigint AS texts, sum(requests)::bigint AS requests,
           sum(tokens)::bigint AS tokens
    FROM embedding_attempts GROUP BY recording_id
"""


@dataclass(frozen=True, slots=True)
class Answer:
    """One request that was answered, and what it cost by the server's own count."""

    at: float  # Unix seconds
    texts: Mapping[str, int]  # hash: tokens


class MeteredAPI(LoopbackAPI):
    """The loopback server, which keeps what it answered and when."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.answers: list[Answer] = []

    async def _answer_embeddings(self, headers: dict[str, str], body: bytes, send: Any) -> None:
        asked = time.time()
        status = 0

        async def noting(message: dict[str, Any]) -> None:
            nonlocal status
            status = message.get("status", status)
            await send(message)

        try:
            await super()._answer_embeddings(headers, body, noting)
        finally:  # a client that is gone has paid, too
            if status == 200:
                given = json.loads(body)["input"]
                texts = [given] if isinstance(given, str) else given
                self.answers.append(Answer(asked, {text_hash(t): count_tokens(t) for t in texts}))


@dataclass(frozen=True, slots=True)
class Death:
    """What a killed run held, and from when on it can have asked for that."""

    run_id: str
    since: float  # Unix seconds
    until: float
    held: frozenset[str]


@dataclass(slots=True)
class Balance:
    """The server's count and the ledger's, and what of the difference the kills explain."""

    server_requests: int = 0
    server_tokens: int = 0
    ledger_requests: int = 0
    ledger_tokens: int = 0
    lost_requests_at_most: int = 0
    lost_tokens_at_most: int = 0
    search_requests: int = 0
    amiss: list[str] = field(default_factory=list)


def balance(
    database: Database,
    answers: Collection[Answer],
    recordings_of: Mapping[str, Collection[str]],
    questions: Collection[str],
    deaths: Collection[Death],
) -> Balance:
    """Compares the two.

    Args:
        database: with the ledger.
        answers: all that the server gave.
        recordings_of: by a text's hash, the recordings that it is or was a part of.
        questions: hashes of the texts that searches asked for.
        deaths: of all runs that were killed.
    """
    found = Balance()
    of_work = []
    for answer in answers:
        if answer.texts.keys() <= set(questions):
            found.search_requests += 1
            continue
        of_work.append(answer)
        if unknown := answer.texts.keys() - recordings_of.keys():
            found.amiss.append(f"{len(unknown)} texts were asked for that no recording ever had")
    found.server_requests = len(of_work)
    found.server_tokens = sum(sum(answer.texts.values()) for answer in of_work)
    paid = {row.recording_id: row for row in rows(database, PAID)}
    found.ledger_requests = sum(row.requests for row in paid.values())
    found.ledger_tokens = sum(row.tokens for row in paid.values())
    lost = [answer for answer in of_work if _may_be_lost(answer, recordings_of, deaths)]
    found.lost_requests_at_most = len(lost)
    # An answer's tokens are shared out among its texts by their length: a share may be one off.
    found.lost_tokens_at_most = sum(
        tokens + 1
        for answer in lost
        for text, tokens in answer.texts.items()
        if any(_explains(death, answer, recordings_of.get(text, ())) for death in deaths)
    )
    for what, server, ledger, most in (
        ("requests", found.server_requests, found.ledger_requests, found.lost_requests_at_most),
        ("tokens", found.server_tokens, found.ledger_tokens, found.lost_tokens_at_most),
    ):
        if not ledger <= server <= ledger + most:
            found.amiss.append(
                f"the server counted {server} {what}, the ledger {ledger}; kills explain a"
                f" difference of {most} at most"
            )
    found.amiss += _texts_amiss(of_work, recordings_of, paid, deaths)
    return found


def _may_be_lost(
    answer: Answer, recordings_of: Mapping[str, Collection[str]], deaths: Collection[Death]
) -> bool:
    return any(
        _explains(death, answer, recordings_of.get(text, ()))
        for death in deaths
        for text in answer.texts
    )


def _explains(death: Death, answer: Answer, recordings: Collection[str]) -> bool:
    """Whether the killed run can have asked for this and not written it down."""
    return death.since <= answer.at <= death.until and not death.held.isdisjoint(recordings)


def _texts_amiss(
    answers: Collection[Answer],
    recordings_of: Mapping[str, Collection[str]],
    paid: Mapping[str, Any],
    deaths: Collection[Death],
) -> list[str]:
    """Recordings whose texts were answered more often than they were written down, or less.

    A text of several recordings is charged to one of them: these are left out.
    """
    answered: Counter[str] = Counter()
    shared: set[str] = set()
    for answer in answers:
        for text in answer.texts:
            recordings = recordings_of.get(text, ())
            if len(recordings) > 1:
                shared.update(recordings)
            answered.update(recordings)
    held = {recording_id for death in deaths for recording_id in death.held}
    amiss = []
    for recording_id in sorted((answered.keys() | paid.keys()) - shared):
        written = paid[recording_id].texts if recording_id in paid else 0
        times = answered[recording_id]
        if written > times or (written < times and recording_id not in held):
            amiss.append(
                f"{recording_id}: {times} texts were answered, {written} are in the ledger"
            )
    return amiss
