"""That nobody is served who may not ask, and that each sees their own calls, by every way."""

import asyncio
import json
import socket
from collections.abc import Iterator
from typing import Any

import httpx
import psycopg
import pytest
from click.testing import CliRunner
from mcp import Client
from pydantic import SecretStr

from embedding_assets.cli import main
from embedding_assets.engine.database import Database
from embedding_assets.engine.errors import ConfigurationError, InvalidInputError
from embedding_assets.search.access import AccessPolicy, turn_on
from embedding_assets.search.tokens import add_token, revoke_token, tokens
from embedding_assets.web.app import prepare
from embedding_assets.web.readers import networks
from embedding_assets_tests.checkout import ROOT
from embedding_assets_tests.web.conftest import ANN, BOB, CEE, Serving

ROLE = "web_test_reader"
# What each call alone says or is called; Ann may see the first only.
ANNS, BOBS, CEES = "walrus", "depot", "zebrafish"
QUESTIONS = ("walrus", "depot disk full", "zebrafish", "what was said?")


def bearer(token: str) -> dict[str, str]:
    return {"authorization": f"Bearer {token}"}


def everything(place: str, headers: dict[str, str]) -> str:
    """All that a reader gets by any way, as one text."""
    told = []
    ids = ("zoom-price", "tests-import", "tests-hostile")
    with httpx.Client(base_url=place, headers=headers, timeout=30) as client:
        for mode in ("hybrid", "semantic", "keyword"):
            for q in QUESTIONS:
                found = client.get("/api/search", params={"q": q, "mode": mode, "context": 5})
                assert found.status_code == 200, found.text
                told.append(found.text)
        pages = ["/", "/calls", "/api/recordings", "/status", "/metrics"]
        for recording_id in ids:
            pages += [
                f"/api/recordings/{recording_id}", f"/api/recordings/{recording_id}/transcript",
                f"/calls/{recording_id}", f"/calls/{recording_id}?at=0:00:01",
                f"/api/search?q=said&recording={recording_id}",
            ]  # fmt: skip
        for person in (ANN, BOB, CEE):
            pages.append(f"/api/recordings?person={person}")
        told += [client.get(page).text for page in pages]
        told += [client.get("/results", params={"person": BOB}).text]
    asyncio.run(_by_agent(place, headers, ids, told))
    return "\n".join(told)


async def _by_agent(
    place: str, headers: dict[str, str], ids: tuple[str, ...], told: list[str]
) -> None:
    async with (
        httpx2_client(headers) as http,
        Client(transport(f"{place}/mcp", http)) as client,
    ):
        answers = [await client.call_tool("search_calls", {"question": q}) for q in QUESTIONS]
        answers.append(await client.call_tool("list_calls", {}))
        for recording_id in ids:
            for tool in ("get_call", "get_transcript"):
                answers.append(await client.call_tool(tool, {"recording_id": recording_id}))
        told += [json.dumps(answer.structured_content) + str(answer.content) for answer in answers]


def httpx2_client(headers: dict[str, str]) -> Any:
    import httpx2  # noqa: PLC0415

    return httpx2.AsyncClient(headers=headers, timeout=30)


def transport(address: str, http: Any) -> Any:
    from mcp.client.streamable_http import streamable_http_client  # noqa: PLC0415

    return streamable_http_client(address, http_client=http)


def test_another_readers_calls_are_found_by_no_way(serving: Serving, database: Database) -> None:
    turn_on(database, AccessPolicy(admins=("boss@example.org",)))
    anns = add_token(database, "ann", ANN)
    bobs = add_token(database, "bob", BOB)
    admins = add_token(database, "boss", "boss@example.org")
    with serving(serve_requests_per_minute=10_000) as place:
        by_ann = everything(place, bearer(anns)).lower()
        assert ANNS in by_ann
        for other in (BOBS, CEES, "tests-import", "tests-hostile", "why the import failed"):
            assert other not in by_ann, other
        by_bob = everything(place, bearer(bobs)).lower()
        assert ANNS in by_bob  # invited
        assert BOBS in by_bob
        assert CEES not in by_bob
        by_admin = everything(place, bearer(admins)).lower()
        assert ANNS in by_admin
        assert CEES in by_admin


