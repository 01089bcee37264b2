"""Every environment variable, typed, in one place."""

import re
from datetime import date, timedelta
from functools import cached_property
from io import StringIO
from pathlib import Path
from typing import Literal

from dotenv import dotenv_values
from pydantic import Field, SecretStr
from pydantic_settings import (
    BaseSettings,
    InitSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

_CHECKOUT = Path(__file__).resolve().parents[1]
PROJECT_ROOT = _CHECKOUT if (_CHECKOUT / "workspace.yaml").exists() else Path.cwd()
ENV_FILE = PROJECT_ROOT / ".env"

# The markers around what `embedding-assets init` writes into .env for the `dagster` commands.
BLOCK_START = "# --- written by `embedding-assets init`; your own settings go below the block ---"
BLOCK_END = "# --- end of what `embedding-assets init` wrote ---"
FATHOM_URL = "https://api.fathom.ai/external/v1"
BLOCK = re.compile(f"{re.escape(BLOCK_START)}.*?{re.escape(BLOCK_END)}\n?", re.DOTALL)


class Settings(BaseSettings):
    """Read from the environment first, then from a person's lines of `.env` in the project's root.

    Raises:
        pydantic.ValidationError: a value is of the wrong type or out of range.
    """

    model_config = SettingsConfigDict(env_ignore_empty=True, hide_input_in_errors=True)

    embedding_assets_home: Path = PROJECT_ROOT / ".local"
    database_url: SecretStr | None = None
    # Of a role that may write the recorders' tables, where that of DATABASE_URL may not.
    source_database_url: SecretStr | None = None
    dagster_pg_url: SecretStr | None = None
    # The instance configuration that `init` puts in force; deploy/ has others.
    dagster_yaml: Path = PROJECT_ROOT / "dagster.yaml"

    # Fathom's API keys, each with a name: ann=KEY bob=KEY
    fathom_api_keys: SecretStr | None = None
    fathom_base_url: str = FATHOM_URL
    # The first day whose meetings are read.
    fathom_since: date = date(2020, 1, 1)
    # For how many days a meeting is read again, as its transcript may come late or be edited.
    fathom_reread_days: int = Field(default=7, ge=1, le=366)
    fathom_listing_hour: int = Field(default=3, ge=0, le=23)  # UTC
    # What becomes of calls that are deleted at the recorder.
    fathom_gone_meetings: Literal["keep", "withdraw"] = "keep"
    fathom_webhook_secrets: SecretStr | None = None

    # Who may see a call, once access is on: see `embedding-assets access on`.
    access_policy: Literal["owner", "invitees", "team", "everyone"] = "invitees"
    access_externals: bool = False
    access_admins: str = ""  # addresses with spaces between them

    # Calls older than this are forgotten, every night; None: none ever is.
    retention_days: int | None = Field(default=None, ge=1)

    embedding_provider: Literal["local", "openai"] = "local"
    embedding_model: str | None = None
    embedding_dimensions: int | None = Field(default=None, ge=1, le=16_000)
    embedding_price_per_million_tokens: float | None = Field(default=None, ge=0)
    embedding_max_input_tokens: int | None = Field(default=None, ge=1)
    embedding_concurrency: int | None = Field(default=None, ge=1, le=64)
    # What this process sends at most, though the server may allow more.
    embedding_tokens_per_minute: int | None = Field(default=None, ge=1)
    embedding_requests_per_minute: int | None = Field(default=None, ge=1)
    embedding_max_request_tokens: int | None = Field(default=None, ge=1)
    # What one day (UTC) may cost at most; a run takes no recording that would pass it.
    embedding_daily_budget_usd: float | None = Field(default=None, ge=0)
    embedding_daily_budget_tokens: int | None = Field(default=None, ge=0)
    # From how many tokens due on they go into a batch at half price, which takes up to a day; 0:
    # never. Without it, from what the account's own limit lets through in more than a day.
    batch_from_tokens: int | None = Field(default=None, ge=0)
    # For how long no worker sends what is in a batch.
    batch_deadline_hours: float = Field(default=25.0, gt=0)
    openai_api_key: SecretStr | None = None
    openai_base_url: str | None = None

    chunk_target_tokens: int = Field(default=330, ge=16)
    chunk_overlap_tokens: int = Field(default=50, ge=0)
    chunk_max_tokens: int = Field(default=460, ge=16)

    # What is replaced before anything is embedded, shown or searched: email,phone,card,iban,ssn
    redact: str = ""
    redact_region: str = "US"  # of telephone numbers without a country code

    # The language of the calls: a text search configuration of Postgres; `simple` for several.
    search_language: str = Field(default="english", pattern=r"^[a-z_][a-z0-9_]{0,47}$")
    # How long a search waits for the question's vector; then it goes on with words alone.
    search_embedding_seconds: float = Field(default=2.0, gt=0)

    # By which host names `embedding-assets serve` is reached, with spaces between them.
    serve_hosts: str = ""
    # A header in which a proxy in front of it names the reader, and from where it is believed.
    serve_proxy_header: str | None = Field(default=None, pattern=r"^[A-Za-z0-9-]+$")
    serve_trusted_proxies: str = "127.0.0.1 ::1"
    serve_connections: int = Field(default=8, ge=1, le=100)
    # Of one token, or of one reader whom a proxy names.
    serve_requests_per_minute: int = Field(default=300, ge=1)
    # How long each statement of a request may take in the database.
    serve_search_seconds: float = Field(default=2.0, gt=0)

    # A file of questions with known answers, and the share of them (per cent) whose answer must be
    # among the best five hits.
    evaluation_questions: Path | None = None
    evaluation_floor: float = Field(default=0.0, ge=0, le=100)

    # Whether Dagster's events show the titles of calls, which may be private.
    share_titles: bool = False
    # Only calls of the last so many months have a partition; None: every recording has.
    partition_months: int | None = Field(default=None, ge=1, le=1_200)

    sync_fathom_cron: str = "*/15 * * * *"
    embed_pending_cron: str = "*/5 * * * *"
    recover_dead_letters_cron: str = "0 */6 * * *"
    sweep_vectors_cron: str = "17 3 * * *"
    check_health_cron: str = "*/10 * * * *"
    count_words_cron: str = "*/30 * * * *"
    snapshot_health_cron: str = "0 * * * *"
    maintain_vector_index_cron: str = "* * * * *"
    embed_in_batches_cron: str = "*/10 * * * *"
    forget_old_calls_cron: str = "37 2 * * *"
    prune_runs_cron: str = "47 3 * * *"
    keep_runs_days: int = Field(default=30, ge=1)
    max_workers: int = Field(default=2, ge=1, le=100)
    lease_seconds: int = Field(default=300, ge=1)
    worker_seconds: int = Field(default=3600, ge=1)

    # Needed if DATABASE_URL leads through a transaction pooler, or to a role that owns no tables.
    index_database_url: SecretStr | None = None
    index_tail_rows: int = Field(default=20_000, ge=100)
    index_part_rows: int = Field(default=300_000, ge=1_000)
    # In Postgres's notation. With less than 800 bytes for each vector of a part, or 1,600 for those
    # of 384 dimensions, a build takes several times as long.
    index_build_memory: str = Field(default="512MB", pattern=r"^[0-9]+ ?(kB|MB|GB)$")
    # With more than 0, that memory is shared memory, of which containers often have only 64 MB.
    index_build_workers: int = Field(default=0, ge=0, le=64)

    # A check is a warning, or critical, from this number on.
    health_dead_letters_warning: int = Field(default=21, ge=1)
    health_dead_letters_critical: int = Field(default=51, ge=1)
    health_pending_warning: int = Field(default=100, ge=1)
    health_pending_critical: int = Field(default=501, ge=1)
    health_stale_claims_warning: int = Field(default=1, ge=1)
    # Hours without any publication while recordings wait.
    health_quiet_hours_warning: float = Field(default=1, gt=0)
    health_quiet_hours_critical: float = Field(default=6, gt=0)
    # A warning below this percentage.
    health_completion_warning: float = Field(default=99.0, ge=0, le=100)

    # Channels as Apprise's URLs, with white space between them.
    alert_urls: SecretStr | None = None
    # What the alerts' titles begin with, where more than one installation tells the same people.
    alert_name: str = Field(default="Embedding Assets", max_length=60)
    # For how long a check must have been better before people are told so.
    alert_settle_minutes: int = Field(default=10, ge=0, le=1440)

    @cached_property
    def home(self) -> Path:
        """The one folder that holds everything written at run time, absolute."""
        return self.embedding_assets_home.expanduser().resolve()

    @property
    def lease(self) -> timedelta:
        """How long a claim lasts without being renewed."""
        return timedelta(seconds=self.lease_seconds)

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003  (pydantic's signature)
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Arguments, then the environment, then `.env`."""
        known = {
            name: value
            for name, value in _own_env_lines().items()
            if name in settings_cls.model_fields
        }
        return init_settings, env_settings, InitSettingsSource(settings_cls, known)


def _own_env_lines() -> dict[str, str]:
    """What a person put into `.env`."""
    if not ENV_FILE.is_file():
        return {}
    text = BLOCK.sub("", ENV_FILE.read_text(encoding="utf-8"))
    values = dotenv_values(stream=StringIO(text))
    return {name.lower(): value for name, value in values.items() if value}
