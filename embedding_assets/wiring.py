"""Puts the engine's parts together as the settings say."""

import contextlib
from collections.abc import Iterator, Sequence
from datetime import timedelta

from sqlalchemy.engine import make_url

from embedding_assets.embedded_postgres import EmbeddedPostgres
from embedding_assets.engine import integrity, queue, transcripts
from embedding_assets.engine.chunking import ChunkSettings
from embedding_assets.engine.database import Connection, Database
from embedding_assets.engine.embedders import Embedder
from embedding_assets.engine.embedding import EmbeddingRun, Lane, Outcome
from embedding_assets.engine.errors import ConfigurationError
from embedding_assets.engine.index_parts import Builder, Policy
from embedding_assets.engine.queue import Claims
from embedding_assets.engine.tokens import MAX_BYTES_PER_TOKEN
from embedding_assets.settings import Settings

APPLICATION_DATABASE = "embedding_assets"
DAGSTER_DATABASE = "dagster"


def embedded_server(settings: Settings) -> EmbeddedPostgres | None:
    """The embedded server, or None when DATABASE_URL names another."""
    return None if settings.database_url else EmbeddedPostgres(settings.home)


def application_url(settings: Settings) -> str:
    """The connection URL of the application's database, for psycopg and psql."""
    if settings.database_url is not None:
        return settings.database_url.get_secret_value()
    return EmbeddedPostgres(settings.home).url(APPLICATION_DATABASE)


def dagster_url(settings: Settings) -> str:
    """The SQLAlchemy URL of Dagster's storage: DAGSTER_PG_URL, or its database beside ours."""
    if settings.dagster_pg_url is not None:
        return settings.dagster_pg_url.get_secret_value()
    beside = make_url(application_url(settings)).set(
        drivername="postgresql+psycopg2", database=DAGSTER_DATABASE
    )
    return beside.render_as_string(hide_password=False)


@contextlib.contextmanager
def open_database(settings: Settings) -> Iterator[Database]:
    """A connection to the application's database, with the embedded server started if need be.

    Raises:
        ConfigurationError: the schema is missing or old.
    """
    server = embedded_server(settings)
    if server is not None:
        server.ensure_running()
    with Database(application_url(settings)) as database:
        database.check_schema()
        yield database


def index_builder(settings: Settings) -> Builder:
    """What builds the vector index, over a connection that no proxy pools."""
    url = settings.index_database_url
    return Builder(
        application_url(settings) if url is None else url.get_secret_value(),
        memory=settings.index_build_memory,
        workers=settings.index_build_workers,
    )


def index_policy(settings: Settings) -> Policy:
    """When parts of the vector index are built."""
    return Policy(tail_rows=settings.index_tail_rows, largest=settings.index_part_rows)


def chunk_settings(settings: Settings) -> ChunkSettings:
    """How transcripts are cut, whatever the model."""
    return ChunkSettings(
        target=settings.chunk_target_tokens,
        overlap=settings.chunk_overlap_tokens,
        maximum=settings.chunk_max_tokens,
    )


def build_embedder(settings: Settings) -> Embedder:
    """The configured model, checked against the chunk settings; loading waits for the first use.

    Raises:
        ConfigurationError: a setting is missing or wrong, or chunks may be too long for the model.
    """
    embedder = _embedder(settings)
    longest = chunk_settings(settings).maximum * MAX_BYTES_PER_TOKEN
    if longest > embedder.limits.max_input_tokens:
        raise ConfigurationError(
            f"a chunk of CHUNK_MAX_TOKENS={settings.chunk_max_tokens} can come to {longest} tokens"
            f" of {embedder.model}, which takes {embedder.limits.max_input_tokens}: lower"
            " CHUNK_MAX_TOKENS, or raise EMBEDDING_MAX_INPUT_TOKENS if the model takes more"
        )
    return embedder


def _embedder(settings: Settings) -> Embedder:
    # Imported here: each brings libraries that take a while and that the other does not need.
    if settings.embedding_provider == "local":
        if settings.embedding_model or settings.embedding_dimensions:
            raise ConfigurationError(
                "EMBEDDING_MODEL and EMBEDDING_DIMENSIONS are set, but EMBEDDING_PROVIDER is local,"
                " which has one model: remove them, or set EMBEDDING_PROVIDER=openai"
            )
        from embedding_assets.engine.embedders.local import LocalEmbedder  # noqa: PLC0415

        return LocalEmbedder(concurrency=settings.embedding_concurrency)
    from embedding_assets.engine.embedders.openai import OpenAIEmbedder  # noqa: PLC0415

    key = settings.openai_api_key
    return OpenAIEmbedder(
        api_key="" if key is None else key.get_secret_value(),
        base_url=settings.openai_base_url,
        model=settings.embedding_model or "text-embedding-3-small",
        dimensions=settings.embedding_dimensions,
        price_per_million_tokens=settings.embedding_price_per_million_tokens,
        max_input_tokens=settings.embedding_max_input_tokens,
        concurrency=settings.embedding_concurrency,
    )


class Session:
    """One run's work: everything it needs, opened; what it still holds at the end is given back."""

    def __init__(self, database: Database, claims: Claims, run: EmbeddingRun) -> None:
        self._database = database
        self._claims = claims
        self._run = run

    @property
    def dead_runs(self) -> frozenset[str]:
        """Runs that turned out to have died with claims in their hands."""
        return frozenset(self._claims.dead_runs)

    def discover(self) -> set[str]:
        """Queues what change tracking missed; gives the ids of all recordings there are."""
        queue.reconcile(self._database)
        return self._database.retrying(transcripts.source_ids)

    def take_over(self, dead_run: str | None) -> None:
        """Frees what a run that has ended still holds."""
        if dead_run is not None:
            self._claims.take_over(dead_run)

    def due(self, time_budget: timedelta | None = None) -> Iterator[Outcome]:
        """Embeds what is due until nothing is, or until the time budget is spent."""
        return self._run.embed(self._claims.due(time_budget=time_budget))

    def these(self, recording_ids: Sequence[str]) -> Iterator[Outcome]:
        """Embeds these recordings in whatever state they are."""
        return self._run.embed(self._claims.these(recording_ids))

    def retry(self, recording_ids: Sequence[str], *, force: bool) -> Iterator[Outcome]:
        """Embeds those of these recordings that failed, with all their attempts before them."""

        def make_due(connection: Connection) -> list[str]:
            if force:
                integrity.prepare_mending(connection, recording_ids)
            return queue.retry(connection, recording_ids, force=force)

        queued = self._database.retrying(make_due)
        return self.these(queued)

    def dead_letters(self) -> Iterator[Outcome]:
        """Gives the oldest dead letters another try."""
        return self._run.embed(self._claims.dead_letters())


@contextlib.contextmanager
def open_session(
    settings: Settings, run_id: str, *, lane: Lane, insert_batch: int | None
) -> Iterator[Session]:
    """Opens what one run needs.

    Raises:
        ConfigurationError: a setting is wrong or missing, or the schema is.
    """
    embedder = build_embedder(settings)
    with open_database(settings) as database:
        claims = Claims(database, run_id, settings.lease)
        run = EmbeddingRun(
            database,
            embedder,
            chunk_settings(settings),
            claims,
            lane=lane,
            insert_batch=insert_batch,
        )
        yield Session(database, claims, run)
