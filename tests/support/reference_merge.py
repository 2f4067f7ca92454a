"""The merge methods in float64 numpy, written from their papers and nothing else.

Straightforward where ``git_theta.merge`` is clever: everything in memory, full sorts, vectors
instead of coefficients. Each takes contributors and base as flat or shaped arrays.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence
from itertools import combinations

import numpy as np
from blake3 import blake3
from numpy.typing import NDArray

Array = NDArray[np.float64]
Arrays = Sequence[Array]


def task_vectors(contributors: Arrays, base: Array) -> list[Array]:
    return [contributor - base for contributor in contributors]


def average(contributors: Arrays, weight: Sequence[float], normalize: bool = True) -> Array:
    total = sum(w * c for w, c in zip(weight, contributors, strict=True))
    return np.asarray(total / sum(weight) if normalize else total)


def task_arithmetic(
    contributors: Arrays, base: Array, weight: Sequence[float], lam: float
) -> Array:
    return base + lam * average(task_vectors(contributors, base), weight, normalize=False)


def largest(vector: Array, count: int) -> NDArray[np.bool_]:
    """Which are the ``count`` largest magnitudes; of equals the first ones."""
    order = sorted(range(vector.size), key=lambda i: (-abs(vector.flat[i]), i))
    chosen = np.zeros(vector.shape, dtype=bool)
    for place in order[:count]:
        chosen.flat[place] = True
    return chosen


def keep_largest(vector: Array, count: int) -> Array:
    return np.where(largest(vector, count), vector, 0)


def share_of(density: str, count: int) -> int:
    """max(1, floor(density * count)) of a decimal number written as a string."""
    digits = len(density.partition(".")[2])
    scaled = int(density.replace(".", "")) * count // 10**digits
    return min(count, max(1, scaled))


def sign_elected(deltas: Arrays, weight: Sequence[float], normalize: bool = True) -> Array:
    """TIES, steps two and three: elect signs, then the mean (or sum) of those that agree."""
    merged = np.zeros_like(deltas[0])
    for place in range(merged.size):
        values = [delta.flat[place] for delta in deltas]
        mass = sum(w * v for w, v in zip(weight, values, strict=True))
        sign = 1 if mass >= 0 else -1
        agreeing = [(w, v) for w, v in zip(weight, values, strict=True) if v * sign > 0 and w > 0]
        if agreeing:
            total = sum(w * v for w, v in agreeing)
            merged.flat[place] = total / sum(w for w, _ in agreeing) if normalize else total
    return merged


def ties(
    contributors: Arrays, base: Array, weight: Sequence[float], lam: float, density: str
) -> Array:
    """``density`` is one for all, or one for each with commas between."""
    taus = task_vectors(contributors, base)
    counts = [share_of(each, base.size) for each in density.split(",")] * len(taus)
    trimmed = [keep_largest(tau, count) for tau, count in zip(taus, counts, strict=False)]
    return base + lam * sign_elected(trimmed, weight)


def uniform(seed: int, name: str, content: str, index: int) -> float:
    """The random number of one element, in Python integers."""
    run, offset = divmod(index, 1 << 20)
    label = name.encode("utf-8", "surrogatepass")
    message = struct.pack("<qQQ", seed, run, len(label)) + label + content.encode()
    first, second = struct.unpack("<II", blake3(message).digest()[:8])
    bits = offset ^ first
    bits = (bits ^ bits >> 17) * 0xED5AD4BB % 2**32 ^ second
    bits = (bits ^ bits >> 11) * 0xAC4C1B51 % 2**32
    bits = (bits ^ bits >> 15) * 0x31848BAB % 2**32
    bits ^= bits >> 14
    return (bits >> 8) / 2**24


def draw(seed: int, name: str, content: str, shape: tuple[int, ...]) -> Array:
    numbers = [uniform(seed, name, content, index) for index in range(math.prod(shape))]
    return np.array(numbers, dtype=np.float64).reshape(shape)


def dare(tau: Array, random: Array, density: float, rescale: bool) -> Array:
    kept = np.where(random < np.float32(density), tau, 0)
    return kept / density if rescale and density else kept


def l1_kept(thinned: Array, tau: Array) -> Array:
    """Scaled so that the magnitudes add up to what they did."""
    left = np.abs(thinned).sum()
    return thinned * (np.abs(tau).sum() / left) if left else thinned


def della(tau: Array, random: Array, density: float, epsilon: float, divide: bool = True) -> Array:
    """MAGPRUNE, row by row: the probability to stay grows linearly with the rank."""
    rows = tau.reshape(tau.shape[0] if tau.ndim > 1 else 1, -1)
    draws = random.reshape(rows.shape)
    pruned = np.zeros_like(rows)
    for number, row in enumerate(rows):
        order = sorted(range(row.size), key=lambda i, row=row: (abs(row[i]), -i))
        for rank, place in enumerate(order):
            probability = density
            if row.size > 1:
                probability = density - epsilon + 2 * epsilon * rank / (row.size - 1)
            if draws[number, place] < probability:
                pruned[number, place] = row[place] / (probability if divide else 1)
    return pruned.reshape(tau.shape)


def breadcrumbs(tau: Array, density: str, gamma: str) -> Array:
    """Without the floor(gamma n) largest, and of the rest the floor(density n) largest."""
    top = min(share_or_none(gamma, tau.size), tau.size - 1)
    outliers = keep_largest(tau, top)
    reached = keep_largest(tau, top + share_of(density, tau.size))
    return reached - outliers


def share_or_none(share: str, count: int) -> int:
    digits = len(share.partition(".")[2])
    return int(share.replace(".", "")) * count // 10**digits


def slerp(first: Array, second: Array, t: float) -> Array:
    lengths = np.linalg.norm(first) * np.linalg.norm(second)
    cosine = float((first * second).sum() / lengths) if lengths else 1.0
    if abs(cosine) > 0.9995:
        return (1 - t) * first + t * second
    angle = math.acos(cosine)
    return (math.sin((1 - t) * angle) * first + math.sin(t * angle) * second) / math.sin(angle)


def karcher(vectors: Arrays, weight: Sequence[float], max_iter: int, tol: float) -> Array:
    """Riemannian gradient descent on the unit sphere; the radius is the mean length."""
    lengths = [float(np.linalg.norm(vector)) for vector in vectors]
    radius = sum(w * n for w, n in zip(weight, lengths, strict=True)) / sum(weight)
    alive = [
        (w, v / n) for w, v, n in zip(weight, vectors, lengths, strict=True) if n > 0 and w > 0
    ]
    if not alive:
        return average(vectors, weight)
    total = sum(w for w, _ in alive)
    shares = [(w / total, unit) for w, unit in alive]
    mean = np.asarray(sum(w * unit for w, unit in shares))
    if np.linalg.norm(mean) < 1e-7:
        return average(vectors, weight)
    mean /= np.linalg.norm(mean)
    for _ in range(max_iter):
        tangent = np.zeros_like(mean)
        for share, unit in shares:
            cosine = float(np.clip((mean * unit).sum(), -1, 1))
            angle = math.acos(cosine)
            if math.sin(angle) > 1e-7:
                tangent += share * angle / math.sin(angle) * (unit - cosine * mean)
        size = float(np.linalg.norm(tangent))
        if size < tol or size == 0:
            break
        mean = math.cos(size) * mean + math.sin(size) * tangent / size
        mean /= np.linalg.norm(mean)
    return radius * mean


def model_stock(contributors: Arrays, base: Array) -> Array:
    taus = task_vectors(contributors, base)
    number = len(taus)
    cosine = float(np.mean([cosine_of(a, b) for a, b in combinations(taus, 2)]))
    denominator = 1 + (number - 1) * cosine
    t = number * cosine / denominator if abs(denominator) > 1e-6 else 0.0
    return t * np.mean(contributors, axis=0) + (1 - t) * base


def cosine_of(first: Array, second: Array) -> float:
    lengths = np.linalg.norm(first) * np.linalg.norm(second)
    return float((first * second).sum() / lengths) if lengths else 0.0


def sce(contributors: Arrays, base: Array, select_topk: str, varying: bool = False) -> Array:
    taus = task_vectors(contributors, base)
    variance = np.var(np.stack(taus), axis=0)
    count = share_of(select_topk, base.size)
    if varying:
        count = share_or_none(select_topk, np.count_nonzero(variance))
    chosen = largest(variance, count)
    selected = [np.where(chosen, tau, 0) for tau in taus]
    energy = [float((tau**2).sum()) for tau in selected]
    weight = [e / sum(energy) for e in energy] if sum(energy) else [1.0] * len(taus)
    sign = np.where(sum(selected) >= 0, 1, -1)
    top = sum(w * np.where(tau * sign > 0, tau, 0) for w, tau in zip(weight, selected, strict=True))
    bottom = sum(w * (tau * sign > 0) for w, tau in zip(weight, selected, strict=True))
    return base + np.divide(top, bottom, out=np.zeros_like(base), where=bottom > 0)


def magmax(contributors: Arrays, base: Array, lam: float) -> Array:
    merged = np.zeros_like(base)
    taus = task_vectors(contributors, base)
    for place in range(base.size):
        merged.flat[place] = max((t.flat[place] for t in taus), key=lambda v: (abs(v), v))
    return base + lam * merged


def smear(contributors: Arrays, base: Array) -> Array:
    """By the cosine of each task vector to the sum of all, where it is positive."""
    taus = task_vectors(contributors, base)
    total = np.sum(np.stack(taus), axis=0)
    shares = [max(0.0, cosine_of(tau, total)) for tau in taus]
    if not sum(shares):
        shares = [1.0] * len(taus)
    return average(contributors, shares)


def fisher(
    contributors: Arrays, information: Arrays, weight: Sequence[float], floors: Sequence[float]
) -> Array:
    clamped = [
        w * np.maximum(f, least) for w, f, least in zip(weight, information, floors, strict=True)
    ]
    top = sum(f * c for f, c in zip(clamped, contributors, strict=True))
    bottom = np.asarray(sum(clamped))
    mean = average(contributors, weight)
    return np.where(bottom > 0, np.divide(top, bottom, out=mean.copy(), where=bottom > 0), mean)


def regmean(contributors: Arrays, grams: Arrays, alpha: float, ridge: float) -> Array:
    top: Array | float = 0.0
    bottom: Array | float = 0.0
    level = float(np.mean([np.diag(gram).mean() for gram in grams])) or 1.0
    for weights, gram in zip(contributors, grams, strict=True):
        diagonal = np.diag(gram)
        scaled = alpha * gram + (1 - alpha) * np.diag(diagonal) + ridge * level * np.eye(len(gram))
        top = top + scaled @ weights.T
        bottom = bottom + scaled
    return np.linalg.solve(np.asarray(bottom), np.asarray(top)).T
