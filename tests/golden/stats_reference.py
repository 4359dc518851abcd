"""Independent routes for make_stats.py: exact rational numbers and 40-digit arithmetic, written for clarity and not for speed, and the two
generators of numbers that the C side has as well (Philox 4x32-10, splitmix64)."""
import itertools
import math
from fractions import Fraction

import mpmath
import numpy as np

mpmath.mp.dps = 40
mpf = mpmath.mpf
TIE = 1 + Fraction(1, 10**7)  # outcomes whose probabilities differ by less count as equal


# --- generators -----------------------------------------------------------------------------------------------------------

USES = dict(permutation=4, bootstrap=5)


def philox(counter, key):
    c, k, m = list(counter), list(key), 0xFFFFFFFF
    for _ in range(10):
        p0, p1 = 0xD2511F53 * c[0], 0xCD9E8D57 * c[2]
        c = [(p1 >> 32) ^ c[1] ^ k[0], p1 & m, (p0 >> 32) ^ c[3] ^ k[1], p0 & m]
        k = [(k[0] + 0x9E3779B9) & m, (k[1] + 0xBB67AE85) & m]
    return c


def below(seed, use, item, sample, step, n):
    w = philox((step, item, sample, USES[use]), (seed & 0xFFFFFFFF, seed >> 32))
    return ((w[0] << 32 | w[1]) * n) >> 64


class SplitMix:
    """Steele, Lea, Flood 2014; the C tests draw their larger inputs from the same stream."""

    def __init__(self, seed):
        self.state = seed

    def uniform(self):
        self.state = (self.state + 0x9E3779B97F4A7C15) & (2**64 - 1)
        z = self.state
        z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & (2**64 - 1)
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & (2**64 - 1)
        return ((z ^ (z >> 31)) >> 40) / 2**24  # 24 bits: exact as a float


# --- binomial -------------------------------------------------------------------------------------------------------------

def density(k, n, p):
    p = mpf(p)
    return mpmath.binomial(n, k) * p**k * (1 - p) ** (n - k)


def tail(k, n, p, step):
    """The densities from k away from the mean, until they no longer matter."""
    term, total = density(k, n, p), mpf(0)
    odds = mpf(p) / (1 - mpf(p))
    while 0 <= k <= n and term > total * mpf(10) ** -45:
        total += term
        term *= odds * (n - k) / (k + 1) if step > 0 else mpf(k) / ((n - k + 1) * odds)
        k += step
    return total


def at_least(k, n, p):
    if k <= 0:
        return mpf(1)
    if k > n or p in (0, 1):
        return mpf(1 if k <= n and p == 1 else 0)
    return tail(k, n, p, 1) if k > n * mpf(p) else 1 - tail(k - 1, n, p, -1)


def at_most(k, n, p):
    if k < 0:
        return mpf(0)
    if k + 1 > n * mpf(p):
        return 1 - at_least(k + 1, n, p)
    return mpf(0) if p == 1 else tail(k, n, p, -1)


def binomial_two_sided(k, n, p):
    """The sum of all densities not above that of k; outcomes beyond 45 deviations are left to the tail functions."""
    if p in (0, 1):
        return mpf(1 if k == n * p else 0)
    limit = density(k, n, p) * mpf(TIE.numerator) / TIE.denominator
    mode = int((n + 1) * mpf(p))
    if k == n * mpf(p):
        return mpf(1)

    def edge(from_, to, step):  # first i from the mode outwards with density <= limit
        low, high = 0, abs(to - from_) + 1
        while low < high:
            mid = (low + high) // 2
            i = from_ + step * mid
            if not 0 <= i <= n or density(i, n, p) <= limit:
                high = mid
            else:
                low = mid + 1
        return from_ + step * low

    upper, lower = edge(min(mode, n), n, 1), edge(min(mode, n), 0, -1)
    if lower >= upper:
        return mpf(1)
    return min(mpf(1), at_most(lower, n, p) + at_least(upper, n, p))


def root(f, low, high):
    """Bisection for a monotone f on 40 digits; geometric, because roots may be tiny."""
    low, high = mpf(low), mpf(high)
    rising = f(high) > f(low)
    for _ in range(180):
        mid = mpmath.sqrt(low * high) if low > 0 else high / 2**20 if low == 0 and high > mpf(10) ** -30 else (low + high) / 2
        if (f(mid) > 0) == rising:
            high = mid
        else:
            low = mid
    return (low + high) / 2


