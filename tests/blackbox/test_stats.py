"""The statistics of lib/stats against scipy on 1,000 random questions, where scipy is installed (Debian: python3-scipy). Without it
the golden values of tests/unit/golden_stats.h still hold."""

import os
import pathlib
import random
import subprocess

import pytest

import harness

PROBE = pathlib.Path(os.path.abspath(harness.PDCTL)).parent / "tests" / "tools" / "stats_probe"


def test_a_thousand_random_questions_have_scipys_answers():
    stats = pytest.importorskip("scipy.stats", reason="python3-scipy is not installed")
    import numpy

    if not PROBE.exists():
        pytest.skip(f"{PROBE} is not built: make tools")
    r = random.Random(int(os.environ.get("STATS_SEED", "5")))
    lines, wanted = [], []

    def ask(line, *answers):
        lines.append(line)
        wanted.append(answers)

    def text(values):
        return f"{len(values)} " + " ".join(map(repr, values))

    for _ in range(143):
        t, df, tail = r.uniform(-30, 30), 10 ** r.uniform(-0.2, 6), 10 ** r.uniform(-7, -0.001)
        ask(f"upper {t!r} {df!r}", stats.t.sf(t, df))
        ask(f"quantile {tail!r} {df!r}", stats.t.isf(tail, df))
        a = [r.lognormvariate(3, r.uniform(0.01, 0.3)) for _ in range(r.randrange(2, 30))]
        b = [r.lognormvariate(3.1, r.uniform(0.01, 0.3)) for _ in range(r.randrange(2, 30))]
        limit = r.uniform(-0.3, 0.3)
        la, lb = numpy.log(a), numpy.log(b)
        one = stats.ttest_ind(lb - limit, la, equal_var=False, alternative="greater")
        se = (la.var(ddof=1) / len(a) + lb.var(ddof=1) / len(b)) ** 0.5
        v = [la.var(ddof=1) / len(a), lb.var(ddof=1) / len(b)]
        df = sum(v) ** 2 / (v[0] ** 2 / (len(a) - 1) + v[1] ** 2 / (len(b) - 1))
        shift = lb.mean() - la.mean()
        ask(f"welch {limit!r} {text(a)} {text(b)}", shift, df, one.pvalue, shift - stats.t.isf(0.1, df) * se)
        n = min(len(a), len(b))
        pair = stats.ttest_rel(lb[:n] - limit, la[:n], alternative="greater")
        d = lb[:n] - la[:n]
        ask(
            f"pairs {limit!r} {text(a[:n])} {' '.join(map(repr, b[:n]))}",
            d.mean(), n - 1, pair.pvalue, d.mean() - stats.t.isf(0.1, n - 1) * d.std(ddof=1) / n**0.5,
        )  # fmt: skip
        a, b = a[:20], b[:20]
        mw = stats.mannwhitneyu(b, a, alternative="two-sided", method="exact")
        ask(f"ranks {text(a)} {text(b)}", mw.statistic, mw.pvalue)
        values = [r.lognormvariate(0, 2) for _ in range(r.randrange(1, 2000))]
        p = r.uniform(0, 100)
        ask(f"percentile {p!r} {text(values)}", numpy.percentile(values, p))
        ask(f"summary {text(values)}", numpy.mean(values), numpy.std(values), numpy.median(values))
    assert len(lines) >= 1000
    done = subprocess.run([PROBE], input="\n".join(lines) + "\n", capture_output=True, text=True, check=True, timeout=300)
    answers = done.stdout.splitlines()
    assert len(answers) == len(lines)
    for line, want, got in zip(lines, wanted, answers):
        for x, y in zip(want, map(float, got.split()), strict=True):
            assert y == pytest.approx(float(x), rel=1e-9, abs=1e-9), line[:200]
