"""Fathom's webhook `new-meeting-content-ready`: a meeting comes as soon as it can be read.

It fires once, and never for a meeting without a summary: it only hastens what the synchronisation
finds anyway. Signature: https://github.com/standard-webhooks/standard-webhooks.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from standardwebhooks.webhooks import (
    EmptyWebhookSecretError,
    Webhook,
    WebhookVerificationError,
)

from embedding_assets.engine.database import Database
from embedding_assets.engine.errors import ConfigurationError
from embedding_assets.recorders.statements import sql
from embedding_assets.recorders.sync.meetings import Taken, take

MOST_ID_CHARACTERS = 255


class Receipt(StrEnum):
    """What became of a delivery."""

    TAKEN = "taken"
    TAKEN_BEFORE = "taken_before"
    UNSIGNED = "unsigned"  # by none of the secrets, or not now: answer 401
    UNREADABLE = "unreadable"  # signed, and no meeting: answer 400


@dataclass(frozen=True, slots=True)
class Delivery:
    """What became of a delivery, and of its meeting."""

    receipt: Receipt
    meeting: Taken | None = None


class FathomWebhook:
    """The receiving end, whatever serves it.

    Raises:
        ConfigurationError: there is no secret, or one is none.
    """

    def __init__(self, secrets: Sequence[str]) -> None:
        try:
            self._keys = [Webhook(secret) for secret in secrets]
        except (ValueError, EmptyWebhookSecretError):
            raise ConfigurationError(
                "FATHOM_WEBHOOK_SECRETS: a secret is not as Fathom shows it: whsec_ and base64"
            ) from None
        if not self._keys:
            raise ConfigurationError("FATHOM_WEBHOOK_SECRETS is not set: nobody could be believed")

    def receive(self, database: Database, headers: Mapping[str, str], body: bytes) -> Delivery:
        """Stores the meeting of a delivery that is signed, at most 300 s old and new.

        A delivery that comes again after its meeting was stored is taken as done. If the database
        fails, the delivery is not noted, and the sender's next try finds it new.

        Args:
            database: the recorders' tables, which it writes.
            headers: of the request, in any case.
            body: as it came, of which the signature is.

        Raises:
            EmbeddingAssetsError: the database does not take it: answer 503.
        """
        given = {name.lower(): value for name, value in headers.items()}
        webhook_id = given.get("webhook-id", "")
        if not self._is_signed(given, body) or len(webhook_id) > MOST_ID_CHARACTERS:
            return Delivery(Receipt.UNSIGNED)
        if database.retrying(lambda c: sql.is_delivered(c, webhook_id=webhook_id)):
            return Delivery(Receipt.TAKEN_BEFORE)
        meeting = _meeting(body)
        taken = None if meeting is None else take(database, meeting)
        database.retrying(lambda c: sql.delivered(c, webhook_id=webhook_id))
        is_call = taken is not None and taken.recording_id is not None
        return Delivery(Receipt.TAKEN if is_call else Receipt.UNREADABLE, taken)

    def _is_signed(self, headers: dict[str, str], body: bytes) -> bool:
        for key in self._keys:
            try:
                key.verify(body, headers, json_parse=False)
            # The library lets errors of its own parsing through for headers that are malformed.
            except (WebhookVerificationError, ValueError):
                continue
            return True
        return False


class FathomWebhooks:
    """The receiving ends of several accounts, each with secrets of its own.

    Args:
        secrets: with white space between them, each as Fathom shows it, or after a name and an
            equals sign: that one alone is believed under its name; the others under any other.

    Raises:
        ConfigurationError: a secret is none.
    """

    def __init__(self, secrets: str) -> None:
        named: dict[str, list[str]] = {}
        for each in secrets.split():
            name, _, secret = each.rpartition("=whsec_")
            named.setdefault(name, []).append(f"whsec_{secret}" if name else each)
        self._ends = {name: FathomWebhook(each) for name, each in named.items()}

    def __call__(self, name: str) -> FathomWebhook | None:
        """The end under this name; None if there is none."""
        return self._ends.get(name) or self._ends.get("")


def _meeting(body: bytes) -> Any:
    try:
        document = json.loads(body)
    except (ValueError, RecursionError):
        return None
    return document if isinstance(document, dict) else None