def test_somebody_without_a_name_sees_nothing_while_access_is_on(
    serving: Serving, database: Database
) -> None:
    with serving() as place:
        assert ANNS in everything(place, {})
        turn_on(database, AccessPolicy("everyone"))
        seen = everything(place, {}).lower()
    for word in (ANNS, BOBS, CEES, "zoom-price"):
        assert word not in seen


def test_with_tokens_nobody_is_served_without_one(serving: Serving, database: Database) -> None:
    token = add_token(database, "ann-laptop", ANN)
    with serving() as place, httpx.Client(base_url=place) as client:
        for path in ("/api/search?q=walrus", "/api/recordings", "/metrics", "/mcp"):
            refused = client.request("POST" if path == "/mcp" else "GET", path)
            assert refused.status_code == 401, path
            assert refused.headers["www-authenticate"].startswith("Bearer")
            assert "embedding-assets token add" in refused.json()["detail"]
        assert client.get("/healthz").status_code == client.get("/readyz").status_code == 200
        found = client.get("/api/search?q=walrus", headers=bearer(token))
        assert found.json()["hits"]
        assert client.get("/api/search?q=x", headers=bearer(token + "x")).status_code == 401
        assert revoke_token(database, "ann-laptop")
        assert client.get("/api/search?q=walrus", headers=bearer(token)).status_code == 401
        assert not revoke_token(database, "ann-laptop")


def test_signing_in_leads_back_and_signing_out_ends_it(
    serving: Serving, database: Database
) -> None:
    token = add_token(database, "ann", ANN)
    with serving() as place, httpx.Client(base_url=place) as client:
        asked = client.get("/?q=walrus")
        assert asked.headers["location"] == "/sign-in?next=%2F%3Fq%3Dwalrus"
        assert client.get("/results?q=walrus").status_code == 401
        assert client.post("/sign-in", data={"token": "wrong"}).status_code == 401
        there = client.post("/sign-in", data={"token": token, "next": "/?q=walrus"})
        assert there.headers["location"] == "/?q=walrus"
        cookie = there.headers["set-cookie"].lower()
        assert "httponly" in cookie
        assert "samesite=lax" in cookie
        assert "walrus" in client.get("/?q=walrus").text
        for elsewhere in ("https://evil.example/", "//evil.example/", "/\\evil.example", "x"):
            there = client.post("/sign-in", data={"token": token, "next": elsewhere})
            assert there.headers["location"] == "/"
        # A cookie comes along by itself: it must not bring calls in.
        body = {"source": "s", "external_id": "1", "meeting": {"segments": []}}
        assert client.post("/api/import/meeting", json=body).status_code == 403
        client.post("/sign-out")
        assert client.get("/").status_code == 303


def test_the_cookie_is_kept_from_unencrypted_connections_to_other_machines(
    serving: Serving, database: Database
) -> None:
    token = add_token(database, "ann", ANN)
    with serving(serve_hosts="calls.example.org") as place:
        there = httpx.post(f"{place}/sign-in", data={"token": token})
        assert "secure" not in there.headers["set-cookie"].lower()
        by_name = {"host": "calls.example.org"}
        there = httpx.post(f"{place}/sign-in", data={"token": token}, headers=by_name)
        assert "secure" in there.headers["set-cookie"].lower()


def test_who_comes_through_a_proxy_without_tokens_is_not_taken_for_somebody_on_this_machine(
    serving: Serving, database: Database
) -> None:
    with serving() as place:
        assert httpx.get(f"{place}/api/recordings").status_code == 200
        for name in ("x-forwarded-for", "forwarded", "via", "x-real-ip"):
            asked = httpx.get(f"{place}/api/recordings", headers={name: "203.0.113.9"})
            assert asked.status_code == 401, name
    with serving(serve_hosts="calls.example.org") as place:
        assert httpx.get(f"{place}/api/recordings").status_code == 401


