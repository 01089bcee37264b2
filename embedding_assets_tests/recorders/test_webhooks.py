"""Fathom's webhook: what is signed comes in, once, and nothing else does."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from standardwebhooks import Webhook

from embedding_assets.engine.database import Database
from embedding_assets.engine.errors import ConfigurationError, EmbeddingAssetsError
from embedding_assets.recorders.webhooks import FathomWebhook, Receipt
from embedding_assets_tests.calls import rows
from embedding_assets_tests.loopback_fathom import transcript

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
OTHER = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD"
MEETING = {
    "recording_id": 77,
    "title": "Depot audit",
    "created_at": "2026-03-04T10:00:00Z",
    "transcript": transcript("The depot is audited. Nothing is missing."),
}


def signed(
    meeting: Any = MEETING,
    *,
    secret: str = SECRET,
    webhook_id: str = "msg_1",
    age: timedelta = timedelta(0),
) -> tuple[dict[str, str], bytes]:
    body = meeting if isinstance(meeting, bytes) else json.dumps(meeting).encode()
    at = datetime.now(UTC) - age
    return {
        "Webhook-Id": webhook_id,
        "Webhook-Timestamp": str(int(at.timestamp())),
        "Webhook-Signature": Webhook(secret).sign(webhook_id, at, body.decode()),
    }, body


def calls(database: Database) -> list[Any]:
    return rows(database, "SELECT recording_id, title FROM fathom_calls")


def test_a_signed_meeting_comes_in_once(database: Database) -> None:
    webhook = FathomWebhook([OTHER, SECRET])
    delivery = webhook.receive(database, *signed())
    assert delivery.receipt is Receipt.TAKEN
    assert delivery.meeting is not None
    assert delivery.meeting.recording_id == "77"
    assert calls(database) == [("77", "Depot audit")]
    changed = {**MEETING, "title": "Another"}
    assert webhook.receive(database, *signed(changed)).receipt is Receipt.TAKEN_BEFORE
    assert calls(database) == [("77", "Depot audit")]
    assert webhook.receive(database, *signed(changed, webhook_id="msg_2")).receipt is Receipt.TAKEN
    assert calls(database) == [("77", "Another")]


@pytest.mark.parametrize(
    "age", [timedelta(seconds=310), timedelta(seconds=-310), timedelta(days=400)]
)
def test_what_was_not_sent_now_is_not_taken(database: Database, age: timedelta) -> None:
    assert FathomWebhook([SECRET]).receive(database, *signed(age=age)).receipt is Receipt.UNSIGNED
    assert calls(database) == []


def test_what_was_sent_within_the_tolerance_is(database: Database) -> None:
    delivery = FathomWebhook([SECRET]).receive(database, *signed(age=timedelta(seconds=280)))
    assert delivery.receipt is Receipt.TAKEN


@pytest.mark.parametrize(
    "change",
    [
        {"Webhook-Signature": None},
        {"Webhook-Id": None},
        {"Webhook-Id": "msg_2"},
        {"Webhook-Id": "x" * 300},
        {"Webhook-Timestamp": "now"},
        {"Webhook-Timestamp": "1e400"},
        {"Webhook-Signature": "v1"},
        {"Webhook-Signature": "v1,a,b"},
        {"Webhook-Signature": "v1,ü"},
        {"Webhook-Signature": ""},
        {"Webhook-Signature": "v2,AAAA v1,AAAA"},
    ],
)
def test_a_signature_that_does_not_fit_is_refused(database: Database, change: Any) -> None:
    headers, body = signed()
    headers = {name: value for name, value in {**headers, **change}.items() if value is not None}
    assert FathomWebhook([SECRET]).receive(database, headers, body).receipt is Receipt.UNSIGNED
    assert calls(database) == []


def test_another_body_or_another_secret_is_refused(database: Database) -> None:
    webhook = FathomWebhook([SECRET])
    headers, body = signed()
    assert webhook.receive(database, headers, body + b" ").receipt is Receipt.UNSIGNED
    assert webhook.receive(database, headers, b"\xff\xfe").receipt is Receipt.UNSIGNED
    assert webhook.receive(database, *signed(secret=OTHER)).receipt is Receipt.UNSIGNED


@pytest.mark.parametrize("body", [b"not json", b"[]", b"null", {"title": "no id"}, b"[" * 100_000])
def test_what_is_signed_and_no_meeting_is_told_apart(database: Database, body: Any) -> None:
    delivery = FathomWebhook([SECRET]).receive(database, *signed(body))
    assert delivery.receipt is Receipt.UNREADABLE
    assert calls(database) == []


def test_a_delivery_that_the_database_did_not_take_is_taken_when_it_comes_again(
    database: Database,
) -> None:
    webhook, delivery = FathomWebhook([SECRET]), signed()
    with database.transaction() as connection:
        connection.execute("ALTER TABLE fathom_calls RENAME TO away")
    with pytest.raises(EmbeddingAssetsError):
        webhook.receive(database, *delivery)
    with database.transaction() as connection:
        connection.execute("ALTER TABLE away RENAME TO fathom_calls")
    assert webhook.receive(database, *delivery).receipt is Receipt.TAKEN


def test_old_deliveries_are_forgotten(database: Database) -> None:
    webhook = FathomWebhook([SECRET])
    webhook.receive(database, *signed())
    with database.transaction() as connection:
        connection.execute(
            "UPDATE webhook_deliveries SET received_at = received_at - interval '8 days'"
        )
    webhook.receive(database, *signed(webhook_id="msg_2"))
    assert rows(database, "SELECT webhook_id FROM webhook_deliveries") == [("msg_2",)]


@pytest.mark.parametrize("secrets", [[], [""], ["whsec_"], ["whsec_ü"]])
def test_a_secret_that_is_none_is_named(secrets: list[str]) -> None:
    with pytest.raises(ConfigurationError, match="FATHOM_WEBHOOK_SECRETS"):
        FathomWebhook(secrets)
