"""The JSON API over HTTP: what is found, read and brought in, and how errors are told."""

import base64
import json
import logging
from typing import Any
from urllib.parse import quote

import httpx
import pytest
from pydantic import SecretStr

from embedding_assets.engine.database import Database
from embedding_assets.web.guard import HEADERS, MOST_BYTES
from embedding_assets_tests.calls import Embed, add_call, rows, talk
from embedding_assets_tests.recorders.test_webhooks import MEETING, OTHER, SECRET, signed
from embedding_assets_tests.web.conftest import ANN, BOB, CALLS, CEE, Serving

PRICE, IMPORT, HOSTILE = "zoom-price", "tests-import", "tests-hostile"
EVERYTHING = {PRICE, IMPORT, HOSTILE}
NIGHT = {
    "title": "A night call",
    "recorded_at": "2026-11-21T09:00:00Z",
    "segments": [{"speaker": "Dee", "text": "The night was quiet.", "start": 1, "end": 3}],
}


def at(recording_id: str, *more: str) -> str:
    return "/".join(["/api/recordings", quote(recording_id, safe=""), *more])


def problem(answer: httpx.Response, status: int) -> dict[str, Any]:
    """The document of an error, which is one of RFC 9457."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    told: dict[str, Any] = answer.json()
    assert {"type", "title", "status", "detail"} <= set(told)
    assert told["status"] == status
    assert told["title"]
    assert told["detail"]
    return told


def cursor(value: Any) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).decode()


def test_search_finds_where_it_was_said(client: httpx.Client) -> None:
    answer = client.get("/api/search", params={"q": "truck cost per month"})
    assert answer.status_code == 200
    hit = answer.json()["hits"][0]
    assert hit["recording_id"] == "zoom-price"
    assert hit["speaker"] in {"Ann Bee", "Bob Cee"}
    assert hit["link"] == f"https://fathom.video/calls/1#t={int(hit['said_at'])}"
    assert all(0 <= a < b <= len(hit["text"]) for a, b in hit["marks"])
    marked = {hit["text"][a:b].lower() for a, b in hit["marks"]}
    assert "truck" in marked


@pytest.mark.parametrize(
    ("narrowed", "left"),
    [
        ({}, EVERYTHING),
        ({"speaker": "bob"}, {PRICE, IMPORT}),
        ({"speaker": ["Ann Bee", "CEE DEE"]}, {PRICE, IMPORT}),
        ({"person": ANN}, {PRICE}),
        ({"person": BOB.upper()}, {PRICE, IMPORT}),
        ({"person": [ANN, CEE]}, {PRICE, HOSTILE}),
        ({"not_person": BOB}, {HOSTILE}),
        ({"title": "dairy pric"}, {PRICE}),
        ({"not_title": "pricing"}, {IMPORT, HOSTILE}),
        ({"platform": "zoom"}, {PRICE}),
        ({"not_platform": "zoom"}, {IMPORT, HOSTILE}),
        ({"recording": [IMPORT, HOSTILE]}, {IMPORT, HOSTILE}),
        ({"not_recording": [IMPORT, HOSTILE]}, {PRICE}),
        ({"from": "2026-11-19"}, {PRICE, IMPORT}),
        ({"until": "2026-11-19"}, {HOSTILE}),
        ({"from": "2026-11-19", "until": "2026-11-20"}, {IMPORT}),
        ({"from": "2026-11-20T09:00:00Z"}, {PRICE}),
        ({"from": "2026-11-20T09:00:01Z"}, set()),
        ({"from": "2026-11-20T10:00:00+01:00"}, {PRICE}),
        ({"until": "2026-11-20T09:00"}, {IMPORT, HOSTILE}),
        ({"speaker": "bob", "not_person": ANN}, {IMPORT}),
    ],
)
def test_filters_narrow_what_is_found_and_listed(
    client: httpx.Client, narrowed: dict[str, Any], left: set[str]
) -> None:
    found = client.get("/api/search", params={"q": "the", "mode": "semantic", **narrowed})
    assert {hit["recording_id"] for hit in found.json()["hits"]} == left
    listed = client.get("/api/recordings", params=narrowed)
    assert {call["recording_id"] for call in listed.json()["recordings"]} == left


def test_who_is_not_wanted_speaks_in_no_hit(client: httpx.Client) -> None:
    params = {"q": "the", "mode": "semantic", "not_speaker": "bob"}
    hits = client.get("/api/search", params=params).json()["hits"]
    assert hits
    assert not [hit for hit in hits if "Bob Cee" in hit["speakers"]]


def test_calls_of_who_is_not_wanted_are_not_listed(client: httpx.Client) -> None:
    listed = client.get("/api/recordings", params={"not_speaker": "bob"}).json()["recordings"]
    assert [call["recording_id"] for call in listed] == [HOSTILE]


def test_chunks_before_and_after_a_hit_come_along(client: httpx.Client) -> None:
    params = {"q": '"does the price fall"', "mode": "keyword", "limit": 1}
    alone = client.get("/api/search", params=params).json()["hits"][0]
    assert alone["before"] == alone["after"] == []
    hit = client.get("/api/search", params={**params, "context": 2}).json()["hits"][0]
    assert hit["chunk_index"] == alone["chunk_index"]
    assert len(hit["before"]) == min(2, hit["chunk_index"])
    assert "forty euros" in hit["before"][-1]


def test_one_call_fills_the_page_only_as_far_as_it_may(client: httpx.Client) -> None:
    params = {"q": "truck euros import failed", "mode": "semantic", "limit": 3}
    hits = client.get("/api/search", params={**params, "per_recording": 1}).json()["hits"]
    assert {hit["recording_id"] for hit in hits} == EVERYTHING


@pytest.mark.parametrize(
    "path", ["/api/search?q=a", "/api/recordings?", f"{at(PRICE)}/transcript?"]
)
def test_a_misspelt_parameter_is_named(client: httpx.Client, path: str) -> None:
    told = problem(client.get(f"{path}&speakr=Ann"), 422)
    assert told["detail"].startswith("speakr: ")
    assert told["errors"][0]["loc"] == ["query", "speakr"]


@pytest.mark.parametrize(
    ("params", "named"),
    [
        ({}, "q"),
        ({"q": ""}, "q"),
        ({"q": "a" * 2001}, "q"),
        ({"q": "a", "mode": "psychic"}, "mode"),
        ({"q": "a", "limit": "0"}, "limit"),
        ({"q": "a", "limit": "ten"}, "limit"),
        ({"q": "a", "from": "tomorrow"}, "from"),
        ({"q": "a", "until": "2026-02-30"}, "until"),
        ({"q": "a", "from": "2026"}, "from"),
        ({"q": "a", "from": "20261120"}, "from"),
        ({"q": "a", "title": "\0"}, "title"),
        ({"q": "a", "person": ["a"] * 51}, "person"),
    ],
)
def test_what_is_not_understood_is_named(
    client: httpx.Client, params: dict[str, Any], named: str
) -> None:
    told = problem(client.get("/api/search", params=params), 422)
    assert told["detail"].startswith(f"{named}")
    assert "input" not in told["errors"][0]


def test_a_question_of_white_space_is_empty(client: httpx.Client) -> None:
    told = problem(client.get("/api/search", params={"q": " \t "}), 422)
    assert "empty" in told["detail"]


def test_pages_by_cursor_give_each_call_once_also_those_without_a_date(
    serving: Serving, database: Database, embed: Embed
) -> None:
    undated = [f"undated/{n}" for n in range(5)]
    with database.transaction() as connection:
        for recording_id in undated:
            add_call(connection, recording_id, talk(recording_id, 2))
    embed(*undated)
    with serving() as place, httpx.Client(base_url=place, timeout=30) as client:
        for limit in (1, 2, 3, 8, 200):
            seen: list[str] = []
            params: dict[str, Any] = {"limit": limit}
            while True:
                page = client.get("/api/recordings", params=params).json()
                assert len(page["recordings"]) <= limit
                seen += [call["recording_id"] for call in page["recordings"]]
                if page["next_cursor"] is None:
                    break
                params["cursor"] = page["next_cursor"]
            assert seen == [PRICE, IMPORT, HOSTILE, *reversed(undated)]


@pytest.mark.parametrize(
    "made_up",
    [
        "x", "ü", "AAAA", cursor(None), cursor([None]), cursor([5, "a"]), cursor([None, 5]),
        cursor(["2026-11-20", "a", "b"]), cursor(["never", "a"]), cursor([None, "a\0"]),
        cursor([None, {}]), cursor([None, ["a"]]), cursor(["2026-11-20T09:00:00Z", {}]),
    ],
)  # fmt: skip
def test_a_made_up_cursor_is_refused(client: httpx.Client, made_up: str) -> None:
    told = problem(client.get("/api/recordings", params={"cursor": made_up}), 422)
    assert told["detail"].startswith("cursor: ")


def test_a_call_is_told_as_its_recorder_told_it(client: httpx.Client) -> None:
    assert client.get(at(PRICE)).json() == {
        "recording_id": PRICE, "title": "Pricing with the dairy",
        "recorded_at": "2026-11-20T09:00:00Z", "duration_seconds": 49.0, "source_platform": "zoom",
        "speakers": ["Ann Bee", "Bob Cee"], "link": "https://fathom.video/calls/1",
    }  # fmt: skip
    assert client.get(at(HOSTILE)).json()["link"] is None


@pytest.mark.parametrize(("name", "recording_id"), [("price", PRICE), ("import", IMPORT)])
def test_a_transcript_is_what_was_said_each_turn_once(
    client: httpx.Client, name: str, recording_id: str
) -> None:
    page = client.get(at(recording_id, "transcript")).json()
    assert page["next_position"] is None
    said = [
        (t["position"], t["speaker"], t["start_seconds"], t["text"].rstrip()) for t in page["turns"]
    ]
    assert said == [
        (n, speaker, 10.0 * n, text.rstrip())
        for n, (speaker, text) in enumerate(CALLS[name]["said"])
    ]


@pytest.mark.parametrize(
    ("window", "positions"),
    [
        ({"first_position": 3}, [3, 4]),
        ({"last_position": 1}, [0, 1]),
        ({"first_position": 2, "last_position": 2}, [2]),
        ({"from_seconds": 20, "until_seconds": 30}, [2, 3]),
        ({"from_seconds": 20.5}, [2, 3, 4]),
        ({"until_seconds": 20}, [0, 1, 2]),
        ({"first_position": 99}, []),
        ({"from_seconds": 30, "until_seconds": 20}, []),
    ],
)
def test_a_window_gives_the_whole_turns_that_are_spoken_in_it(
    client: httpx.Client, window: dict[str, Any], positions: list[int]
) -> None:
    turns = client.get(at(PRICE, "transcript"), params=window).json()["turns"]
    everything = client.get(at(PRICE, "transcript")).json()["turns"]
    assert turns == [everything[n] for n in positions]


def read_on(client: httpx.Client, recording_id: str, limit: int) -> list[Any]:
    """All turns, page by page."""
    turns: list[Any] = []
    params = {"limit": limit}
    for _ in range(100):
        page = client.get(at(recording_id, "transcript"), params=params).json()
        turns += page["turns"]
        if page["next_position"] is None:
            return turns
        params["first_position"] = page["next_position"]
    raise AssertionError("it goes on for ever")


@pytest.mark.parametrize("limit", [1, 2, 4])
def test_reading_on_by_position_gives_all_turns(client: httpx.Client, limit: int) -> None:
    whole = client.get(at(PRICE, "transcript")).json()["turns"]
    assert read_on(client, PRICE, limit) == whole


def test_a_call_that_an_older_version_published_is_read_to_its_end(
    serving: Serving, database: Database
) -> None:
    with database.transaction() as connection:
        connection.execute(
            "UPDATE transcript_chunks SET turn_offsets = NULL, turn_positions = NULL,"
            " turn_seconds = NULL, turn_speakers = NULL, repeated = NULL"
        )
    with serving() as place, httpx.Client(base_url=place, timeout=30) as client:
        said = "".join(turn["text"] for turn in read_on(client, IMPORT, 1))
    assert "two in the night" in said
    assert "nobody had looked" in said


@pytest.mark.parametrize("path", [at("none"), at("none", "transcript"), at("a\0b"), at("")])
def test_a_call_that_is_not_there_is_not_found(client: httpx.Client, path: str) -> None:
    problem(client.get(path), 404)


def test_any_id_that_a_recorder_gives_can_be_asked_for(
    serving: Serving, database: Database, embed: Embed
) -> None:
    ids = [
        "a/b", "/a", "a/", "a//b", "a b", " a", "100%", "%2F", "%00", "é", "会议", "a?b#c", "a+b",
        "a&b=c", "a;b", "a\\b", "\U0001f600", "a/..", 'quo"te', "it's", "transcript",
    ]  # fmt: skip
    with database.transaction() as connection:
        for recording_id in ids:
            add_call(connection, recording_id, [f"I am {recording_id}.", "Yes, you are."])
    embed(*ids)
    with serving() as place, httpx.Client(base_url=place, timeout=30) as client:
        for recording_id in ids:
            call = client.get(at(recording_id))
            assert call.status_code == 200, recording_id
            assert call.json()["recording_id"] == recording_id
            turns = client.get(at(recording_id, "transcript")).json()["turns"]
            assert [turn["text"] for turn in turns] == [f"I am {recording_id}.", "Yes, you are."]
            narrowed = client.get("/api/recordings", params={"recording": recording_id}).json()
            assert [each["recording_id"] for each in narrowed["recordings"]] == [recording_id]


def test_a_meeting_comes_in_and_again_changes_nothing(client: httpx.Client) -> None:
    body = {"source": "night", "external_id": "1", "meeting": NIGHT}
    for outcome in ("imported", "unchanged"):
        answer = client.post("/api/import/meeting", json=body)
        assert answer.status_code == 200, answer.text
        assert answer.json()["recording_id"] == "night-1"
        assert answer.json()["outcome"] == outcome


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"source": "Not a name"}, "source"),
        ({"external_id": "a b"}, "external_id"),
        ({"meeting": {**NIGHT, "recorded_at": "yesterday"}}, "recorded_at"),
        ({"meeting": {**NIGHT, "segments": "none"}}, "segments"),
        ({"meeting": {}}, "title"),
        ({"meeting": []}, "meeting"),
        ({"more": 1}, "more"),
    ],
)
def test_a_meeting_that_is_refused_says_which_field(
    client: httpx.Client, change: dict[str, Any], named: str
) -> None:
    body = {"source": "night", "external_id": "2", "meeting": NIGHT, **change}
    assert named in problem(client.post("/api/import/meeting", json=body), 422)["detail"]


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (b"{", "application/json"),
        (b"", "application/json"),
        (b"\xff\xfe", "application/json"),
        (b"[" * 100_000, "application/json"),
        (json.dumps({"source": "a", "external_id": "b", "meeting": NIGHT}).encode(), "text/plain"),
    ],
)
def test_a_body_that_is_no_json_is_not_understood(
    client: httpx.Client, content: bytes, kind: str
) -> None:
    headers = {"content-type": kind}
    problem(client.post("/api/import/meeting", content=content, headers=headers), 422)


@pytest.mark.parametrize("says_length", [True, False])
def test_a_body_that_is_too_long_is_refused(client: httpx.Client, says_length: bool) -> None:
    length = MOST_BYTES + 1
    body = b" " * length if says_length else (b" " * 2**20 for _ in range(length // 2**20 + 1))
    headers = {"content-type": "application/json"}
    problem(client.post("/api/import/meeting", content=body, headers=headers), 413)


@pytest.mark.parametrize(
    ("secrets", "known"), [(f"ann={SECRET} bob={OTHER}", ["ann"]), (SECRET, ["ann", "any"])]
)
def test_fathom_is_believed_by_the_secret_of_its_name(
    serving: Serving, database: Database, secrets: str, known: list[str]
) -> None:
    settings = {"fathom_webhook_secrets": SecretStr(secrets)}
    with serving(**settings) as place, httpx.Client(base_url=place, timeout=30) as client:

        def send(key: str, headers: dict[str, str], body: bytes) -> httpx.Response:
            return client.post(f"/webhooks/fathom/{key}", headers=headers, content=body)

        for key in known:
            message = signed({**MEETING, "title": key}, webhook_id=f"msg_{key}")
            assert send(key, *message).json() == {"receipt": "taken"}
            assert send(key, *message).json() == {"receipt": "taken_before"}
            told = rows(database, "SELECT title FROM fathom_calls WHERE recording_id = '77'")
            assert told == [(key,)]
            _, body = message
            problem(send(key, {}, body), 401)
            problem(send(key, *signed(secret="whsec_" + "A" * 32)), 401)
            problem(send(key, *signed(b"no meeting", webhook_id=f"none_{key}")), 422)
        if "any" not in known:
            problem(send("any", *signed()), 404)
            problem(send("bob", *signed()), 401)  # by the secret of another name


def test_without_secrets_there_is_no_webhook(client: httpx.Client) -> None:
    headers, body = signed()
    problem(client.post("/webhooks/fathom/ann", headers=headers, content=body), 404)


def test_every_error_is_a_problem_and_every_answer_is_guarded(client: httpx.Client) -> None:
    foreign = {"origin": "https://evil.example.org"}
    answers = [
        (client.get("/api/none"), 404), (client.get("/api/search"), 422),
        (client.post("/api/search"), 405), (client.delete(at(PRICE)), 405),
        (client.get(at("none")), 404), (client.get("/webhooks/none"), 404),
        (client.get("/api/recordings", headers={"host": "evil.example.org"}), 403),
        (client.get("/api/recordings", headers=foreign), 403),
        (client.post("/mcp", headers=foreign), 403),
    ]  # fmt: skip
    for answer, status in answers:
        problem(answer, status)
    fine = [
        client.get(path)
        for path in ("/api/search?q=a", at(PRICE), "/api/openapi.json", "/healthz", "/readyz",
                     "/metrics", "/", "/api/search/")
    ]  # fmt: skip
    for answer in [*fine, *(answer for answer, _ in answers)]:
        assert answer.status_code < 500
        assert set(HEADERS) <= set(answer.headers), answer.url
        assert "server" not in answer.headers


def test_a_question_is_in_no_log(client: httpx.Client, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "embedding_assets")
    caplog.set_level(logging.DEBUG, "uvicorn")
    for path in ("/api/search", "/api/recordings", "/", "/api/search/", "/api/none"):
        for more in ({}, {"mode": "secretmode"}, {"cursor": "secretcursor"}, {"secretname": "a"}):
            client.get(path, params={"q": "secretquestion", "title": "secrettitle", **more})
    client.get(at("secretid"))
    client.post("/api/search", params={"q": "secretquestion"})
    rooms = {"embedding_assets", "uvicorn", "mcp"}
    lines = [r.getMessage() for r in caplog.records if r.name.partition(".")[0] in rooms]
    assert not [line for line in lines if "secret" in line]
    own = [r.getMessage() for r in caplog.records if r.name == "embedding_assets.web"]
    assert any(line.startswith("GET /api/search 200 ") for line in own)
    assert any(line.startswith("GET /api/recordings/{recording_id:path} 404 ") for line in own)
