"""Builds the engine's parts from the settings.

Functions import what they build: a short command needs few parts, and each takes a while to load.
"""

from __future__ import annotations

import contextlib
import re
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from embedding_assets.engine.budget import Budget, Spending
from embedding_assets.engine.chunking import ChunkSettings
from embedding_assets.engine.errors import ConfigurationError
from embedding_assets.engine.redaction.redactor import parse_redaction
from embedding_assets.engine.tokens import MAX_BYTES_PER_TOKEN
from embedding_assets.server.connections import open_database, owner_url

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from embedding_assets.engine.batches import BatchLane
    from embedding_assets.engine.database import Database
    from embedding_assets.engine.embedders import Embedder
    from embedding_assets.engine.in_flight import Lane
    from embedding_assets.engine.session import Session
    from embedding_assets.engine.vector_index import Builder, Policy
    from embedding_assets.recorders.sync.keys import Key
    from embedding_assets.recorders.sync.options import Options
    from embedding_assets.recorders.webhooks import FathomWebhooks
    from embedding_assets.search.access import AccessPolicy
    from embedding_assets.settings import Settings


def index_builder(settings: Settings) -> Builder:
    """What builds the vector index, over a connection that no proxy pools."""
    from embedding_assets.engine.vector_index import Builder  # noqa: PLC0415

    return Builder(
        owner_url(settings),
        memory=settings.index_build_memory,
        workers=settings.index_build_workers,
    )


def index_policy(settings: Settings) -> Policy:
    """When parts of the vector index are built."""
    from embedding_assets.engine.vector_index import Policy  # noqa: PLC0415

    return Policy(tail_rows=settings.index_tail_rows, largest=settings.index_part_rows)


def fathom_keys(settings: Settings) -> tuple[Key, ...]:
    """The keys of Fathom's API; none where Fathom is not synchronised.

    Raises:
        ConfigurationError: FATHOM_API_KEYS is not of its form.
    """
    keys = settings.fathom_api_keys
    if keys is None:
        return ()
    from embedding_assets.recorders.sync.keys import parse_keys  # noqa: PLC0415

    return parse_keys(keys.get_secret_value())


def fathom_webhooks(settings: Settings) -> FathomWebhooks:
    """What receives Fathom's deliveries; nothing, where there are no secrets.

    Raises:
        ConfigurationError: a secret is none.
    """
    from embedding_assets.recorders.webhooks import FathomWebhooks  # noqa: PLC0415

    secrets = settings.fathom_webhook_secrets
    return FathomWebhooks(secrets.get_secret_value() if secrets else "")


def fathom_options(settings: Settings) -> Options:
    """How Fathom is synchronised."""
    from embedding_assets.recorders.sync.options import Options  # noqa: PLC0415

    return Options(
        base_url=settings.fathom_base_url,
        since=settings.fathom_since,
        reread=timedelta(days=settings.fathom_reread_days),
        listing_hour=settings.fathom_listing_hour,
        withdraws=settings.fathom_gone_meetings == "withdraw",
    )


def access_policy(settings: Settings) -> AccessPolicy:
    """How readers are derived."""
    from embedding_assets.search.access import AccessPolicy  # noqa: PLC0415

    admins = re.findall(r"[^\s,]+", settings.access_admins)
    return AccessPolicy(settings.access_policy, settings.access_externals, tuple(admins))


def chunk_settings(settings: Settings) -> ChunkSettings:
    """How transcripts are cut, whatever the model.

    Raises:
        ConfigurationError: the sizes do not fit together, or REDACT names what is not known.
    """
    return ChunkSettings(
        target=settings.chunk_target_tokens,
        overlap=settings.chunk_overlap_tokens,
        maximum=settings.chunk_max_tokens,
        redaction=parse_redaction(settings.redact, settings.redact_region),
    )


def _spending(settings: Settings, embedder: Embedder, database: Database) -> Spending | None:
    most = budget(settings).in_tokens(embedder.price_per_million_tokens)
    return None if most is None else Spending(database, most)


def budget(settings: Settings) -> Budget:
    """What one day may cost."""
    return Budget(settings.embedding_daily_budget_usd, settings.embedding_daily_budget_tokens)


def build_embedder(settings: Settings, *, is_for_search: bool = False) -> Embedder:
    """The configured model, checked against the chunk settings; loading waits for the first use.

    For a search it asks once, and waits no longer than the person who searches.

    Raises:
        ConfigurationError: a setting is missing or wrong, or chunks may be too long for the model.
    """
    embedder = _embedder(settings, is_for_search=is_for_search)
    longest = chunk_settings(settings).maximum * MAX_BYTES_PER_TOKEN
    if longest > embedder.limits.max_input_tokens:
        raise ConfigurationError(
            f"a chunk of CHUNK_MAX_TOKENS={settings.chunk_max_tokens} can come to {longest} tokens"
            f" of {embedder.model}, which takes {embedder.limits.max_input_tokens}: lower"
            " CHUNK_MAX_TOKENS, or raise EMBEDDING_MAX_INPUT_TOKENS if the model takes more"
        )
    return embedder