def test_who_may_import_gets_at_no_call_that_is_here_and_not_theirs(
    serving: Serving, database: Database
) -> None:
    turn_on(database, AccessPolicy())
    eve = bearer(add_token(database, "eve", "eve@example.org", may_import=True))
    bob = bearer(add_token(database, "bob", BOB, may_import=True))
    body = {
        "source": "tests",
        "external_id": "import",
        "meeting": {
            "title": "Mine",
            "recorded_by": {"email": "eve@example.org"},
            "segments": [{"speaker": "x", "text": "hello"}],
        },
    }
    with serving() as place, httpx.Client(base_url=place) as client:
        refused = client.post("/api/import/meeting", json=body, headers=eve)
        assert refused.status_code == 422
        assert "no reader of the call" in refused.json()["detail"]
        for path in ("", "/transcript"):
            asked = client.get(f"/api/recordings/tests-import{path}", headers=eve)
            assert asked.status_code == 404
        assert client.post("/api/import/meeting", json=body, headers=bob).status_code == 200
        # What one brings, one may bring again.
        own = {**body, "external_id": "new"}
        outcomes = [
            client.post("/api/import/meeting", json=own, headers=eve).json()["outcome"]
            for _ in range(2)
        ]
        assert outcomes == ["imported", "unchanged"]


def test_a_body_is_not_read_from_who_may_not_bring_it(serving: Serving, database: Database) -> None:
    add_token(database, "ann", ANN)

    with serving() as place:
        host, _, port = place.removeprefix("http://").rpartition(":")
        with socket.create_connection((host, int(port)), timeout=20) as client:
            # The body that is announced never comes.
            client.sendall(
                f"POST /api/import/meeting HTTP/1.1\r\nHost: {host}:{port}\r\n"
                "Content-Type: application/json\r\nContent-Length: 9000000\r\n\r\n".encode()
            )
            assert client.recv(100).startswith(b"HTTP/1.1 401")


def test_a_token_imports_only_if_it_may_and_its_reader_sees_what_it_brought(
    serving: Serving, database: Database
) -> None:
    reads = add_token(database, "reads", ANN)
    brings = add_token(database, "brings", CEE, may_import=True)
    body = {
        "source": "dialpad",
        "external_id": "7",
        "meeting": {"title": "t", "segments": [{"speaker": "A", "text": "Hello there."}]},
    }
    with serving() as place, httpx.Client(base_url=place) as client:
        refused = client.post("/api/import/meeting", json=body, headers=bearer(reads))
        assert refused.status_code == 403
        assert "--may-import" in refused.json()["detail"]
        taken = client.post("/api/import/meeting", json=body, headers=bearer(brings))
        assert taken.json()["outcome"] == "imported"
    with database.transaction() as connection:
        found = connection.execute(
            "SELECT imported_by FROM call_details WHERE recording_id = 'dialpad-7'"
        ).fetchone()
    assert found == (CEE,)


def test_a_proxy_names_the_reader_from_where_it_is_trusted_and_from_nowhere_else(
    serving: Serving, database: Database
) -> None:
    turn_on(database, AccessPolicy())
    named = {"x-forwarded-email": ANN.upper()}
    with serving(serve_proxy_header="X-Forwarded-Email") as place:
        found = httpx.get(f"{place}/api/search?q=walrus", headers=named)
        assert [hit["recording_id"] for hit in found.json()["hits"]] == ["zoom-price"] * len(
            found.json()["hits"]
        )
        assert found.json()["hits"]
        assert httpx.get(f"{place}/api/search?q=walrus").status_code == 401
        twice = [("x-forwarded-email", ANN), ("x-forwarded-email", CEE)]
        assert httpx.get(f"{place}/api/search?q=walrus", headers=twice).status_code == 401
        for nobody in ("*", "team:sales", ""):
            answer = httpx.get(
                f"{place}/api/search?q=walrus", headers={"x-forwarded-email": nobody}
            )
            assert answer.status_code == 401 or answer.json()["hits"] == []
    with serving(
        serve_proxy_header="X-Forwarded-Email", serve_trusted_proxies="10.0.0.0/8"
    ) as place:
        assert httpx.get(f"{place}/api/search?q=walrus", headers=named).status_code == 401


