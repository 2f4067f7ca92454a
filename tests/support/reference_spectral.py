"""Merge methods of matrices in float64 numpy, written from their papers and nothing else."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Arrays = Sequence[Array]


def orthogonal(matrix: Array) -> Array:
    """The polar factor, by the eigenvectors of the smaller Gram matrix."""
    if matrix.shape[0] < matrix.shape[1]:
        return orthogonal(matrix.T).T
    values, vectors = np.linalg.eigh(matrix.T @ matrix)
    return matrix @ (vectors / np.sqrt(values)) @ vectors.T


def tsv(taus: Arrays) -> Array:
    count = max(1, min(taus[0].shape) // len(taus))
    left, middle, right = [], [], []
    for tau in taus:
        u, s, v = np.linalg.svd(tau, full_matrices=False)
        for place in range(count):
            left.append(u[:, place])
            middle.append(s[place])
            right.append(v[place])
    return orthogonal(np.array(left).T) @ np.diag(middle) @ orthogonal(np.array(right).T).T


def iso_c(taus: Arrays) -> Array:
    summed = np.sum(taus, axis=0)
    values = np.linalg.svd(summed, compute_uv=False)
    polar = orthogonal(summed if summed.shape[0] >= summed.shape[1] else summed.T)
    return values.mean() * (polar if polar.shape == summed.shape else polar.T)


def iso_cts(taus: Arrays, common: float) -> Array:
    size, number = min(taus[0].shape), len(taus)
    specific = round((size - int(size * common)) / number) * number
    shared, each = size - specific, specific // number
    u, s, v = np.linalg.svd(np.sum(taus, axis=0), full_matrices=False)
    left, middle, right = [], [], []
    for tau in taus:
        rest = tau - u[:, :shared] @ u[:, :shared].T @ tau
        own_u, own_s, own_v = np.linalg.svd(rest, full_matrices=False)
        left += list(own_u[:, :each].T)
        middle += list(own_s[:each])
        right += list(own_v[:each])
    left += list(u[:, :shared].T)
    middle += list(s[:shared])
    right += list(v[:shared])
    return np.mean(middle) * orthogonal(np.array(left).T) @ orthogonal(np.array(right).T).T


def interference(tau: Array, taus: Arrays) -> float:
    """The loss that WUDI minimises."""
    return float(sum((((tau - t) @ t.T) ** 2).sum() / (t**2).sum() for t in taus))


def interference_gradient(tau: Array, taus: Arrays) -> Array:
    return np.asarray(sum(2 * (tau - t) @ t.T @ t / (t**2).sum() for t in taus))


def consensus(taus: Arrays, threshold: float, agree: int) -> Array:
    summed = np.sum(taus, axis=0)
    votes = sum((np.abs(t) > threshold * np.abs(summed - t)).astype(int) for t in taus)
    return np.where(votes >= agree, summed, 0)


def ram(taus: Arrays, threshold: float) -> Array:
    merged = np.zeros_like(taus[0])
    for place in range(merged.size):
        active = [t.flat[place] for t in taus if abs(t.flat[place]) > threshold]
        merged.flat[place] = sum(active) / len(active) if active else 0
    return merged


def ram_plus(taus: Arrays, threshold: float, r: float, alpha: float) -> Array:
    merged = ram(taus, threshold)
    for own in range(len(taus)):
        shared = unique = 0
        alone = []
        for place in range(merged.size):
            who = [n for n, t in enumerate(taus) if abs(t.flat[place]) > threshold]
            if own in who and len(who) == 1:
                alone.append(place)
            unique += who == [own]
            shared += own in who and len(who) > 1
        for place in alone:
            merged.flat[place] *= 1 + r * min(max(shared / unique, 0), alpha)
    return merged


def svc(merged: Array, taus: Arrays, alpha: float) -> Array:
    """SVC of a merged task vector; left singular vectors by the eigenvectors of Δ Δᵀ."""
    values, left = np.linalg.eigh(merged @ merged.T)
    found = np.zeros_like(merged)
    for place in np.argsort(values)[::-1][: min(merged.shape)]:
        u = left[:, place]
        common = u @ merged  # σ vᵀ
        shares = [(common @ (u @ t)) / ((u @ t) @ (u @ t)) if (u @ t).any() else 0 for t in taus]
        found += np.outer(u, common) * len(taus) / sum(max(alpha, share) for share in shares)
    return found


def core_space(ups: Arrays, downs: Arrays) -> tuple[Array, Array]:
    """Bases of the columns of all B and of the rows of all A, by singular value."""
    left = np.linalg.svd(np.hstack(ups), full_matrices=False)[0]
    right = np.linalg.svd(np.vstack(downs), full_matrices=False)[2]
    return left, right


def softmax(rows: Array) -> Array:
    powers = np.exp(rows - rows.max(-1, keepdims=True))
    return powers / powers.sum(-1, keepdims=True)


def arcee_fusion(ours: Array, theirs: Array) -> Array:
    p, q = softmax(theirs) + 1e-8, softmax(ours) + 1e-8
    importance = np.abs(theirs - ours) * (p * np.log(p / q)).sum(-1, keepdims=True)
    ranked = np.sort(importance.ravel())
    low, middle, high = (ranked[int(q * (ranked.size - 1))] for q in (0.25, 0.5, 0.75))
    return np.where(importance >= middle + 1.5 * (high - low), theirs, ours)


def nearswap(ours: Array, theirs: Array, t: float) -> Array:
    distance = np.abs(ours - theirs)
    share = np.minimum(1, t / np.maximum(distance, 1e-6))
    return ours + share * (theirs - ours)