def embedder_of(settings: Settings, model: str) -> Embedder:
    """The model of this name (`provider/model/dimensions`), with the settings' key and server.

    Raises:
        ConfigurationError: the settings lack what it needs.
    """
    provider, _, rest = model.partition("/")
    name, _, dimensions = rest.rpartition("/")
    is_local = provider == "local"
    return _embedder(
        settings.model_copy(
            update={
                "embedding_provider": provider,
                "embedding_model": None if is_local else name,
                "embedding_dimensions": None if is_local else int(dimensions),
            }
        )
    )


def _embedder(settings: Settings, *, is_for_search: bool = False) -> Embedder:
    if settings.embedding_provider == "local":
        if settings.embedding_model or settings.embedding_dimensions:
            raise ConfigurationError(
                "EMBEDDING_MODEL and EMBEDDING_DIMENSIONS are set, but EMBEDDING_PROVIDER is local,"
                " which has one model: remove them, or set EMBEDDING_PROVIDER=openai"
            )
        from embedding_assets.engine.embedders.local import LocalEmbedder  # noqa: PLC0415

        return LocalEmbedder(
            # A question takes milliseconds: one processor answers hundreds a second.
            concurrency=1 if is_for_search else settings.embedding_concurrency,
            cache=settings.home / "openvino",
        )
    from embedding_assets.engine.embedders.openai import (  # noqa: PLC0415
        OpenAIEmbedder,
        Retries,
    )
    from embedding_assets.engine.pace import Ceilings  # noqa: PLC0415

    key = settings.openai_api_key
    patience: dict[str, Any] = {}
    if is_for_search:
        import openai  # noqa: F401, PLC0415  (here, not while somebody waits)

        seconds = settings.search_embedding_seconds
        once = Retries(attempts=1, first_wait=seconds / 4, longest_wait=seconds)
        patience = {"timeout": seconds, "retries": once}
    return OpenAIEmbedder(
        api_key="" if key is None else key.get_secret_value(),
        base_url=settings.openai_base_url,
        model=settings.embedding_model or "text-embedding-3-small",
        dimensions=settings.embedding_dimensions,
        price_per_million_tokens=settings.embedding_price_per_million_tokens,
        max_input_tokens=settings.embedding_max_input_tokens,
        concurrency=settings.embedding_concurrency,
        **patience,
        ceilings=Ceilings(
            tokens_per_minute=settings.embedding_tokens_per_minute,
            requests_per_minute=settings.embedding_requests_per_minute,
            request_tokens=settings.embedding_max_request_tokens,
        ),
    )


@contextlib.contextmanager
def batch_lane(settings: Settings, database: Database) -> Iterator[BatchLane]:
    """The lane of batches.

    Raises:
        ConfigurationError: the provider has no batches, or a setting is wrong or missing.
    """
    from embedding_assets.engine.batches import BatchLane, BatchTimes  # noqa: PLC0415
    from embedding_assets.engine.embedders.openai import OpenAIEmbedder  # noqa: PLC0415

    embedder = build_embedder(settings)
    if not isinstance(embedder, OpenAIEmbedder):
        raise ConfigurationError(
            "a batch needs EMBEDDING_PROVIDER=openai: unset BATCH_FROM_TOKENS, and run without"
            " --batch"
        )
    with contextlib.closing(embedder):
        yield BatchLane(
            database,
            embedder,
            chunk_settings(settings),
            times=BatchTimes(deadline=timedelta(hours=settings.batch_deadline_hours)),
            spending=_spending(settings, embedder, database),
        )


@contextlib.contextmanager
def batch_file_deleter(settings: Settings) -> Iterator[Callable[[str], None] | None]:
    """What deletes a file at the provider of batches; None without such a provider."""
    if settings.embedding_provider != "openai":
        yield None
        return
    from embedding_assets.engine.embedders.openai import OpenAIEmbedder  # noqa: PLC0415
    from embedding_assets.engine.embedders.openai_batches import BatchAPI  # noqa: PLC0415

    with contextlib.closing(build_embedder(settings)) as embedder:
        yield BatchAPI(embedder).delete_file if isinstance(embedder, OpenAIEmbedder) else None


@contextlib.contextmanager
def open_session(
    settings: Settings, run_id: str, *, lane: Lane, insert_batch: int | None
) -> Iterator[Session]:
    """Opens what one run needs.

    Raises:
        ConfigurationError: a setting is wrong or missing, or the schema is.
    """
    from embedding_assets.engine.embedding import EmbeddingRun  # noqa: PLC0415
    from embedding_assets.engine.queue import Claims  # noqa: PLC0415
    from embedding_assets.engine.session import Session  # noqa: PLC0415

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
            patience=timedelta(seconds=settings.worker_seconds),
            spending=_spending(settings, embedder, database),
        )
        yield Session(database, embedder, claims, run)
