"""Sizes and shares against what profiles and habits promise; each tolerance says why it is that wide."""

from collections import Counter
from math import exp, log
from statistics import NormalDist, fmean, pstdev

import pytest

from fakemail.synthesis import PROFILES, Source, profiles
from fakemail.synthesis.profiles import sizes_of

COUNT = 20_000


def source(folder="INBOX", *, profile="small", seed=7):
    return Source(seed=seed, address="ann@example.test", folder=folder, profile=profile)


@pytest.mark.parametrize(
    ("table", "sigma", "first_share"),
    [("_TEXT", 1.1, 0.0), ("_TEXT_TAIL", 1.1, 255 / 256), ("_FILE", 1.4, 0.0), ("_FILE_TAIL", 1.4, 255 / 256)],
)
def test_the_tables_are_the_quantiles_of_a_log_normal_distribution(table, sigma, first_share):
    values = getattr(profiles, table)
    assert len(values) == 256
    for at, value in enumerate(values):
        share = first_share + (1 - first_share) * (2 * at + 1) / 512
        # Literals are rounded to a thousandth of the median.
        assert value == pytest.approx(1000 * exp(sigma * NormalDist().inv_cdf(share)), abs=0.6, rel=1e-6)


@pytest.mark.parametrize("name", ["exchange", "heavy-tail"])
def test_what_is_drawn_is_log_normal_with_the_promised_median_and_sigma(name):
    profile = PROFILES[name]
    for sizes, median, sigma in [
        (sizes_of(name)[0], profile.text_bytes_median, 1.1),
        (sizes_of(name)[1], profile.attachment_bytes_median * 78 // 57, 1.4),
    ]:
        drawn = [log(size) for size in sizes.bulk if size]
        # The bulk is all but the upper 1/256, whose absence takes about a fiftieth off sigma.
        assert exp(sorted(drawn)[len(drawn) // 2]) == pytest.approx(median, rel=0.02)
        assert pstdev(drawn) == pytest.approx(sigma, rel=0.05)
        assert fmean(drawn) == pytest.approx(log(median), abs=0.03)


@pytest.mark.parametrize("name", PROFILES)
def test_no_draw_is_above_the_cap(name):
    profile = PROFILES[name]
    text, attachment = sizes_of(name)
    assert max((*text.bulk, *text.tail)) <= profile.text_bytes_max
    assert max((*attachment.bulk, *attachment.tail)) <= profile.attachment_bytes_max * 78 // 57
    assert all(sizes.tail if 0 in sizes.bulk else not sizes.tail for sizes in (text, attachment))


@pytest.mark.parametrize(
    ("profile", "mean_bytes", "tolerance"),
    [
        # The standard error of a mean of so many is 0.7 %.
        ("small", 20_000, 0.04),
        # Attachments have a standard deviation of 2.5 times their mean: the error of the mean is 4 %.
        ("exchange", 75_000, 0.12),
        ("heavy-tail", 82_000, 0.20),
    ],
)
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_the_mean_size_is_the_promised_one(profile, mean_bytes, tolerance, seed):
    made = source(profile=profile, seed=seed)
    assert fmean(map(made.size, range(1, COUNT + 1))) == pytest.approx(mean_bytes, rel=tolerance)


def test_a_heavy_tail_is_heavy():
    made = source(profile="heavy-tail")
    sizes = sorted(map(made.size, range(1, 3 * COUNT + 1)))
    assert sizes[-1] > 10_000_000
    assert sizes[len(sizes) // 2] < 22_000
    # A hundredth of the messages has more than a quarter of all bytes.
    assert sum(sizes[-len(sizes) // 100 :]) / sum(sizes) > 0.25


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_an_inbox_has_the_promised_shares(seed):
    """There are 4,096 slots, drawn once: a share of 8 % is exact to about 0.5 %, and folders to another 0.3 %."""
    facts = [source(seed=seed).facts(uid) for uid in range(1, COUNT + 1)]
    kinds = Counter(each.kind for each in facts)
    assert 0.07 <= kinds["spam"] / COUNT <= 0.09
    assert 0.01 <= kinds["broken"] / COUNT <= 0.02
    assert 0.20 <= sum(each.has_attachment for each in facts) / COUNT <= 0.26
    assert all(kinds[kind] > COUNT // 250 for kind in ("calendar", "report", "signed", "forward", "digest"))


def test_junk_is_nine_tenths_spam():
    kinds = Counter(source("Junk").kind(uid) for uid in range(1, COUNT + 1))
    assert 0.86 <= kinds["spam"] / COUNT <= 0.93
    assert 0.01 <= kinds["broken"] / COUNT <= 0.02


@pytest.mark.parametrize("folder", ["Sent", "Drafts"])
def test_what_the_user_writes_is_neither_spam_nor_broken(folder):
    kinds = {source(folder).kind(uid) for uid in range(1, 5000)}
    assert not kinds & {"spam", "broken", "list", "newsletter", "notification", "report"}


def test_what_the_facts_call_an_attachment_is_one():
    made = source()
    for uid in range(1, 2000):
        assert made.facts(uid).has_attachment == (b"\r\nContent-Disposition: attachment" in made.raw(uid)), uid


def test_every_bit_of_a_message_is_drawn_evenly():
    """Chi-squared over bytes of ``mix``: 255 degrees of freedom, so above 360 by chance once in 50,000."""
    from fakemail.synthesis.draws import mix  # noqa: PLC0415 beside its only use

    for shift in range(0, 128, 8):
        counts = Counter(mix(uid) >> shift & 255 for uid in range(1, 25_601))
        assert sum((counts[byte] - 100) ** 2 / 100 for byte in range(256)) < 360, shift