def clopper_pearson(k, n, level, start):
    """Newton's method for both equations, from the library's limits."""
    target = (1 - mpf(level)) / 2
    low, high = mpf(float(start[0])), mpf(float(start[1]))
    for _ in range(5):
        if k > 0:
            low -= (at_least(k, n, low) - target) / (k * density(k, n, low) / low)
        if k < n:
            high += (at_most(k, n, high) - target) / ((n - k) * density(k, n, high) / (1 - high))
    assert k == 0 or abs(at_least(k, n, low) / target - 1) < mpf(10) ** -25
    assert k == n or abs(at_most(k, n, high) / target - 1) < mpf(10) ** -25
    return low if k > 0 else mpf(0), high if k < n else mpf(1)


def wilson(k, n, level):
    z = mpmath.sqrt(2) * mpmath.erfinv(mpf(level))
    p = mpf(k) / n
    centre, half = p + z * z / (2 * n), z * mpmath.sqrt(p * (1 - p) / n + z * z / (4 * mpf(n) ** 2))
    return (centre - half) / (1 + z * z / n), (centre + half) / (1 + z * z / n)


# --- 2 x 2 ----------------------------------------------------------------------------------------------------------------

def hypergeometric(n1, n2, s):
    first, last = max(0, s - n2), min(n1, s)
    total = math.comb(n1 + n2, s)
    return first, [Fraction(math.comb(n1, x) * math.comb(n2, s - x), total) for x in range(first, last + 1)]


def fisher(k1, n1, k2, n2, side):
    first, p = hypergeometric(n1, n2, k1 + k2)
    at = k1 - first
    if side == "greater":
        return sum(p[at:])
    if side == "less":
        return sum(p[: at + 1])
    return sum(x for x in p if x <= p[at] * TIE)


def odds_ratio(k1, n1, k2, n2, level):
    first, p = hypergeometric(n1, n2, k1 + k2)
    if len(p) == 1:
        return mpf("nan"), mpf(0), mpf("inf")
    w = [mpf(x.numerator) / x.denominator for x in p]
    at, tail = k1 - first, (1 - mpf(level)) / 2

    def share(odds, part):
        v = [x * odds**i for i, x in enumerate(w)]
        return part(v) / sum(v)

    wide = (mpf(10) ** -20, mpf(10) ** 20)
    mle = 0 if at == 0 else mpmath.inf if at == len(w) - 1 else root(lambda o: share(o, lambda v: sum(i * x for i, x in enumerate(v))) - at, *wide)
    low = mpf(0) if at == 0 else root(lambda o: share(o, lambda v: sum(v[at:])) - tail, *wide)
    high = mpmath.inf if at == len(w) - 1 else root(lambda o: share(o, lambda v: sum(v[: at + 1])) - tail, *wide)
    return mle, low, high


def newcombe_paired(both, lost, gained, neither, level):
    """Newcombe 1998 (paired), method 10, from the cells of his table: e = both, f = gained, g = lost, h = neither."""
    n = both + lost + gained + neither
    e, f, g, h = map(mpf, (both, gained, lost, neither))
    (l1, u1), (l2, u2) = wilson(both + gained, n, level), wilson(both + lost, n, level)
    p1, p2 = (e + f) / n, (e + g) / n
    margins = (e + f) * (g + h) * (e + g) * (f + h)
    if margins == 0:
        phi = mpf(0)
    else:
        b = e * h - f * g
        phi = (b - mpf(n) / 2 if b > mpf(n) / 2 else 0 if b >= 0 else b) / mpmath.sqrt(margins)
    d = p1 - p2
    low = mpmath.sqrt((p1 - l1) ** 2 - 2 * phi * (p1 - l1) * (u2 - p2) + (u2 - p2) ** 2)
    high = mpmath.sqrt((u1 - p1) ** 2 - 2 * phi * (u1 - p1) * (p2 - l2) + (p2 - l2) ** 2)
    return d - low, d + high


# --- t, DeLong, ranks -----------------------------------------------------------------------------------------------------

def student_two_sided(t, df):
    t, df = mpf(t), mpf(df)
    return mpmath.betainc(df / 2, mpf(1) / 2, 0, df / (df + t * t), regularized=True)


