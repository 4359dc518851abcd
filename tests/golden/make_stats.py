#!/usr/bin/env python3
"""Golden numbers for the statistics: stats.json, read by tests/test_stats_*.c.

    python3 -m venv venv && venv/bin/pip install -r requirements-stats.txt
    venv/bin/python make_stats.py [--out DIR]

Made with Python 3.11, numpy 2.4.6, scipy 1.17.1, statsmodels 0.15.0, scikit-learn 1.9.1, pandas 3.1.1, mpmath 1.4.1 on x86-64. Two to three minutes.

Every table holds the library's value where only the library knows it, and otherwise the value of an independent route
(stats_reference.py: rational numbers, or 40 digits), with which the library is compared first. "library_error" in
the file is the largest relative difference found there: where it is above 1e-9 the library, not the test, is the less accurate one.
"""
import argparse
import json
import math
import pathlib
import random

import mpmath
import numpy as np
import statsmodels.api as sm
from scipy import stats
from scipy.stats import _resampling
from scipy.stats.contingency import odds_ratio
from sklearn import metrics
from sklearn.isotonic import IsotonicRegression
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler
from statsmodels.stats import contingency_tables, multitest, proportion

import stats_reference as ref

tables, library_error = {}, {}
rng = random.Random(20240611)
SIDES = {"two-sided": 0, "greater": 1, "less": 2}
SIZES = [1, 2, 5, 10, 28, 69, 97, 116, 272, 388, 489, 974]


def plain(v):
    if isinstance(v, (list, tuple, np.ndarray)):
        return [plain(x) for x in v]
    if isinstance(v, (bool, np.bool_)):
        return int(v)
    if isinstance(v, (int, np.integer)):
        return int(v)
    v = float(v)
    return "nan" if math.isnan(v) else "inf" if v == math.inf else "-inf" if v == -math.inf else int(v) if v == int(v) and abs(v) < 1e15 else v


def add(table, columns, *row):
    t = tables.setdefault(table, dict(columns=columns.split(), rows=[]))
    assert len(row) == len(t["columns"]), table
    t["rows"].append(plain(row))


def agree(name, library, exact):
    library, exact = mpmath.mpf(float(library)), mpmath.mpf(exact.numerator) / exact.denominator if hasattr(exact, "numerator") else mpmath.mpf(exact)
    if exact != 0 and mpmath.isfinite(exact) and not (abs(exact) < mpmath.mpf("1e-290")):
        library_error[name] = max(library_error.get(name, 0.0), float(abs((library - exact) / exact)))
    return float(exact)


def rate(n):
    return rng.choice([0, n, rng.randint(0, n), rng.randint(0, n), rng.randint(0, min(n, 12))])


# --- rates ----------------------------------------------------------------------------------------------------------------

