#!/usr/bin/env python3
"""Writes statistics.json: what SciPy, statsmodels and mpmath compute, for tests/statistics.rs to compare with.

pip install scipy statsmodels mpmath; values by SciPy 1.17, statsmodels 0.15, mpmath 1.4.
"""

import json
import math
import random
from pathlib import Path

import mpmath
import numpy as np
from scipy import stats
from statsmodels.stats.power import NormalIndPower
from statsmodels.stats.weightstats import CompareMeans, DescrStatsW

mpmath.mp.dps = 40
random.seed(5)


def welch():
    """Student's own sleep data, the example of every textbook, and three random pairs."""
    sleep = (
        [1.9, 0.8, 1.1, 0.1, -0.1, 4.4, 5.5, 1.6, 4.6, 3.4],
        [0.7, -1.6, -0.2, -1.2, -0.1, 3.4, 3.7, 0.8, 0.0, 2.0],
    )
    pairs = [sleep] + [
        ([random.gauss(0.1, 1.5) for _ in range(n)], [random.gauss(0, 0.5) for _ in range(m)])
        for n, m in ((2, 3), (7, 40), (30, 12))
    ]
    for canary, control in pairs:
        test = stats.ttest_ind(canary, control, equal_var=False)
        greater = stats.ttest_ind(canary, control, equal_var=False, alternative="greater")
        means = CompareMeans(DescrStatsW(canary), DescrStatsW(control))
        low, high = means.tconfint_diff(usevar="unequal")
        pooled = math.sqrt(means.std_meandiff_pooledvar**2 / (1 / len(canary) + 1 / len(control)))
        yield {
            "canary": canary, "control": control, "t": test.statistic, "dof": test.df, "p": greater.pvalue,
            "low": low, "high": high, "d": (np.mean(canary) - np.mean(control)) / pooled,
        }


def normal():
    for alpha in (1e-9, 1e-4, 0.0025, 0.005, 0.01, 0.05, 0.3, 0.9):
        yield {"alpha": alpha, "z": stats.norm.isf(alpha)}


def student():
    for dof in (1, 2.5, 4, 17, 300):
        for alpha in (1e-4, 0.0025, 0.025, 0.3):
            yield {"dof": dof, "alpha": alpha, "t": stats.t.isf(alpha, dof)}


def binomial():
    for hits, trials in ((0, 1000), (4, 1000), (9, 10), (37, 150), (1, 1)):
        for alpha in (0.05, 0.01):
            yield {
                "hits": hits, "trials": trials, "alpha": alpha,
                "upper": 1.0 if hits == trials else stats.beta.isf(alpha, hits + 1, trials - hits),
                "lower": 0.0 if hits == 0 else stats.beta.ppf(alpha, hits, trials - hits + 1),
            }


def boundary():
    """The formula, by forty digits."""
    for variance in (1e-6, 3e-5, 4.7e-4, 0.02):
        for alpha in (0.05, 0.01, 0.0025):
            for effect in (math.log(1.05), math.log(1.2)):
                v, a, e = mpmath.mpf(variance), mpmath.mpf(alpha), mpmath.mpf(effect)
                level = 2 * mpmath.log(1 / (2 * a))
                tau = (level + mpmath.log(1 + level)) / ((mpmath.mpf("1.645") + mpmath.mpf("0.842")) / e) ** 2
                ratio = tau / v
                half = mpmath.sqrt(v * (1 + ratio) / ratio * (level + mpmath.log(1 + ratio)))
                yield {"variance": variance, "alpha": alpha, "effect": effect, "half": float(half)}


def mixture():
    """What the boundary promises, without its formula: the share of Brownian paths that ever cross it."""
    rng = np.random.default_rng(11)
    effect, alpha, paths, looks = math.log(1.05), 0.05, 40_000, 400
    information = ((1.645 + 0.842) / effect) ** 2 * np.geomspace(0.02, 20, looks)
    steps = np.diff(information, prepend=0)
    score = np.cumsum(rng.standard_normal((paths, looks)) * np.sqrt(steps), axis=1)
    level = 2 * math.log(1 / (2 * alpha))
    ratio = (level + math.log(1 + level)) / ((1.645 + 0.842) / effect) ** 2 * information
    half = np.sqrt((1 + ratio) / ratio / information * (level + np.log(1 + ratio)))
    return {"alpha": alpha, "crossed": float(np.mean(np.any(score / information > half, axis=1)))}