def test_each_token_has_a_pace_of_its_own(serving: Serving, database: Database) -> None:
    first, second = add_token(database, "first", ANN), add_token(database, "second", ANN)
    with serving(serve_requests_per_minute=5) as place, httpx.Client(base_url=place) as client:
        answers = [client.get("/api/recordings", headers=bearer(first)) for _ in range(7)]
        assert [each.status_code for each in answers[:5]] == [200] * 5
        assert answers[-1].status_code == 429
        assert 1 <= int(answers[-1].headers["retry-after"]) <= 60
        assert client.get("/api/recordings", headers=bearer(second)).status_code == 200


def test_other_hosts_and_other_sites_are_refused(serving: Serving, database: Database) -> None:
    token = bearer(add_token(database, "ann", ANN))
    with serving(serve_hosts="calls.example.org:8443") as place:
        port = place.rpartition(":")[2]
        for host in ("127.0.0.1", f"localhost:{port}", f"[::1]:{port}", "CALLS.example.org"):
            known = {"host": host, **token}
            assert httpx.get(f"{place}/api/recordings", headers=known).status_code == 200
        for host in ("evil.example", f"evil.example:{port}", "127.0.0.1.evil.example", "[", ""):
            for path in ("/", "/api/recordings", "/mcp", "/static/page.css"):
                refused = httpx.get(f"{place}{path}", headers={"host": host})
                assert refused.status_code in {400, 403}, (host, path)
        assert httpx.get(f"{place}/healthz", headers={"host": "10.1.2.3"}).status_code == 200
        assert httpx.get(f"{place}/metrics", headers={"host": "evil.example"}).status_code == 403
        by_address = {"host": "10.1.2.3:9090", **token}
        assert httpx.get(f"{place}/metrics", headers=by_address).status_code == 200
        for origin in ("https://evil.example", "null", "http://127.0.0.1.evil.example", "http://["):
            for path in ("/api/import/meeting", "/sign-in", "/mcp"):
                refused = httpx.post(f"{place}{path}", headers={"origin": origin}, json={})
                assert refused.status_code == 403, (origin, path)
        same = httpx.post(f"{place}/sign-in", headers={"origin": place}, data={"token": "x"})
        assert same.status_code == 401


def test_it_listens_beyond_this_machine_with_tokens_and_names_only(
    serving: Serving, database: Database
) -> None:
    def listen(host: str, **settings: Any) -> None:
        prepare(serving.settings(**settings), host, 0, lambda _: None)

    with pytest.raises(ConfigurationError, match="token add"):
        listen("0.0.0.0", serve_hosts="calls.example.org")  # noqa: S104
    add_token(database, "ann", ANN)
    with pytest.raises(ConfigurationError, match="SERVE_HOSTS"):
        listen("0.0.0.0")  # noqa: S104
    with pytest.raises(ConfigurationError, match="SERVE_TRUSTED_PROXIES"):
        listen("127.0.0.1", serve_trusted_proxies="everywhere")
    with serving("0.0.0.0", serve_hosts="calls.example.org") as place:  # noqa: S104
        asked = httpx.get(f"{place}/api/recordings", headers={"host": "calls.example.org"})
        assert asked.status_code == 401
        # The last token is gone, and nobody comes in for that.
        revoke_token(database, "ann")
        asked = httpx.get(f"{place}/api/recordings", headers={"host": "calls.example.org"})
        assert asked.status_code == 401


def test_a_port_that_is_taken_is_named(serving: Serving) -> None:
    with serving() as place, pytest.raises(ConfigurationError, match="--port"):
        prepare(serving.settings(), "127.0.0.1", int(place.rpartition(":")[2]), lambda _: None)


