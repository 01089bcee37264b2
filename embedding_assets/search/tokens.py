"""Tokens: each lets a person or a program ask over the network for what one reader may see."""

import hashlib
import re
import secrets
from dataclasses import asdict, dataclass
from datetime import datetime

from embedding_assets.engine.database import Database
from embedding_assets.engine.errors import InvalidInputError
from embedding_assets.search.statements import sql

PREFIX = "ea_"  # so that a scanner for secrets in files knows one
NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}")


@dataclass(frozen=True, slots=True)
class Token:
    """What is kept of a token: of the token itself, only its hash."""

    name: str
    reader: str
    may_import: bool
    created_at: datetime | None = None

    def as_dict(self) -> dict[str, object]:
        """For JSON."""
        return asdict(self)


def add_token(database: Database, name: str, reader: str, *, may_import: bool = False) -> str:
    """Makes a token for a reader, and gives it, which is the only time that anybody sees it.

    As the role that owns the tables.

    Raises:
        InvalidInputError: the name is taken or none, or the reader is nobody.
    """
    if not NAME.fullmatch(name):
        raise InvalidInputError(
            "a token's name has small letters, digits, dots, dashes and underscores, at most 63"
        )
    if not reader.strip() or reader.strip() == "*" or reader.strip().lower().startswith("team:"):
        raise InvalidInputError("a reader is an e-mail address or a user's id")
    token = PREFIX + secrets.token_urlsafe(32)

    with database.transaction() as connection:
        added = sql.add_token(
            connection, name=name, token_hash=_hash(token), reader=reader, may_import=may_import
        )
    if added is None:
        raise InvalidInputError(
            f"there is a token {name}: choose another name, or revoke that one first"
        )
    return token


def tokens(database: Database) -> list[Token]:
    """All tokens, by name. As the role that owns the tables."""
    with database.transaction(snapshot=True) as connection:
        return [Token(**row._asdict()) for row in sql.tokens(connection)]


def revoke_token(database: Database, name: str) -> bool:
    """Makes a token worth nothing; False if there is none of that name. As the tables' owner."""
    with database.transaction() as connection:
        return sql.revoke_token(connection, name=name) is not None


def token_of(database: Database, token: str) -> Token | None:
    """What a token is worth; None: nothing."""
    with database.transaction() as connection:
        row = sql.token_of(connection, token_hash=_hash(token))
    return None if row is None else Token(**row._asdict())


def has_tokens(database: Database) -> bool:
    """Whether any was ever given out, also if all were revoked."""
    with database.transaction() as connection:
        return bool(sql.has_tokens(connection))


def _hash(token: str) -> bytes:
    # A plain hash is enough for 256 random bits, which nobody guesses.
    return hashlib.sha256(token.encode()).digest()