def e_process():
    """Exact rational arithmetic in mpmath, event by event."""
    for odds in ([1.25, 1.5, 2, 3, 5, 10, 30], [2, 3, 5, 10, 30], [0.4, 0.6, 0.8, 1.25, 1.6, 2.5]):
        products = [mpmath.mpf(1) for _ in odds]
        blocks = []
        for _ in range(30):
            share, canary, control = random.uniform(0.02, 0.6), random.randint(0, 3), random.randint(0, 5)
            blocks.append([canary, control, share])
            s = mpmath.mpf(share)
            for at, rho in enumerate(odds):
                rho = mpmath.mpf(rho)
                q = rho * s / (rho * s + 1 - s)
                products[at] *= (q / s) ** canary * ((1 - q) / (1 - s)) ** control
        yield {"odds": odds, "blocks": blocks, "log_e": float(mpmath.log(sum(products) / len(odds)))}


def non_inferiority():
    for events, trials, base in ((0, 300, 0.005), (3, 700, 0.005), (40, 1500, 0.02), (0, 0, 0.002)):
        log = stats.binom.logpmf(events, trials, base) - stats.binom.logpmf(events, trials, base + 0.01)
        yield {"events": events, "trials": trials, "base": base, "log_ratio": log}


def sizes():
    solver = NormalIndPower()
    for effect, sd, alpha, power, ratio in ((0.05, 0.3, 0.05, 0.8, 1), (0.0488, 0.6, 0.01, 0.9, 9), (1, 1, 0.025, 0.8, 3)):
        size = solver.solve_power(effect / sd, None, alpha, power, ratio, alternative="larger")
        yield {"effect": effect, "sd": sd, "alpha": alpha, "power": power, "ratio": ratio, "size": float(size)}


def regression():
    rng = np.random.default_rng(3)
    terms = np.column_stack([np.ones(60), rng.lognormal(5, 1, 60), rng.normal(0, 1, 60), rng.uniform(0, 1, 60)])
    target = terms @ [10, 0.33, -4, 7] + rng.normal(0, 3, 60)
    return {
        "terms": terms.tolist(), "target": target.tolist(),
        "coefficients": np.linalg.lstsq(terms, target, rcond=None)[0].tolist(),
    }


def robust():
    for values in ([3.0], [2.0, 1.0], [5.0, 1.0, 9.0, 2.0], [random.gauss(0, 1) for _ in range(31)]):
        kept = len(values) - min(math.ceil(0.25 * len(values)), len(values) - 1)
        yield {
            "values": values, "mean_of_lower": math.fsum(sorted(values)[:kept]) / kept,
            "median": float(np.median(values)), "sd": float(stats.median_abs_deviation(values, scale="normal")),
        }


def spending():
    """Published: Lan and DeMets (1983) as tabled by Reboussin et al. (2000) and printed by R's ldbounds."""
    yield {"alpha": 0.025, "looks": [0.2, 0.4, 0.6, 0.8, 1.0], "boundaries": [4.8769, 3.3569, 2.6803, 2.2898, 2.0310]}
    # One and two looks need no recursion: SciPy's bivariate normal solves the second.
    for alpha, first in ((0.05, 0.5), (0.01, 0.3)):
        spent = lambda t, a=alpha: 2 * stats.norm.sf(stats.norm.isf(a / 2) / math.sqrt(t))
        one = stats.norm.isf(spent(first))
        joint = stats.multivariate_normal([0, 0], [[1, math.sqrt(first)], [math.sqrt(first), 1]])
        low, high = 0.0, 8.0
        for _ in range(60):
            z = (low + high) / 2
            beyond = stats.norm.cdf(one) - joint.cdf([one, z])
            low, high = (z, high) if beyond > spent(1.0) - spent(first) else (low, z)
        yield {"alpha": alpha, "looks": [first, 1.0], "boundaries": [one, (low + high) / 2]}


rows = {
    "welch": list(welch()), "normal": list(normal()), "student": list(student()), "binomial": list(binomial()),
    "boundary": list(boundary()), "mixture": mixture(), "eProcess": list(e_process()),
    "nonInferiority": list(non_inferiority()), "sizes": list(sizes()), "regression": regression(),
    "robust": list(robust()), "spending": list(spending()),
}
text = ",\n".join(f'"{name}": {json.dumps(row)}' for name, row in rows.items())
Path(__file__).with_name("statistics.json").write_text("{\n" + text + "\n}\n", encoding="utf-8")
