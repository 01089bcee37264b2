"""Who is in a call, and which addresses are one person's."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass

from embedding_assets.engine.database import Connection, Database
from embedding_assets.engine.errors import InvalidInputError
from embedding_assets.recorders.model import Recording
from embedding_assets.recorders.statements import sql

MOST_LISTED = 1_000


@dataclass(frozen=True, slots=True)
class KnownPerson:
    """A person by the first of their addresses."""

    email: str
    name: str | None
    aliases: tuple[str, ...]
    calls: int

    def as_dict(self) -> dict[str, object]:
        """For JSON."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class _Named:
    """Somebody in a call; None where the recorder does not say."""

    role: str
    ordinal: int
    email: str | None
    name: str | None
    is_external: bool | None = None


def name_people(
    connection: Connection, recording_id: str, recording: Recording, *, with_speakers: bool
) -> int:
    """Writes who recorded the call, was invited and (by an address) spoke; 1 if that changed.

    Speakers stay as they are if the transcript was not taken.
    """
    before = [_Named(*row) for row in sql.people_of(connection, recording_id=recording_id)]
    stays = {"speaker"} if not with_speakers else set()
    if not recording.invitees and not recording.tells_access:
        stays.add("invitee")
    if not (recording.recorded_by_email or recording.recorded_by_name):
        stays.add("recorded_by")
    named = sorted(
        [each for each in _named(recording) if each.role not in stays]
        + [each for each in before if each.role in stays],
        key=lambda each: (each.role, each.ordinal),
    )
    if named == before:
        return 0
    sql.forget_people_of(connection, recording_id=recording_id)
    sql.name_people_of(
        connection,
        recording_id=recording_id,
        roles=[each.role for each in named],
        ordinals=[each.ordinal for each in named],
        emails=[each.email for each in named],
        names=[each.name for each in named],
        externals=[each.is_external for each in named],
    )
    met = [each for each in named if each.email]
    sql.meet_people(
        connection, emails=[each.email for each in met], names=[each.name for each in met]
    )
    return 1


def _named(recording: Recording) -> Iterator[_Named]:
    if recording.recorded_by_email or recording.recorded_by_name:
        yield _Named("recorded_by", 0, recording.recorded_by_email, recording.recorded_by_name)
    for number, each in enumerate(recording.invitees):
        yield _Named("invitee", number, each.email, each.name, each.is_external)
    speakers = {s.speaker_email: s.speaker for s in recording.segments if s.speaker_email}
    for number, (email, name) in enumerate(sorted(speakers.items())):
        yield _Named("speaker", number, email, name)


def list_people(database: Database, pattern: str = "") -> list[KnownPerson]:
    """People whose name or address holds the pattern, at most 1,000, by address."""
    rows = database.retrying(
        lambda c: list(sql.list_people(c, pattern=pattern, limit=MOST_LISTED)), snapshot=True
    )
    return [KnownPerson(row.email, row.name, tuple(row.aliases), row.calls) for row in rows]


def merge(database: Database, email: str, others: list[str]) -> KnownPerson:
    """Makes the addresses one person, known by the first.

    Raises:
        InvalidInputError: an address is nobody's.
    """
    database.retrying(lambda connection: _merge(connection, email, others))
    return _person(database, email)


def _merge(connection: Connection, email: str, others: list[str]) -> None:
    # In order, so that two merges cannot wait for each other.
    held = {each: _held(connection, each) for each in sorted({email, *others}, key=str.lower)}
    person = held[email]
    aliases = set(person.aliases)
    name = person.name
    for other in held.values():
        if other.email != person.email:
            aliases |= {other.email, *other.aliases}
            name = name or other.name
            sql.remove_person(connection, email=other.email)
    sql.give_aliases(connection, email=person.email, name=name, aliases=sorted(aliases))


def split(database: Database, email: str, others: list[str]) -> KnownPerson:
    """Makes addresses of a person people of their own again.

    Raises:
        InvalidInputError: an address is not a further one of this person.
    """
    database.retrying(lambda connection: _split(connection, email, others))
    return _person(database, email)


def _split(connection: Connection, email: str, others: list[str]) -> None:
    person = _held(connection, email)
    gone = [other.lower() for other in others]
    for other in gone:
        if other not in person.aliases:
            known = ", ".join(person.aliases) or "none"
            raise InvalidInputError(
                f"{other} is no further address of {person.email}; these are: {known}"
            )
    left = [alias for alias in person.aliases if alias not in gone]
    sql.give_aliases(connection, email=person.email, name=None, aliases=left)
    for other in gone:
        sql.add_person(connection, email=other)


def _held(connection: Connection, email: str) -> KnownPerson:
    row = sql.hold_person(connection, email=email.lower())
    if row is None:
        raise InvalidInputError(
            f"nobody has the address {email}: `embedding-assets people list` shows who is known"
        )
    return KnownPerson(row.email, row.name, tuple(row.aliases), 0)


def _person(database: Database, email: str) -> KnownPerson:
    found = [
        each
        for each in list_people(database, email.lower())
        if email.lower() in (each.email, *each.aliases)
    ]
    return found[0]
