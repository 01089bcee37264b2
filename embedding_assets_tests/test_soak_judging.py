"""How the figures of a soak are judged: growth is found, noise is not."""

import random
from collections.abc import Callable

import pytest

from embedding_assets_tests.soak.judging import Rule, Verdict, judge, warm_up_seconds
from embedding_assets_tests.soak.sampling import RULES

RULE = Rule("memory of", "MiB", "as much as is noise", ratio=0.1, allowance=15)
HOUR = warm_up_seconds(60)


def verdict_of(value: Callable[[float], float], *, minutes: float = 60) -> Verdict:
    """Of one figure, sampled every ten seconds for so long."""
    samples = [(float(at), {"memory of it": value(at)}) for at in range(0, int(60 * minutes), 10)]
    (verdict,) = judge(samples, warm_up_seconds(minutes), [RULE])
    return verdict


def noise(seed: int) -> Callable[[float], float]:
    """250 MiB, with a fifth more or less, and now and then twice as much."""
    draw = random.Random(seed)

    def value(_: float) -> float:
        return 250 * draw.uniform(0.8, 1.2) * (2 if draw.random() < 0.1 else 1)

    return value


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("minutes", [5, 60])
def test_noise_is_flat(seed: int, minutes: float) -> None:
    assert verdict_of(noise(seed), minutes=minutes).is_flat


@pytest.mark.parametrize("seed", range(20))
def test_a_leak_is_found_in_the_same_noise(seed: int) -> None:
    noisy = noise(seed)
    verdict = verdict_of(lambda at: noisy(at) + 3 * at / 60)

    assert verdict.is_flat is False
    assert 100 < verdict.per_hour < 260


def test_what_grows_in_the_warm_up_alone_is_flat() -> None:
    verdict = verdict_of(lambda at: 100 + min(at, HOUR) / 2)

    warm = 100 + HOUR / 2
    assert (verdict.start, verdict.after_warm_up, verdict.end) == (100, warm, warm)
    assert verdict.is_flat


def test_a_step_that_stays_is_found_and_one_that_goes_is_not() -> None:
    assert verdict_of(lambda at: 400 if at > 2400 else 250).is_flat is False
    assert verdict_of(lambda at: 400 if 2000 < at < 2300 else 250).is_flat


def test_less_than_before_is_flat() -> None:
    assert verdict_of(lambda at: 300 - at / 60).is_flat


def test_what_may_grow_is_told_and_not_judged() -> None:
    rule = Rule("rows in", "rows", "kept for a week", is_judged=False)
    samples = [(float(at), {"rows in runs": at / 10}) for at in range(0, 3600, 10)]
    (verdict,) = judge(samples, HOUR, [rule])

    assert (verdict.is_flat, verdict.allowed) == (None, None)
    assert verdict.per_hour == pytest.approx(360)


def test_a_figure_that_some_samples_lack_is_judged_by_the_others() -> None:
    samples = [
        (float(at), {"memory of it": 1.0 if at < 1800 else 99.0} if at % 30 else {})
        for at in range(0, 3600, 10)
    ]
    (verdict,) = judge(samples, HOUR, [RULE])

    assert verdict.is_flat is False


def test_one_that_was_never_there_after_the_warm_up_has_no_verdict() -> None:
    assert judge([(0.0, {"memory of it": 1.0})], HOUR, [RULE]) == []


def test_a_figure_without_a_rule_is_a_mistake() -> None:
    with pytest.raises(ValueError, match="no rule says what to expect of handles"):
        judge([(0.0, {"handles": 1.0})], HOUR, [RULE])


def test_no_rule_is_hidden_by_an_earlier_one() -> None:
    begins = [rule.begins for rule in RULES]

    hidden = [
        later
        for place, later in enumerate(begins)
        for earlier in begins[:place]
        if later.startswith(earlier)
    ]

    assert hidden == []
    assert all(rule.why for rule in RULES)
