"""Forgets calls or a person, everywhere this project keeps them, and proves it."""

import json
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields
from datetime import datetime, timedelta
from functools import partial
from typing import Any

from embedding_assets.engine import forgetting as published
from embedding_assets.engine.database import Connection, Database
from embedding_assets.engine.errors import EmbeddingAssetsError, InvalidInputError
from embedding_assets.engine.sweeping import sweep
from embedding_assets.recorders import forgetting as told
from embedding_assets.recorders.statements import sql

# What no deletion here reaches; docs/access.md says for how long it lasts.
BEYOND_REACH = (
    "backups and replicas of the database",
    "write-ahead log that is not recycled yet",
    "free space among the vectors, and Postgres's statistics, until they are written over",
    "vectors of earlier versions of its transcript that are younger than an hour, until the night",
    "output files of batches at the provider, until it deletes them",
)
# Vectors of earlier versions that are younger go with the nightly sweep.
YOUNG = timedelta(hours=1)

Elsewhere = Callable[[str], tuple[Counter[str], list[str]]]
"""Forgets a call in another place; gives how much that was, and what could not be reached."""


@dataclass(frozen=True, slots=True)
class Request:
    """What is to be forgotten: one of the three."""

    recordings: tuple[str, ...] = ()
    person: str | None = None  # an address
    words_only: bool = False  # of the person: their words in the calls, and not the calls
    before: datetime | None = None

    def __post_init__(self) -> None:
        """Raises InvalidInputError unless it says one thing."""
        if sum(map(bool, (self.recordings, self.person, self.before))) != 1:
            raise InvalidInputError("say one of: --recording, --person, --before")
        if self.words_only and not self.person:
            raise InvalidInputError("--words-only goes with --person")


@dataclass(slots=True)
class Proof:
    """What was forgotten, or would be."""

    request: dict[str, Any]
    recording_ids: list[str]
    counts: Counter[str] = field(default_factory=Counter)  # rows by table
    not_reached: list[str] = field(default_factory=list)
    number: int | None = None  # of the row in `forgettings`; None: nothing was deleted

    def tell(self, not_reached: str) -> None:
        """Adds what could not be reached, once."""
        if not_reached not in self.not_reached:
            self.not_reached.append(not_reached)

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {each.name: getattr(self, each.name) for each in fields(self)}


def plan(database: Database, request: Request) -> Proof:
    """Which calls that concerns; nothing is deleted.

    Raises:
        EmbeddingAssetsError: the database cannot be read.
    """
    if request.person:
        emails = told.addresses_of(database, request.person)
        ids = told.calls_of(database, emails)
        said: dict[str, Any] = {"person": told.email_hash(request.person).hex()}
        said["words_only"] = request.words_only
    elif request.before:
        ids, said = told.calls_before(database, request.before), {"before": str(request.before)}
    else:
        ids, said = sorted(set(request.recordings)), {"recordings": len(set(request.recordings))}
    return Proof(said, ids)


def forget(
    database: Database,
    request: Request,
    *,
    rewrite: bool = False,
    delete_file: Callable[[str], None] | None = None,
    elsewhere: Sequence[Elsewhere] = (),
) -> Proof:
    """Forgets, one transaction a call, and writes the proof. Run again after an error, it goes on.

    Args:
        database: as a role that may delete in all tables.
        request: what.
        rewrite: the tables of texts, so that nothing is left in their free space. They are locked.
        delete_file: deletes a file at the provider of batches; None: that is not reached.
        elsewhere: other places that name calls.

    Raises:
        ConfigurationError: the recorder's tables are somebody else's, or the role lacks a right.
    """
    proof = plan(database, request)
    emails = told.addresses_of(database, request.person) if request.person else []
    database.retrying(partial(told.take_no_more_of, emails=emails))
    step = partial(_forget_words, emails=emails) if request.words_only else _forget_call
    for recording_id in proof.recording_ids:
        # First elsewhere: what is deleted here is what tells where else it is.
        _forget_elsewhere(database, proof, recording_id, delete_file, elsewhere)
        proof.counts.update(database.retrying(partial(step, recording_id=recording_id)))
    if emails:
        proof.counts.update(database.retrying(partial(told.forget_people, emails=emails)))
    proof.counts["chunk_embeddings"] += sweep(database, grace=YOUNG)
    try:
        published.vacuum(database, rewrite=rewrite)
    except EmbeddingAssetsError as error:
        proof.not_reached.append(f"the tables' files, until they are vacuumed: {error}")
    if not rewrite:
        proof.not_reached.append("free space of the tables' pages, until it is written over")
    proof.not_reached += BEYOND_REACH
    proof.number = database.retrying(partial(_prove, proof=proof))
    return proof


def _forget_call(connection: Connection, recording_id: str) -> Counter[str]:
    """All of one call: the recorder's rows first, as their deletion queues the call."""
    counts = told.forget_call(connection, recording_id)
    return counts + published.forget_published(connection, recording_id)


def _forget_words(connection: Connection, recording_id: str, emails: list[str]) -> Counter[str]:
    counts = told.forget_words(connection, recording_id, emails)
    return counts + published.withdraw_published(connection, recording_id)


def _forget_elsewhere(
    database: Database,
    proof: Proof,
    recording_id: str,
    delete_file: Callable[[str], None] | None,
    elsewhere: Sequence[Elsewhere],
) -> None:
    reading = partial(published.batch_files, recording_id=recording_id)
    for file in database.retrying(reading):
        lost = f"file {file} at the provider of batches"
        if delete_file is None:
            proof.tell(f"{lost}: no key of its provider is set")
            continue
        try:
            delete_file(file)
        except EmbeddingAssetsError as error:
            proof.tell(f"{lost}: {error}")
        else:
            proof.counts["batch_files"] += 1
    for place in elsewhere:
        counts, not_reached = place(recording_id)
        proof.counts.update(counts)
        for each in not_reached:
            proof.tell(each)


def _prove(connection: Connection, proof: Proof) -> int:
    number: int = sql.prove(
        connection,
        request=json.dumps({**proof.request, "recording_ids": proof.recording_ids}),
        counts=json.dumps({name: count for name, count in proof.counts.items() if count}),
        not_reached=proof.not_reached,
    )
    return number
