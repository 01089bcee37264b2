"""What is paid: attempts against the server's count, an unchanged corpus, one edited sentence."""

from random import Random

from benchmarks.measuring import Figure, Installation, installation
from embedding_assets_tests.loopback_api import Fault, LoopbackAPI

RECORDINGS = 100
LONG = 5
DIMENSIONS = 256
EDITS = 20
WORKER = "benchmarks.worker"


def measure() -> list[Figure]:
    """All figures of this module."""
    with installation() as there, LoopbackAPI(dimensions=DIMENSIONS) as api:
        there.environment.update(
            EMBEDDING_PROVIDER="openai",
            OPENAI_API_KEY="benchmark",
            OPENAI_BASE_URL=api.base_url,
            EMBEDDING_DIMENSIONS=str(DIMENSIONS),
            EMBEDDING_PRICE_PER_MILLION_TOKENS="0.02",
        )
        there.load(RECORDINGS, long=LONG)
        # Some requests fail on the way: what they cost counts, too.
        api.faults = [Fault(status=500, times=3), Fault(status=429, times=3, after=2)]
        there.command("run")
        figures = _reconciled(there, api)
        before = api.stats.requests
        there.command("run")
        figures.append(
            Figure(
                "requests for an unchanged corpus",
                api.stats.requests - before,
                "requests",
                aim="0",
                reached=api.stats.requests == before,
            )
        )
        figures.append(_edits(there))
    return figures


def _reconciled(there: Installation, api: LoopbackAPI) -> list[Figure]:
    with there.connect() as connection:
        row = connection.execute(
            "SELECT sum(requests)::int, sum(tokens)::int, sum(cost_usd)::float FROM"
            " embedding_attempts"
        ).fetchone()
    assert row is not None
    requests, tokens, cost = row
    return [
        _same("requests in embedding_attempts", requests, api.stats.requests),
        _same("tokens in embedding_attempts", tokens, api.stats.tokens),
        _same("US cents in embedding_attempts", cost * 100, api.stats.tokens * 0.02 / 1e4),
    ]


def _same(what: str, value: float, counted: float) -> Figure:
    ratio = value / counted
    return Figure(what, value, "", ratio, "the server's count", "1", abs(ratio - 1) < 1e-9)


def _edits(there: Installation) -> Figure:
    """Chunks embedded for one sentence added to a call of three hours, at places by chance."""
    draw = Random(0)
    with there.connect() as connection:
        ids = connection.execute(
            "SELECT recording_id, max(position) FROM fathom_transcripts GROUP BY 1"
            " ORDER BY count(*) DESC LIMIT %s",
            [LONG],
        ).fetchall()
        embedded = []
        for _ in range(EDITS):
            recording_id, last = draw.choice(ids)
            connection.execute(
                "UPDATE fathom_transcripts SET edited_text = coalesce(edited_text, text)"
                " || ' This was added later.' WHERE recording_id = %s AND position = %s",
                [recording_id, draw.randint(0, last)],
            )
            there.python("-m", WORKER)  # which starts sooner than a run
            row = connection.execute(
                "SELECT embedded FROM embedding_attempts ORDER BY finished_at DESC LIMIT 1"
            ).fetchone()
            assert row is not None
            embedded.append(row[0])
    return Figure(
        f"chunks embedded for a sentence added to a three-hour call, mean of {EDITS}",
        sum(embedded) / len(embedded),
        "chunks",
        aim="those that hold it",
        note=f"at most {max(embedded)}",
    )
