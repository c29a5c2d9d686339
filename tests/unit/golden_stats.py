#!/usr/bin/python3
"""Writes tests/unit/golden_stats.h: answers of scipy to random questions, for test_stats.c.

    python3 tests/unit/golden_stats.py >tests/unit/golden_stats.h

scipy is the Debian package python3-scipy; it is not needed to build or to run the tests. The same seed gives the same questions.
"""
import random

import numpy
import scipy
from scipy import stats

CASES = 60


def numbers(values):
    return "{" + ", ".join(repr(float(v)) for v in values) + "}"


def main():
    r = random.Random(20)
    print("/* Made by tests/unit/golden_stats.py with scipy " + scipy.__version__ + ": do not edit. */")
    print("#ifndef PD_TESTS_GOLDEN_STATS_H\n#define PD_TESTS_GOLDEN_STATS_H\n")
    print("struct golden_t {\n\tdouble t, df, upper, tail, quantile;\n};\n")
    print("static const struct golden_t golden_t[] = {")
    for _ in range(CASES):
        t, df, tail = r.uniform(-12, 12), r.choice([0.7, 1, 2, 3.3, 4, 7.9, 8, 30, 250.5, 1e4, 1e6]), 10 ** r.uniform(-6, -0.01)
        print("\t{%r, %r, %r, %r, %r}," % (t, df, float(stats.t.sf(t, df)), tail, float(stats.t.isf(tail, df))))
    print("};\n\nstruct golden_ratio {\n\tsize_t na, nb;\n\tdouble a[8], b[8], limit, shift, df, p, lower;\n\tdouble pair_p; /* NaN-free: 2 when not paired */\n};\n")
    print("static const struct golden_ratio golden_ratio[] = {")
    for i in range(CASES):
        na = r.randrange(2, 9)
        nb = na if i % 2 else r.randrange(2, 9)
        a = [r.lognormvariate(3, 0.05) for _ in range(na)]
        b = [r.lognormvariate(3 + r.uniform(-0.1, 0.2), 0.08) for _ in range(nb)]
        limit = r.uniform(-0.1, 0.2)
        la, lb = numpy.log(a), numpy.log(b)
        res = stats.ttest_ind(lb - limit, la, equal_var=False, alternative="greater")
        both = stats.ttest_ind(lb, la, equal_var=False)
        # the one-sided 90 % bound
        low = stats.ttest_ind(lb, la, equal_var=False, alternative="greater").confidence_interval(0.9).low
        pair = float(stats.ttest_rel(lb - limit, la, alternative="greater").pvalue) if na == nb else 2.0
        pad = [0.0] * 8
        print("\t{%d, %d, %s, %s, %r, %r, %r, %r, %r, %r}," % (
            na, nb, numbers((a + pad)[:8]), numbers((b + pad)[:8]), limit, float(lb.mean() - la.mean()), float(both.df),
            float(res.pvalue), float(low), pair))  # fmt: skip
    print("};\n\nstruct golden_rank {\n\tsize_t na, nb;\n\tdouble a[8], b[8], u, p;\n};\n")
    print("static const struct golden_rank golden_rank[] = {")
    for i in range(CASES):
        na, nb = r.randrange(1, 9), r.randrange(1, 9)
        a = [r.gauss(0, 1) for _ in range(na)]
        b = [r.gauss(0.5, 1) for _ in range(nb)]
        res = stats.mannwhitneyu(b, a, alternative="two-sided", method="exact")
        pad = [0.0] * 8
        print("\t{%d, %d, %s, %s, %r, %r}," % (na, nb, numbers((a + pad)[:8]), numbers((b + pad)[:8]), float(res.statistic), float(res.pvalue)))
    print("};\n\n#endif")


if __name__ == "__main__":
    main()
