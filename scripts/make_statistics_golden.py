#!/usr/bin/env python3
"""Write tests/statistics/golden.json: a second implementation of the loop's statistics, in numpy and scipy.

    python scripts/make_statistics_golden.py      needs numpy and scipy

Written from the definitions, not from the Rust code, and on purpose by other means: p-values by listing all signs (or
by scipy), medians by sorting, products instead of sums of logarithms, segmentations by the plain triple loop, the law of
the sequential test by ranking random magnitudes. `crates/pairbench/tests/statistics.rs` compares. The file carries the
SHA-256 of this script (`script_sha256`), which scripts/tidy.py compares: a change here means writing it again.
"""
import hashlib
import json
from pathlib import Path

import numpy as np
import scipy
from scipy import stats

GOLDEN = Path(__file__).resolve().parent.parent / "tests" / "statistics" / "golden.json"
COMPARISONS = 4_000_000
# The plans of the group-sequential test; looks and bounds.
PLANS = {
    20: ([8, 10, 12, 14, 16, 18, 20], [35, 51, 70, 91, 114, 140, 167]),
    40: ([8, 10, 12, 16, 20, 25, 30, 35, 40], [36, 53, 73, 118, 173, 254, 349, 461, 584]),
    80: ([10, 12, 16, 20, 30, 40, 60, 80], [53, 74, 121, 179, 358, 597, 1232, 2092]),
}


def short(values):
    return [float(f"{value:.6g}") for value in values]


def w_plus(d):
    d = np.asarray(d)
    return float(np.sum(stats.rankdata(np.abs(d)) * ((d > 0) + 0.5 * (d == 0))))


def p_greater(d):
    """All assignments of signs for up to 16 differences, else scipy, which must not see ties or zeros."""
    d = np.asarray(d)
    if len(d) > 16:
        return float(stats.wilcoxon(d, alternative="greater", method="exact").pvalue)
    ranks, zero = stats.rankdata(np.abs(d)), d == 0
    signs = np.arange(2 ** len(d))[:, None] >> np.arange(len(d)) & 1
    outcomes = (ranks * np.where(zero, 0.5, signs)).sum(axis=1)
    return float(np.mean(outcomes >= w_plus(d) - 1e-9))


def signed_rank_cases(rng):
    samples = [
        [0.5],
        [-1, 2, 3, 4, 5, 6],
        [0, 0, 1, -1, 1, 2, 2, -3],
        [1] * 8,
        [0, 0, 0],
        *(rng.integers(-4, 6, size) for size in (9, 12, 15)),
        *(short(rng.normal(0.3, 1.0, size)) for size in (6, 10, 14, 20)),
        short(rng.standard_t(2, 33) + 0.4),
        short(rng.normal(0.1, 0.5, 50)),
    ]
    for sample in samples:
        d = np.asarray(sample, float)
        i, j = np.tril_indices(len(d))
        walsh = np.sort((d[i] + d[j]) / 2)
        critical = len(walsh) - len(walsh) // 7
        yield {
            "d": list(d),
            "w_plus": w_plus(d),
            "p_greater": p_greater(d),
            "p_two_sided": min(1.0, 2 * min(p_greater(d), p_greater(-d))),
            "estimate": float(np.median(walsh)),
            "critical": critical,
            "low": float(walsh[::-1][critical - 1]),
            "high": float(walsh[critical - 1]),
        }


def null_tail_cases():
    """For small n: how many of the 2^n subsets of 1..n have each sum."""
    for pairs in range(1, 13):
        signs = np.arange(2**pairs)[:, None] >> np.arange(pairs) & 1
        yield {"pairs": pairs, "counts": np.bincount((signs * np.arange(1, pairs + 1)).sum(axis=1)).tolist()}


def sequential_cases(rng):
    """Share of comparisons without a difference that reject above zero at a look or before it."""
    for pairs, (looks, bounds) in PLANS.items():
        rejected = np.zeros(len(looks), dtype=int)
        for _ in range(0, COMPARISONS, 50_000):
            magnitudes = rng.random((50_000, pairs), dtype=np.float32)
            positive = rng.integers(0, 2, (50_000, pairs), dtype=np.int16)
            alive = np.ones(50_000, dtype=bool)
            for index, (look, bound) in enumerate(zip(looks, bounds)):
                by_magnitude = np.take_along_axis(positive[:, :look], np.argsort(magnitudes[:, :look], axis=1), axis=1)
                rejects = alive & (by_magnitude @ np.arange(1, look + 1) >= bound)
                rejected[index] += rejects.sum()
                alive &= ~rejects
        spent = np.cumsum(rejected) / COMPARISONS
        yield {"pairs": pairs, "comparisons": COMPARISONS, "looks": looks, "bounds": bounds, "spent": spent.tolist()}


def e_value(d, theta):
    """Mean over the strengths of the product of all bets, as it is defined."""
    values = []
    for strength in (0.25, 0.5, 1.0, 2.0):
        product = 1.0
        for index in range(1, len(d)):
            scale = np.median(np.abs(d[:index]))
            if scale > 0:
                x = strength * (d[index] - theta) / scale
                product *= 2 * np.exp(x) / (np.exp(x) + np.exp(-x))
        values.append(product)
    return np.mean(values)