def make_rates():
    cases = [(0, 10, 0.0), (3, 10, 0.0), (10, 10, 1.0), (9, 10, 1.0), (0, 1, 0.5), (1, 1, 0.5), (5, 10, 0.5), (2, 10, 0.5), (8, 10, 0.5), (3, 1000, 1e-8),
             (997, 1000, 1 - 1e-8), (97, 116, 22 / 116), (6, 272, 15 / 272), (5000, 10000, 0.5), (5200, 10000, 0.5), (48900, 100000, 0.5), (30000, 100000, 0.297), (7, 100000, 1e-4)]
    for n in SIZES:
        for _ in range(6):
            p0 = rng.choice([rng.random(), rng.random(), 10 ** rng.uniform(-6, -1), 0.5, 0.25])
            cases.append((rng.choice([rate(n), min(n, max(0, round(n * p0 + rng.gauss(0, 3) * math.sqrt(n * p0 * (1 - p0)))))]), n, p0))
    for k, n, p0 in cases:
        values = []
        for side in SIDES:
            library = stats.binomtest(k, n, p0, alternative=side).pvalue
            exact = ref.at_least(k, n, p0) if side == "greater" else ref.at_most(k, n, p0) if side == "less" else ref.binomial_two_sided(k, n, p0)
            values.append(agree("binomial_test", library, exact))
        add("binomial_test", "k n p0 two_sided greater less", k, n, p0, *values)
    for n in SIZES + [100000]:
        for k in sorted({0, 1, n, max(0, n - 1), rate(n), rate(n), n // 2}):
            for level in (0.95, rng.choice([0.5, 0.9, 0.99, 0.9999])):
                row = []
                for method, exact in (("beta", ref.clopper_pearson), ("wilson", ref.wilson)):
                    library = proportion.proportion_confint(k, n, 1 - level, method=method)
                    value = exact(k, n, level, library) if method == "beta" else exact(k, n, level)
                    if method == "wilson":  # the library's limit at k = 0 or n is a rounding of 0 or 1
                        library = (0.0 if k == 0 else library[0], 1.0 if k == n else library[1])
                        value = (ref.mpf(0) if k == 0 else value[0], ref.mpf(1) if k == n else value[1])
                    row += [agree("interval_" + method, a, b) for a, b in zip(library, value)]
                add("rate_interval", "k n level exact_low exact_high wilson_low wilson_high", k, n, level, *row)
    for _ in range(60):
        n1, n2 = rng.choice(SIZES), rng.choice(SIZES)
        k1, k2, level = rate(n1), rate(n2), rng.choice([0.95, 0.95, 0.99, 0.8])
        library = proportion.confint_proportions_2indep(k1, n1, k2, n2, method="newcomb", compare="diff", alpha=1 - level)
        (l1, u1), (l2, u2) = ref.wilson(k1, n1, level), ref.wilson(k2, n2, level)
        p1, p2 = ref.mpf(k1) / n1, ref.mpf(k2) / n2
        exact = (p1 - p2 - mpmath.hypot(p1 - l1, u2 - p2), p1 - p2 + mpmath.hypot(u1 - p1, p2 - l2))
        add("newcombe", "k1 n1 k2 n2 level low high", k1, n1, k2, n2, level, *[agree("newcombe", a, b) for a, b in zip(library, exact)])
    for n, c, k in [(1, 0, 1), (1, 1, 1), (10, 0, 5), (10, 10, 5), (10, 6, 5), (10, 3, 1), (200, 7, 100), (200, 1, 10), (1000, 999, 1), (3, 1, 2), (100, 50, 51), (5, 5, 1)]:
        add("pass_at_k", "n c k value", n, c, k, float(1 - ref.Fraction(math.comb(n - c, k), math.comb(n, k))))


# --- two groups, pairs ------------------------------------------------------------------------------------------------------

def boschloo_greater(k1, n1, k2, n2):
    """A dense grid and a bounded search around its best points, with scipy's distributions; the library's own search (shgo) may stop early."""
    x1, x2 = np.arange(n1 + 1)[:, None], np.arange(n2 + 1)[None, :]
    p = stats.hypergeom.cdf(x2, n1 + n2, x1 + x2, n2)
    region = p <= p[k1, k2] * (1 + 1e-13)

    def tail(rate):
        return float((stats.binom.pmf(x1, n1, rate) * stats.binom.pmf(x2, n2, rate))[region].sum())

    grid = np.sin(np.linspace(0, np.pi / 2, 3001)) ** 2
    f = np.array([tail(r) for r in grid])
    best = f.max()
    from scipy.optimize import minimize_scalar
    for i in range(1, len(grid) - 1):
        if f[i] >= f[i - 1] and f[i] >= f[i + 1] and f[i] > 0.9 * f.max():
            best = max(best, -minimize_scalar(lambda r: -tail(r), bounds=(grid[i - 1], grid[i + 1]), method="bounded", options=dict(xatol=1e-13)).fun)
    return min(1.0, best)


def make_two_groups():
    cases = [(97, 116, 22, 116), (6, 272, 15, 272), (0, 5, 0, 5), (5, 5, 5, 5), (5, 5, 0, 5), (0, 3, 2, 1000), (1, 1, 0, 1), (0, 0, 3, 5), (10, 20, 10, 20), (388, 388, 0, 388)]
    for _ in range(50):
        n1, n2 = rng.choice(SIZES), rng.choice(SIZES)
        cases.append((rate(n1), n1, rate(n2), n2))
    for k1, n1, k2, n2 in cases:
        table = [[k1, n1 - k1], [k2, n2 - k2]]
        p = [agree("fisher", stats.fisher_exact(table, alternative=side)[1], ref.fisher(k1, n1, k2, n2, side)) for side in SIDES]
        add("fisher", "k1 n1 k2 n2 two_sided greater less", k1, n1, k2, n2, *p)
        level = rng.choice([0.95, 0.95, 0.9, 0.99])
        exact = ref.odds_ratio(k1, n1, k2, n2, level)
        if not mpmath.isnan(exact[0]):
            library = odds_ratio(table, kind="conditional")
            interval = library.confidence_interval(level)
            for name, a, b in zip(("odds_estimate", "odds_interval", "odds_interval"), (library.statistic, interval.low, interval.high), exact):
                agree(name, a, b)
        add("odds_ratio", "k1 n1 k2 n2 level conditional low high", k1, n1, k2, n2, level, *exact)
    for k1, n1, k2, n2 in [(7, 10, 2, 10), (0, 5, 5, 5), (3, 12, 9, 14), (1, 1, 0, 1), (11, 69, 2, 69), (4, 28, 1, 97), (6, 60, 15, 60), (20, 40, 20, 40), (0, 30, 4, 50), (17, 116, 5, 116)]:
        both = []
        for side, (a, na, b, nb) in (("greater", (k1, n1, k2, n2)), ("less", (k2, n2, k1, n1))):
            mine = boschloo_greater(a, na, b, nb)
            library = stats.boschloo_exact([[k1, k2], [n1 - k1, n2 - k2]], alternative=side, n=64).pvalue
            assert library <= mine * (1 + 1e-9), "the search here must not be the worse one"
            library_error["boschloo"] = max(library_error.get("boschloo", 0.0), abs(library / mine - 1))
            both.append(mine)
        add("boschloo", "k1 n1 k2 n2 two_sided greater less", k1, n1, k2, n2, min(1.0, 2 * min(both)), *both)


def make_pairs():
    for gained, lost in [(0, 0), (5, 0), (0, 6), (8, 0), (11, 17), (17, 11), (1, 1), (3, 3), (40, 12), (200, 260), (75, 0), (1000, 900), (1, 0)]:
        n = gained + lost
        library = contingency_tables.mcnemar([[5, lost], [gained, 7]], exact=True).pvalue
        two = min(ref.Fraction(1), 2 * sum(ref.Fraction(math.comb(n, i), 2**n) for i in range(min(gained, lost) + 1)))
        at = ref.Fraction(math.comb(n, gained), 2**n)
        greater = sum(ref.Fraction(math.comb(n, i), 2**n) for i in range(gained, n + 1))
        mid = min(ref.Fraction(1), two - at) if gained != lost else ref.Fraction(1)
        add("mcnemar", "gained lost two_sided greater less mid_two_sided mid_greater mid_less", gained, lost, agree("mcnemar", library, two), greater, 1 - greater + at, mid,
            greater - at / 2 if n else 1, 1 - greater + at / 2 if n else 1)
        low, high = (ref.clopper_pearson(gained, n, 0.95, proportion.proportion_confint(gained, n, method="beta")) if n else (ref.mpf(0), ref.mpf(1)))
        add("pair_odds", "gained lost level low high", gained, lost, 0.95, low / (1 - low) if low < 1 else math.inf, high / (1 - high) if high < 1 else math.inf)
    cells = [(36, 2, 12, 0), (0, 0, 0, 5), (5, 0, 0, 0), (0, 3, 4, 0), (1, 0, 0, 0), (116, 17, 11, 244), (99, 17, 11, 261), (54, 0, 0, 0), (53, 0, 1, 0), (30, 2, 1, 21), (0, 0, 1, 0)]
    cells += [tuple(rng.randint(0, rng.choice([3, 40, 300])) for _ in range(4)) for _ in range(40)]
    for both, lost, gained, neither in cells:
        if both + lost + gained + neither:
            level = rng.choice([0.95, 0.9, 0.99])
            add("newcombe_paired", "both lost gained neither level low high", both, lost, gained, neither, level, *ref.newcombe_paired(both, lost, gained, neither, level))
    for n, k, p in [(1, 2, 0.5), (5, 3, 0.5), (40, 5, 0.3), (200, 5, 0.7), (30, 2, 0.5), (12, 4, 0.1)]:
        data = np.array([[rng.random() < p + 0.15 * j / k for j in range(k)] for _ in range(n)], int)
        if not any(0 < r < k for r in data.sum(1)):
            data[0, 0] = 1 - data[0, 0]
        q = contingency_tables.cochrans_q(data)
        add("cochran_q", "k data q df p", k, data.ravel(), q.statistic, q.df, q.pvalue)


# --- sums -----------------------------------------------------------------------------------------------------------------

def sparse(n, share, scale=10.0, digits=4):
    return [round(rng.expovariate(1 / scale), digits) if rng.random() < share else 0.0 for _ in range(n)]


def make_separation():
    for n1, n2, share in [(2, 2, 1), (3, 40, 0.5), (28, 69, 0.7), (40, 60, 0.05), (30, 30, 1), (2, 60, 1), (50, 50, 0.9), (20, 35, 0.3)]:
        for scale in (0.01, 7.0):
            x, y = sparse(n1, share, scale, 6), sparse(n2, share, scale * 1.2, 6)
            x[0] += scale  # at least one value differs
            library = stats.ttest_ind(x, y, equal_var=False)
            exact = ref.welch(x, y)
            agree("welch_t", library.statistic, exact[0]), agree("welch_df", library.df, exact[1]), agree("welch_p", library.pvalue, exact[2])
            add("welch", "x y t df p mean_difference", x, y, *exact, float(np.mean(x) - np.mean(y)))
    for t, df in [(0, 5), (1e-9, 7), (-2.5, 1), (2.5, 2), (5.68, 371.3), (4.2, 31), (12, 31.5), (40, 100), (-8, 487), (1.96, 1e6), (6, 1e5), (0.3, 0.7), (3, 29.999), (38, 900), (1.5, 60)]:
        agree("student_p", 2 * stats.t.sf(abs(t), df), ref.student_two_sided(t, df))
        two = ref.student_two_sided(t, df)
        greater = two / 2 if t > 0 else 1 - two / 2
        add("student_p", "t df two_sided greater less", t, df, two, greater, 1 - greater)


# --- scores ---------------------------------------------------------------------------------------------------------------

def score_cases():
    yield [1.0, 2.0], [0, 1]
    yield [2.0, 1.0], [0, 1]
    yield [1.0, 1.0], [0, 1]
    yield [0.0] * 6, [0, 1, 0, 1, 1, 0]
    yield [1.0, 2, 3, 4, 5, 6], [0, 0, 0, 1, 1, 1]
    yield [0.0, 0, 0, 3, 2, 0, 0, 5], [0, 1, 0, 1, 0, 1, 1, 1]
    yield [-1.5, 3, 3, 7], [1, 0, 0, 0]
    yield [3.0, 1, 2], [1, 1, 1]
    yield [3.0, 1, 2], [0, 0, 0]
    for n in (5, 12, 30, 60, 120):
        for share in (0.15, 0.6, 1):
            labels = [int(rng.random() < 0.35) for _ in range(n)]
            labels[0], labels[1] = 0, 1
            yield [round(s + 0.5 * y * (s > 0), 2) for s, y in zip(sparse(n, share, 3.0, 2), labels)], labels


def make_scores():
    columns = "scores labels auroc variance low high average_precision best_threshold best_f1"
    for scores, labels in score_cases():
        s, y = np.array(scores), np.array(labels)
        both = 0 < y.sum() < len(y)
        area = variance = low = high = math.nan
        if both:
            (area,), ((variance,),) = ref.delong([scores], labels)
            agree("auroc", metrics.roc_auc_score(y, s), area)
            if variance is None:
                variance = math.nan
            else:
                half = mpmath.sqrt(ref.mpf(variance.numerator) / variance.denominator) * mpmath.sqrt(2) * mpmath.erfinv(ref.mpf(0.95))
                low, high = max(0, ref.mpf(area.numerator) / area.denominator - half), min(1, ref.mpf(area.numerator) / area.denominator + half)
        precision = metrics.average_precision_score(y, s) if y.sum() else math.nan
        threshold = f1 = math.nan
        if y.sum():
            f1, threshold = max((metrics.f1_score(y, s > t), t) for t in [-math.inf, *s])
        add("auroc", columns, scores, labels, area, variance, low, high, precision, threshold, f1)
        if both:
            fpr, tpr, _ = metrics.roc_curve(y, s, drop_intermediate=False)
            p, r, _ = metrics.precision_recall_curve(y, s)
            add("curve", "scores labels fpr tpr precision recall", scores, labels, fpr, tpr, p, r)
            other = [round(v + rng.gauss(0, 1.5), 2) for v in scores]
            (a, b), cov = ref.delong([scores, other], labels)
            if cov[0][0] is not None:
                v = cov[0][0] + cov[1][1] - 2 * cov[0][1]
                z = ref.mpf((a - b).numerator) / (a - b).denominator / mpmath.sqrt(ref.mpf(v.numerator) / v.denominator) if v else 0
                add("auroc_difference", "scores1 scores2 labels difference variance z p", scores, other, labels, a - b, v, z, 2 * ref.normal_upper(abs(z)))
    for tp, fp, tn, fn in [(96, 169, 103, 20), (268, 113, 3, 4), (5, 0, 0, 0), (0, 0, 7, 0), (0, 3, 4, 0), (0, 0, 4, 3), (3, 4, 0, 0), (1, 1, 1, 1), (50, 3, 900, 21), (0, 5, 0, 6), (100000, 3, 90000, 70000)]:
        y, s = [1] * tp + [0] * fp + [0] * tn + [1] * fn, [1] * (tp + fp) + [0] * (tn + fn)

        def defined(value, *margins):
            return value if all(margins) else math.nan

        add("confusion", "tp fp tn fn precision recall specificity accuracy f1 balanced_accuracy mcc", tp, fp, tn, fn,
            defined(metrics.precision_score(y, s, zero_division=0), tp + fp), defined(metrics.recall_score(y, s, zero_division=0), tp + fn),
            defined(metrics.recall_score(y, s, pos_label=0, zero_division=0), tn + fp), metrics.accuracy_score(y, s), defined(metrics.f1_score(y, s, zero_division=0), tp + fp + fn),
            defined(metrics.balanced_accuracy_score(y, s), tp + fn, tn + fp) if tp + fn and tn + fp else math.nan,
            defined(metrics.matthews_corrcoef(y, s), tp + fp, tp + fn, tn + fp, tn + fn))


# --- clusters, bootstrap, permutations, families --------------------------------------------------------------------------

def make_clusters():
    for n, g in [(6, 2), (12, 12), (40, 7), (90, 30), (60, 60), (30, 3)]:
        c = [i % g for i in range(n)]
        rng.shuffle(c)
        x = [round(rng.gauss(0, 1) + 0.7 * (k % 3), 3) if g != 7 else int(rng.random() < 0.3 + 0.05 * k) for k in c]
        fit = sm.OLS(x, np.ones(n)).fit(cov_type="cluster", cov_kwds=dict(groups=np.array(c)), use_t=True)
        low, high = fit.conf_int(0.05)[0]
        add("cluster_mean", "values clusters mean standard_error low high independent", x, [1000 - 7 * k for k in c], fit.params[0], fit.bse[0], low, high, np.std(x, ddof=1) / math.sqrt(n))


def bootstrap_case(name, g, seed, stream, replicates, statistic, payload):
    draws = [[ref.below(seed, "bootstrap", r, stream, i, g) for i in range(g)] for r in range(replicates)]
    theta = np.array([statistic(d) for d in draws])
    theta = theta[~np.isnan(theta)]

    def along(index, axis=-1):
        return np.apply_along_axis(lambda v: statistic([int(i) for i in v]), axis, index)

    level = 0.9
    a1, a2, acceleration = _resampling._bca_interval((np.arange(g),), along, -1, (1 - level) / 2, theta, None, np)
    low, high = np.percentile(theta, [100 * a1.item(), 100 * a2.item()])
    plow, phigh = np.percentile(theta, [100 * (1 - level) / 2, 100 * (1 + level) / 2])
    add("bootstrap_" + name, "payload n_clusters n_replicates seed stream level estimate standard_error low high percentile_low percentile_high acceleration", payload, g, replicates, seed,
        stream, level, statistic(range(g)), theta.std(ddof=1), low, high, plow, phigh, acceleration.item())


def make_resampling():
    for g, replicates, seed, stream in [(12, 199, 1, 0), (40, 500, 2**40 + 5, 3)]:
        total, count = [rng.randint(0, 5) for _ in range(g)], [5 + i % 3 for i in range(g)]
        bootstrap_case("mean", g, seed, stream, replicates, lambda d: sum(total[i] for i in d) / sum(count[i] for i in d), [total, count])
        cluster = [i % g for i in range(2 * g)]
        labels = [int(rng.random() < 0.4) for _ in cluster]
        scores = [round(rng.expovariate(1) * (rng.random() < 0.7) + 0.4 * y, 1) for y in labels]

        def area(d):
            """From whole numbers: whether a replicate ties with the estimate must not depend on rounding."""
            rows = [i + j * g for i in d for j in (0, 1)]
            positives, negatives = [scores[r] for r in rows if labels[r]], [scores[r] for r in rows if not labels[r]]
            if not positives or not negatives:
                return math.nan
            p, n = np.array(positives)[:, None], np.array(negatives)[None, :]
            return int(2 * (p > n).sum() + (p == n).sum()) / (2 * len(positives) * len(negatives))

        bootstrap_case("auroc", g, seed, stream, replicates, area, [cluster, labels, scores])


def make_multiple():
    for n in (1, 2, 5, 20, 60):
        p = [rng.choice([rng.random(), 10 ** rng.uniform(-12, 0), 0.05, 0.0, 1.0]) for _ in range(n)]
        add("adjust", "p holm bh by", p, *[multitest.multipletests(p, method=m)[1] for m in ("holm", "fdr_bh", "fdr_by")])


def permuted(labels, seed, stream, number):
    out = list(labels)
    for i in range(len(out) - 1, 0, -1):
        j = ref.below(seed, "permutation", number, stream, i, i + 1)
        out[i], out[j] = out[j], out[i]
    return out


def make_permutations():
    for n, m, count, seed, stream in [(8, 3, 99, 7, 0), (25, 12, 150, 2**33 + 1, 2)]:
        labels = [int(i % 3 == 0) for i in range(n)]
        active = [[int(rng.random() < (0.3 + 0.5 * y * (h < 3))) for y in labels] for h in range(m)]

        def statistics(y):
            return [sum(a * b for a, b in zip(row, y)) for row in active]

        observed, null = statistics(labels), [statistics(permuted(labels, seed, stream, b)) for b in range(1, count + 1)]
        order = sorted(range(m), key=lambda h: -observed[h])  # Westfall and Young 1993, algorithm 4.1
        p, least = [0.0] * m, 0.0
        for rank, h in enumerate(order):
            tied = [x for x in order if observed[x] == observed[h]] + order[rank:]
            least = max(least, (1 + sum(max(row[x] for x in set(tied)) >= observed[h] for row in null)) / (1 + count))
            p[h] = least
        add("maxt", "labels active n_permutations seed stream observed p first", labels, active, count, seed, stream, observed, p, permuted(labels, seed, stream, 1))


# --- trends, probe, power ---------------------------------------------------------------------------------------------------

def make_trends():
    for groups in [[(3, 10, 0), (5, 10, 0.5), (9, 10, 1)], [(0, 5, 1), (0, 8, 2), (1, 9, 3)], [(40, 100, 0), (35, 100, 0.5), (30, 100, 1), (12, 97, 1.5), (9, 100, 2)], [(1, 2, -1), (1, 2, 1)], [(7, 9, 3), (1, 30, 10)]]:
        y = [v for k, n, _ in groups for v in [1] * k + [0] * (n - k)]
        x = [d for _, n, d in groups for _ in range(n)]
        z = math.sqrt(len(y)) * stats.pearsonr(x, y)[0]
        if len(groups) > 2:  # the library's variance has N - 1 where Cochran's and Armitage's has N
            theirs = contingency_tables.Table(np.array([[k, n - k] for k, n, _ in groups], float), shift_zeros=False).test_ordinal_association(np.array([d for *_, d in groups]), np.array([1, 0]))
            assert abs(theirs.zscore / z - math.sqrt((len(y) - 1) / len(y))) < 1e-12, (theirs.zscore, z)
        add("cochran_armitage", "passed n dose z p p_rising p_falling", [k for k, _, _ in groups], [n for _, n, _ in groups], [d for *_, d in groups], z, 2 * stats.norm.sf(abs(z)), stats.norm.sf(z), stats.norm.cdf(z))
    for n, k in [(3, 3), (10, 4), (30, 5), (2, 3)]:
        data = [[round(rng.gauss(0.3 * j, 1), 3) for j in range(k)] for _ in range(n)]
        page = stats.page_trend_test(data, method="asymptotic", predicted_ranks=list(range(1, k + 1)))
        add("page", "k data statistic p_rising", k, np.ravel(data), page.statistic, page.pvalue)
    for n, k in [(6, 3), (12, 5), (20, 4)]:
        data = [[int(rng.random() < 0.3 + 0.1 * j) * rng.choice([1, 1, 2]) for j in range(k)] for _ in range(n)]
        ranks = [[ref.Fraction(2 * sum(v < x for v in row) + sum(v == x for v in row) + 1, 2) for x in row] for row in data]
        statistic = sum((j + 1) * r for row in ranks for j, r in enumerate(row))
        variance = sum(ref.page_exact_variance(row) for row in data)
        z = ref.mpf((statistic - ref.Fraction(n * k * (k + 1) ** 2, 4)).numerator) / (statistic - ref.Fraction(n * k * (k + 1) ** 2, 4)).denominator / mpmath.sqrt(ref.mpf(variance.numerator) / variance.denominator)
        add("page", "k data statistic p_rising", k, np.ravel(data), statistic, ref.normal_upper(z))
    for n, g, digits in [(5, 2, 3), (20, 3, 1), (40, 5, 0), (60, 4, 2), (30, 3, 0)]:
        group = [rng.randrange(g) for _ in range(n)]
        group[0], group[1] = 0, 1
        values = [round(rng.gauss(0.4 * v, 1), digits) for v in group]
        j = sum(1.0 if values[b] > values[a] else 0.5 if values[b] == values[a] else 0 for a in range(n) for b in range(n) if group[b] > group[a])
        add("jonckheere", "values group statistic p", values, group, j, stats.kendalltau(group, values, method="asymptotic").pvalue)
    for n in (1, 2, 7, 40):
        y, w = [round(rng.gauss(0.1 * i, 1), 2) for i in range(n)], [round(rng.uniform(0.5, 3), 2) for _ in range(n)]
        add("isotonic", "values weights fitted", y, w, IsotonicRegression().fit(np.arange(n), y, sample_weight=w).predict(np.arange(n)))


def probe_data(seed, n, d):
    """x[i][j] from a splitmix64 stream; the label follows the first three features."""
    g = ref.SplitMix(seed)
    x = [[g.uniform() * 2 - 1 for _ in range(d)] for _ in range(n)]
    y = [int(sum(r[:3]) / 2 + g.uniform() * 2 - 1 > 0) for r in x]
    return np.array(x, np.float64), np.array(y)


def make_probe():
    for seed, n, d, c, standardise in [(1, 20, 2, 1.0, 0), (2, 60, 5, 100.0, 1), (3, 40, 40, 0.1, 0), (4, 30, 80, 1.0, 1), (5, 30, 80, 1e4, 0), (6, 25, 300, 1e-4, 1), (7, 50, 10, 1e5, 0)]:
        x, y = probe_data(seed, n, d)
        z = StandardScaler().fit_transform(x) if standardise else x
        w, f, residual, off = ref.newton_probe(z, y, c)
        assert residual < 1e-12, residual
        library_error["probe_decision"] = max(library_error.get("probe_decision", 0.0), float(off))
        add("probe", "seed n d c standardise scores", seed, n, d, c, standardise, f)
    for seed, n, d, folds, standardise, grid in [(11, 60, 6, 5, 1, [1e-3, 0.1, 10]), (12, 45, 90, 4, 0, [1e-4, 1e-2, 1.0, 100]), (13, 45, 90, 5, 1, [1e-4, 1e-2, 1.0])]:
        x, y = probe_data(seed, n, d)
        fold = [0] * n
        positives, negatives = [i for i in range(n) if y[i]], [i for i in range(n) if not y[i]]
        for first, members in ((0, positives), (len(positives), negatives)):
            for i in range(len(members) - 1, 0, -1):
                j = ref.below(77, "permutation", 0, 4, first + i, i + 1)
                members[i], members[j] = members[j], members[i]
            for r, i in enumerate(members):
                fold[i] = (first + r) % folds
        mean = []
        for c in grid:
            area = []
            for k in range(folds):
                inside = np.array(fold) != k
                scaler = StandardScaler(with_mean=True, with_std=bool(standardise)).fit(x[inside])
                model = LogisticRegression(C=c, tol=1e-9, max_iter=10000).fit(scaler.transform(x[inside]), y[inside])
                area.append(metrics.roc_auc_score(y[~inside], model.decision_function(scaler.transform(x[~inside]))))
            mean.append(np.mean(area))
        add("probe_select", "seed n d folds standardise grid fold auroc best", seed, n, d, folds, standardise, grid, fold, mean, grid[int(np.argmax(mean))])


def make_power():
    for n, gain, loss, alpha in [(390, 0.04, 0.01, 0.05), (390, 0.06, 0.02, 0.05), (487, 0.04, 0.01, 0.05), (487, 0.06, 0.02, 0.05), (280, 0.04, 0.01, 0.05), (280, 0.06, 0.02, 0.05),
                                 (150, 0.04, 0.01, 0.05), (150, 0.06, 0.02, 0.05), (20, 0.5, 0.5, 0.05), (10, 0.9, 0.0, 0.01), (5, 1.0, 0.0, 0.05), (60, 0.2, 0.2, 0.05), (1, 0.5, 0.1, 0.05)]:
        add("power_mcnemar", "n gain loss alpha power", n, gain, loss, alpha, ref.power_mcnemar(n, gain, loss, alpha))
    for n, p0, p1, alpha in [(116, 0.19, 0.3, 0.05), (272, 0.055, 0.1, 0.05), (20, 0.5, 0.8, 0.01), (3, 0.5, 0.9, 0.05), (97, 0.01, 0.05, 0.05), (50, 0.3, 0.3, 0.05)]:
        row = []
        for side in SIDES:
            p = [stats.binomtest(k, n, p0, alternative=side).pvalue for k in range(n + 1)]
            row.append(sum(ref.density(k, n, p1) for k in range(n + 1) if p[k] <= alpha))
        add("power_binomial", "n p0 p1 alpha two_sided greater less", n, p0, p1, alpha, *row)
    for p1, n1, p2, n2, alpha in [(0.3, 100, 0.2, 100, 0.05), (0.04, 390, 0.01, 390, 0.05), (0.5, 20, 0.5, 30, 0.05), (0.9, 60, 0.2, 10, 0.001), (0.02, 272, 0.055, 272, 0.05)]:
        library = proportion.power_proportions_2indep(p1 - p2, p2, n1, ratio=n2 / n1, alpha=alpha, return_results=False)
        add("power_rates", "p1 n1 p2 n2 alpha power", p1, n1, p2, n2, alpha, library)
    for p1, n1, p2, n2, alpha in [(0.7, 12, 0.2, 15, 0.05), (0.5, 10, 0.5, 10, 0.05), (0.9, 8, 0.05, 20, 0.01), (0.3, 30, 0.1, 30, 0.05)]:
        p = {(a, b): [float(ref.fisher(a, n1, b, n2, s)) for s in SIDES] for a in range(n1 + 1) for b in range(n2 + 1)}
        row = [sum(ref.density(a, n1, p1) * ref.density(b, n2, p2) for (a, b), v in p.items() if v[s] <= alpha) for s in range(3)]
        add("power_fisher", "p1 n1 p2 n2 alpha two_sided greater less", p1, n1, p2, n2, alpha, *row)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--out", default=pathlib.Path(__file__).parent, type=pathlib.Path)
    out = parser.parse_args().out / "stats.json"
    for make in (make_rates, make_two_groups, make_pairs, make_separation, make_scores, make_clusters, make_resampling, make_multiple, make_permutations, make_trends, make_probe,
                 make_power):
        make()
        print(make.__name__, flush=True)
    lines = [f' "{name}": {{"columns": {json.dumps(t["columns"])}, "rows": [\n' + ",\n".join("  " + json.dumps(r, separators=(",", ":")) for r in t["rows"]) + "]}" for name, t in tables.items()]
    errors = {k: float(f"{v:.2g}") for k, v in library_error.items()}
    out.write_text('{"library_error": ' + json.dumps(errors) + ',\n "tables": {\n' + ",\n".join(lines) + "}}\n")
    print(f"{out}: {out.stat().st_size} bytes")
    for name, error in sorted(library_error.items()):
        print(f"  {name}: the library is within {error:.2g} of the independent route")


if __name__ == "__main__":
    main()
