"""Every environment variable, typed, in one place."""

from functools import cached_property
from pathlib import Path
from typing import Literal

from pydantic import Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict

_CHECKOUT = Path(__file__).resolve().parents[1]
PROJECT_ROOT = _CHECKOUT if (_CHECKOUT / "workspace.yaml").exists() else Path.cwd()


class Settings(BaseSettings):
    """Read from the environment first, then from `.env` in the project's root."""

    model_config = SettingsConfigDict(
        env_file=PROJECT_ROOT / ".env", extra="ignore", env_ignore_empty=True
    )

    embedding_assets_home: Path = PROJECT_ROOT / ".local"
    database_url: SecretStr | None = None
    dagster_pg_url: SecretStr | None = None

    embedding_provider: Literal["local", "openai"] = "local"
    embedding_model: str | None = None
    embedding_dimensions: int | None = Field(default=None, ge=1, le=16_000)
    embedding_price_per_million_tokens: float | None = Field(default=None, ge=0)
    embedding_max_input_tokens: int | None = Field(default=None, ge=1)
    embedding_concurrency: int | None = Field(default=None, ge=1, le=64)
    openai_api_key: SecretStr | None = None
    openai_base_url: str | None = None

    chunk_target_tokens: int = Field(default=180, ge=16)
    chunk_overlap_tokens: int = Field(default=32, ge=0)
    chunk_max_tokens: int = Field(default=254, ge=16)

    @cached_property
    def home(self) -> Path:
        """The one folder that holds everything written at run time, absolute."""
        return self.embedding_assets_home.expanduser().resolve()