def e_process_cases(rng):
    for sample in ([1, -1, 2], [0, 0, 1, 3, -2], short(rng.normal(0.4, 1, 30)), short(rng.standard_t(3, 60))):
        d = np.asarray(sample, float)
        for theta in (0.0, -0.3):
            yield {
                "d": list(d),
                "theta": theta,
                "above": float(np.log(e_value(d, theta))),
                "below": float(np.log(e_value(-d, -theta))),
            }


def equivalence_cases(rng):
    for size, mean, sd, margin in ((5, 0.001, 0.002, 0.005), (5, 0.004, 0.002, 0.005), (2, 0, 1, 3), (12, -0.3, 1, 1), (60, 0, 1, 0.3)):
        d = np.asarray(short(rng.normal(mean, sd, size)))
        above = stats.ttest_1samp(d, -margin, alternative="greater").pvalue
        below = stats.ttest_1samp(d, margin, alternative="less").pvalue
        interval = stats.ttest_1samp(d, 0).confidence_interval(0.9)
        yield {
            "differences": list(d),
            "margin": margin,
            "mean": float(d.mean()),
            "p": float(max(above, below)),
            "low": float(interval.low),
            "high": float(interval.high),
        }


def robust_cases(rng):
    for sample in (rng.integers(0, 5, 12), short(rng.normal(size=9)), short(rng.standard_cauchy(40)), [3.0]):
        values = np.asarray(sample, float)
        fractions = [0.0, 0.025, 0.3, 0.5, 0.975, 1.0]
        yield {
            "values": list(values),
            "fractions": fractions,
            "quantiles": np.quantile(values, fractions).tolist(),
            "mad_sd": float(stats.median_abs_deviation(values, scale="normal")),
            "mid_ranks": stats.rankdata(values).tolist(),
        }


def segment(series, shortest=5):
    """All segmentations by dynamic programming; see crates/pairbench/src/stats/change_points.rs for the objective."""
    x = np.asarray(series)
    n = len(x)
    lag_1, lag_2 = (stats.median_abs_deviation(x[lag:] - x[:-lag], scale="normal") for lag in (1, 2))
    correlation = min(max((lag_2 / lag_1) ** 2 - 1, 0) + 1 / np.sqrt(n), 0.95)
    sd = lag_1 / np.sqrt(2 * (1 - correlation))
    penalty = 3 * np.log(n) * sd * np.sqrt(2 * np.pi) / 4 * (1 + correlation) / (1 - correlation)
    best = {0: (0.0, [])}
    for end in range(shortest, n + 1):
        for start in [start for start in best if start <= end - shortest]:
            part = x[start:end]
            cost = best[start][0] + np.abs(part - np.median(part)).sum() + penalty
            if end not in best or cost < best[end][0]:
                best[end] = (cost, best[start][1] + [start])
    return best[n][1][1:]


def change_point_cases(rng):
    def levels(*parts):
        return np.concatenate([np.full(count, level) for count, level in parts])

    def drift(count, correlation):
        noise = rng.normal(size=count)
        for index in range(1, count):
            noise[index] = correlation * noise[index - 1] + np.sqrt(1 - correlation**2) * noise[index]
        return noise

    steps = levels((40, 8.0), (50, 8.2), (30, 8.1))
    bursts = np.where(rng.random(120) < 0.1, -0.5, 0.0)
    for planted, series in (
        ([40, 90], steps + 0.03 * rng.normal(size=120)),
        ([40, 90], steps + 0.02 * rng.standard_t(2, 120) + bursts),
        ([40, 90], steps + 0.02 * drift(120, 0.4)),
        ([], 0.05 * rng.normal(size=100)),
        ([], 0.05 * drift(120, 0.5)),
        ([60], levels((60, 0.0), (12, 1.0)) + 0.2 * rng.normal(size=72)),
    ):
        series = short(series)
        yield {"series": series, "planted": planted, "found": segment(series)}


def main():
    rng = np.random.default_rng(20250611)
    golden = {
        "script_sha256": hashlib.sha256(Path(__file__).read_bytes()).hexdigest(),
        "versions": f"numpy {np.__version__}, scipy {scipy.__version__}",
        "signed_rank": list(signed_rank_cases(rng)),
        "null_tail": list(null_tail_cases()),
        "e_process": list(e_process_cases(rng)),
        "equivalence": list(equivalence_cases(rng)),
        "robust": list(robust_cases(rng)),
        "change_points": list(change_point_cases(rng)),
        "sequential": list(sequential_cases(rng)),
    }
    # One case a line: short, and a change shows where it is.
    lines = []
    for name, value in golden.items():
        text = json.dumps(value)
        if isinstance(value, list):
            text = "[\n" + ",\n".join(json.dumps(case) for case in value) + "\n]"
        lines.append(f"{json.dumps(name)}: {text}")
    GOLDEN.parent.mkdir(parents=True, exist_ok=True)
    GOLDEN.write_text("{\n" + ",\n".join(lines) + "\n}\n")


if __name__ == "__main__":
    main()
