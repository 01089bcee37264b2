"""Measures the system's health and judges it by the settings; a failure to measure is a finding."""

import contextlib
from dataclasses import replace
from datetime import timedelta

from embedding_assets.engine.database import READ_ONLY, Database, sql
from embedding_assets.engine.errors import ConfigurationError, EmbeddingAssetsError, LockedError
from embedding_assets.engine.transcripts import require_sight
from embedding_assets.health.channels import channels
from embedding_assets.health.configuration import Expected
from embedding_assets.health.findings import Health
from embedding_assets.health.judging import Thresholds, examine, unreadable
from embedding_assets.health.surroundings import surroundings
from embedding_assets.server.connections import open_database
from embedding_assets.settings import Settings
from embedding_assets.wiring import budget, build_embedder, chunk_settings, fathom_keys


def thresholds(settings: Settings) -> Thresholds:
    """The thresholds of the settings."""
    return Thresholds(
        dead_letters_warning=settings.health_dead_letters_warning,
        dead_letters_critical=settings.health_dead_letters_critical,
        pending_warning=settings.health_pending_warning,
        pending_critical=settings.health_pending_critical,
        quiet_warning=timedelta(hours=settings.health_quiet_hours_warning),
        quiet_critical=timedelta(hours=settings.health_quiet_hours_critical),
        completion_warning=settings.health_completion_warning,
        stale_claims_warning=settings.health_stale_claims_warning,
    )


def system_health(settings: Settings) -> Health:
    """Reads and judges; a setting that is wrong or a database that is away is a finding too."""
    try:
        with open_database(settings) as database:
            return health_of(settings, database)
    except EmbeddingAssetsError as error:
        health = unreadable(error, setting_error=expected(settings).error)
    return health.with_more(surroundings(settings, None))


def health_of(settings: Settings, database: Database) -> Health:
    """As `system_health`, by a connection that is there."""
    said = expected(settings)
    try:
        if said.error is None:
            said = replace(said, error=_obstacle(database))
        health = examine(database, thresholds(settings), said)
    except EmbeddingAssetsError as error:
        health = unreadable(error, setting_error=said.error)
    return health.with_more(surroundings(settings, database))


def expected(settings: Settings) -> Expected:
    """What the settings say, and what is wrong with them."""
    said = Expected(
        model=None, language=settings.search_language, retention_days=settings.retention_days
    )
    try:
        said = replace(said, fathom_keys=tuple(key.name for key in fathom_keys(settings)))
        said = replace(said, cut_as=chunk_settings(settings).name)
        with contextlib.closing(build_embedder(settings)) as embedder:
            said = replace(said, model=embedder.model)
            most = budget(settings).in_tokens(embedder.price_per_million_tokens)
            said = replace(said, tokens_a_day=most)
    except ConfigurationError as error:
        return replace(said, error=str(error))
    return replace(said, error=next(iter(channels(settings).problems), None))


def _obstacle(database: Database) -> str | None:
    """Why nothing can be done now: no writes, hidden calls, a locked table of the recorder's."""
    try:
        with database.transaction(snapshot=True) as connection:
            if sql.is_read_only(connection):
                return READ_ONLY
            require_sight(connection)
            sql.sees_transcripts(connection)
    except (ConfigurationError, LockedError) as error:
        return str(error)
    return None