def normal_upper(z):
    return mpmath.erfc(mpf(z) / mpmath.sqrt(2)) / 2


def welch(x, y):
    """On the values as exact rationals."""
    x, y = [Fraction(v) for v in x], [Fraction(v) for v in y]

    def moments(v):
        mean = sum(v) / len(v)
        return mean, sum((a - mean) ** 2 for a in v) / (len(v) - 1) / len(v)

    (m1, v1), (m2, v2) = moments(x), moments(y)
    big = lambda f: mpf(f.numerator) / f.denominator
    t = big(m1 - m2) / mpmath.sqrt(big(v1 + v2))
    df = big((v1 + v2) ** 2 / (v1**2 / (len(x) - 1) + v2**2 / (len(y) - 1)))
    return t, df, student_two_sided(t, df)


def kernel(a, b):
    return Fraction(1) if a > b else Fraction(1, 2) if a == b else Fraction(0)


def delong(scores_list, labels):
    """Areas and their covariance from the definition: all pairs, rational numbers."""
    positives, negatives = [i for i, y in enumerate(labels) if y], [i for i, y in enumerate(labels) if not y]
    m, n = len(positives), len(negatives)
    v10 = [[sum(kernel(s[i], s[j]) for j in negatives) / n for i in positives] for s in scores_list]
    v01 = [[sum(kernel(s[i], s[j]) for i in positives) / m for j in negatives] for s in scores_list]
    area = [sum(v) / m for v in v10]

    def cov(a, ma, b, mb):
        return sum((x - ma) * (y - mb) for x, y in zip(a, b)) / (len(a) - 1)

    r = range(len(scores_list))
    s = [[cov(v10[a], area[a], v10[b], area[b]) / m + cov(v01[a], area[a], v01[b], area[b]) / n if m > 1 and n > 1 else None for b in r] for a in r]
    return area, s


def page_exact_variance(row):
    """Variance of sum j x midrank_j over all orders of one block, from all orders."""
    ranks = [Fraction(2 * sum(v < x for v in row) + sum(v == x for v in row) + 1, 2) for x in row]
    values = [sum((j + 1) * r for j, r in enumerate(order)) for order in itertools.permutations(ranks)]
    mean = sum(values) / len(values)
    return sum((v - mean) ** 2 for v in values) / len(values)


# --- power ----------------------------------------------------------------------------------------------------------------

def power_mcnemar(n, gain, loss, alpha):
    """Every (gained, lost) pair, trinomial; numbers of discordant problems with a probability below 1e-25 are left out."""
    gain, loss = mpf(gain), mpf(loss)
    total, critical = mpf(0), -1
    for m in range(n + 1):
        if n > 100 and density(m, n, gain + loss) < mpf(10) ** -25:
            continue
        while 2 * sum(math.comb(m, i) for i in range(critical + 2)) <= alpha * 2**m:
            critical += 1
        weight = math.comb(n, m) * (1 - gain - loss) ** (n - m)
        for g in itertools.chain(range(critical + 1), range(m - critical, m + 1)):
            total += weight * math.comb(m, g) * gain**g * loss ** (m - g)
    return total


def newton_probe(x, y, c):
    """Logistic regression by undamped Newton steps from the library's solution; float64, then checked by its gradient. Dual where d >= n."""
    x, y = np.asarray(x, float), np.asarray(y, float)
    from sklearn.linear_model import LogisticRegression
    model = LogisticRegression(C=c, tol=1e-10, max_iter=20000).fit(x, y)
    n, d = x.shape
    z = np.hstack([x, np.ones((n, 1))])
    w = np.append(model.coef_[0], model.intercept_[0])
    start = x @ w[:-1] + w[-1]
    eye = np.diag(np.append(np.ones(d), 0.0))
    for _ in range(30):
        p = 1 / (1 + np.exp(-(z @ w)))
        gradient = eye @ w - c * z.T @ (y - p)
        h = c * (z * (p * (1 - p))[:, None]).T @ z + eye
        w = w - np.linalg.solve(h, gradient)
    p = 1 / (1 + np.exp(-(z @ w)))
    residual = np.abs(eye @ w - c * z.T @ (y - p)).max() / (c * np.abs(z).sum(0).max())
    f = z @ w
    return w, f, residual, np.abs(start - f).max() / (1 + np.abs(f).max())
