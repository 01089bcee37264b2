"""The soak in five minutes: the same code, with less to judge by."""

import pytest

from embedding_assets_tests.soak.__main__ import summary
from embedding_assets_tests.soak.soak import soak


@pytest.mark.slow
@pytest.mark.timeout(2400)
def test_five_minutes_of_everything_with_a_kill_a_minute_leave_nothing_amiss() -> None:
    result = soak(5, seed=17, tell=print)

    print("\n".join(summary(result)))  # noqa: T201  (what pytest shows of a failure)
    assert result.amiss == []
    # It worked, searched and killed; how much of it depends on the machine.
    assert len(result.kills) >= 3
    assert result.done["edit"] + result.done["come"] + result.done["go"] > 10
    assert all(result.done[f"searches, {mode}"] for mode in ("hybrid", "keyword", "semantic"))
    assert result.balance.server_requests > 10
    assert len(result.samples) > 10
