"""The budget of a day (UTC): how many tokens may still be spent."""

import time
from dataclasses import dataclass

from embedding_assets.engine.database import Connection, Database, sql
from embedding_assets.engine.errors import BudgetSpentError, ConfigurationError

REFRESH_SECONDS = 10.0  # other runs spend, too


@dataclass(frozen=True, slots=True)
class Budget:
    """What one day may cost at most; None: no limit."""

    usd: float | None = None
    tokens: int | None = None

    def in_tokens(self, price_per_million_tokens: float | None) -> float | None:
        """The tokens of a day; None: no limit.

        Raises:
            ConfigurationError: the price is needed and not known.
        """
        limits: list[float] = [] if self.tokens is None else [self.tokens]
        if self.usd is not None:
            if price_per_million_tokens is None:
                raise ConfigurationError(
                    "EMBEDDING_DAILY_BUDGET_USD is set, but the model's price is not known: set"
                    " EMBEDDING_PRICE_PER_MILLION_TOKENS, or EMBEDDING_DAILY_BUDGET_TOKENS instead"
                )
            if price_per_million_tokens > 0:
                limits.append(self.usd * 1e6 / price_per_million_tokens)
        return min(limits, default=None)


class Spending:
    """What is spent today, beside what the budget allows."""

    def __init__(self, database: Database, tokens_a_day: float) -> None:
        self._database = database
        self._most = tokens_a_day
        self._spent = 0
        self._looked_at = float("-inf")

    def require(self, tokens: float) -> None:
        """Holds that so many tokens more may be spent than attempts of today have recorded.

        Raises:
            BudgetSpentError: they would pass the budget.
        """
        if time.monotonic() - self._looked_at > REFRESH_SECONDS:
            self._spent = self._database.retrying(tokens_today)
            self._looked_at = time.monotonic()
        if self._spent + tokens > self._most:
            raise BudgetSpentError(
                f"the budget of the day is spent: {self._spent:,} of {self._most:,.0f} tokens, and"
                f" the next recording needs up to {tokens:,.0f}; what waits goes on at 00:00 UTC,"
                " or after EMBEDDING_DAILY_BUDGET_USD or EMBEDDING_DAILY_BUDGET_TOKENS is raised"
            )


def tokens_today(connection: Connection) -> int:
    """Tokens of all attempts that ended today (UTC)."""
    return int(sql.tokens_today(connection))