def test_networks_take_addresses() -> None:
    assert [str(each) for each in networks("10.0.0.7 fd00::/8")] == ["10.0.0.7/32", "fd00::/8"]


def test_of_a_token_only_a_hash_is_kept(database: Database) -> None:
    token = add_token(database, "ann", f" {ANN.upper()} ")
    assert len(token) > 40
    assert tokens(database)[0].reader == ANN
    with database.transaction() as connection:
        kept = connection.execute("SELECT access_tokens::text FROM access_tokens").fetchone()
    assert token not in str(kept)
    for name, reader in (("ann", ANN), ("Ann", ANN), ("", ANN), ("x", " "), ("x", "team:sales")):
        with pytest.raises(InvalidInputError):
            add_token(database, name, reader)


def test_the_command_adds_lists_and_revokes_tokens(
    database: Database, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DATABASE_URL", database_url)

    def run(*arguments: str, code: int = 0) -> str:
        result = CliRunner().invoke(main, arguments)
        assert result.exit_code == code, result.output
        return result.output

    assert "access is off" in run("token", "add", "ann", "--reader", ANN)
    assert "ea_" in run("token", "add", "zapier", "--reader", BOB, "--may-import")
    listed = json.loads(run("token", "list", "--json"))
    assert [(each["name"], each["reader"], each["may_import"]) for each in listed] == [
        ("ann", ANN, False), ("zapier", BOB, True),
    ]  # fmt: skip
    run("token", "revoke", "ann")
    assert "no token" in run("token", "revoke", "ann", code=1)
    assert "there is a token zapier" in run("token", "add", "zapier", "--reader", ANN, code=1)


@pytest.fixture
def search_role(database: Database, database_url: str) -> Iterator[str]:
    """The URL of a role with the rights that deploy/grants.sql gives to those who search."""
    grants = (ROOT / "deploy" / "grants.sql").read_text()
    start = grants.index("GRANT SELECT ON transcript_chunks, published_recordings")
    end = grants.index("GRANT EXECUTE ON FUNCTION nearest_chunk_vectors")
    granted = grants[start:end].replace("embedding_search, embedding_worker", ROLE)
    with database.transaction() as connection:
        connection.execute(f"DROP ROLE IF EXISTS {ROLE}")  # type: ignore[arg-type]
        connection.execute(f"CREATE ROLE {ROLE} LOGIN")  # type: ignore[arg-type]
        connection.execute(granted.replace("embedding_search", ROLE))  # type: ignore[arg-type]
        connection.execute(f"GRANT SELECT ON embedding_assets_version TO {ROLE}")  # type: ignore[arg-type]
    yield database_url.replace("postgres@", f"{ROLE}@", 1)
    with database.transaction() as connection:
        connection.execute(f"DROP OWNED BY {ROLE}; DROP ROLE {ROLE}")  # type: ignore[arg-type]


def test_the_role_that_searches_serves_and_cannot_read_the_tokens(
    serving: Serving, database: Database, search_role: str
) -> None:
    turn_on(database, AccessPolicy())
    token = add_token(database, "ann", ANN)
    with (
        serving(database_url=SecretStr(search_role)) as place,
        httpx.Client(base_url=place, headers=bearer(token)) as client,
    ):
        assert client.get("/api/search?q=walrus").json()["hits"]
        listed = client.get("/api/recordings").json()["recordings"]
        assert [each["recording_id"] for each in listed] == ["zoom-price"]
        assert client.get("/api/recordings/zoom-price/transcript").json()["turns"]
        assert client.get("/api/recordings/tests-import/transcript").status_code == 404
        assert "walrus" in client.get("/calls/zoom-price?q=walrus").text
        figures = client.get("/metrics")
        assert figures.status_code == 503
        assert "grants" in figures.json()["detail"]
    with psycopg.connect(search_role) as connection, pytest.raises(psycopg.Error):
        connection.execute("SELECT * FROM access_tokens")
