#!/usr/bin/env python3
"""Golden numbers for steering: steering.json, read by tests/test_steering.c and tests/steer.sh.

    venv/bin/pip install -r requirements-stats.txt && venv/bin/python make_steering.py

Made with Python 3.11, scipy 1.17.1, statsmodels 0.15.0. Rows of "effects": k of n under treatment, control_k of control_n; the first two are the counts
published for the original project, the last two are what tests/planted_model.py gives by construction with 70 problems and 2 controls.
Where no control changed anything the binomial test is against 1 / (control_n + 1). Rows of "pairs": gained, lost.
"""
import json
import pathlib

from scipy.stats import binom, binomtest, fisher_exact
from statsmodels.stats.proportion import confint_proportions_2indep

effects, pairs = [], []
for k, n, control_k, control_n in [(97, 116, 22, 116), (6, 272, 15, 272), (11, 272, 40, 5440), (0, 50, 3, 1000), (50, 50, 3, 1000), (7, 12, 0, 24), (14, 16, 0, 32)]:
    p0 = control_k / control_n if control_k else 1 / (control_n + 1)
    exact = binomtest(k, n).proportion_ci(0.95, method="exact")
    low, high = confint_proportions_2indep(k, n, control_k, control_n, method="newcomb", compare="diff", alpha=0.05)
    effects.append({"k": k, "n": n, "control_k": control_k, "control_n": control_n, "p0": p0, "p_binomial": float(binomtest(k, n, p0, alternative="greater").pvalue),
                    "p_fisher": float(fisher_exact([[k, n - k], [control_k, control_n - control_k]], alternative="greater")[1]),
                    "low": float(exact.low), "high": float(exact.high), "difference_low": float(low), "difference_high": float(high)})
for gained, lost in [(7, 14), (16, 26), (0, 23), (2, 7), (97, 0), (5, 5), (0, 0)]:
    n, k = gained + lost, min(gained, lost)
    p = float(binomtest(gained, n, 0.5).pvalue) if n else 1.0
    mid = min(1.0, float(2 * (binom.cdf(k, n, 0.5) - 0.5 * binom.pmf(k, n, 0.5)))) if n else 1.0
    pairs.append({"gained": gained, "lost": lost, "p": p, "mid_p": mid})
path = pathlib.Path(__file__).with_name("steering.json")
path.write_text(json.dumps({"effects": effects, "pairs": pairs}, indent=1) + "\n")
