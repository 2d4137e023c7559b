"""Activation scales whose ratios are exactly M / 2**S wherever a sum is requantized.

A convolution's weight scale is free and absorbs any ratio; a sum has no weights, so the scales in front of it and
behind it must themselves be in a dyadic ratio. The groups and these ratios form a graph: a tree is solved by moving
one scale after the other (by less than 2**-k), a loop has no solution and its groups become one.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from srq_hw.fixedpoint import dyadic

Edge = tuple[str, str]


def solve_scales(
    desired: dict[str, float],
    fixed: set[str],
    edges: Iterable[Edge],
    multiplier_bits: int,
    fractions: set[str] | frozenset[str] = frozenset(),
) -> dict[str, float]:
    """Scales near the desired ones with s[a] / s[b] = M / 2**S for every edge (a, b), M of ``multiplier_bits`` bits.

    All ``fixed`` groups have the same scale (one grey level) and keep it; ``fractions`` are that times a power of two
    and stay so. Edges are taken in order, so the result is repeatable.
    """
    leader = {group: group for group in desired}

    def find(group: str) -> str:
        while leader[group] != group:
            group = leader[group]
        return group

    def merge(groups: list[str]) -> None:
        for group in groups[1:]:
            leader[find(group)] = find(groups[0])

    if fixed:
        merge(sorted(fixed))
    wanted = list(dict.fromkeys(edges))
    tree: list[Edge] = []
    changed = True
    while changed:  # a merge can close further loops: start over until nothing merges
        changed, tree = False, []
        anchors = [find(group) for group in (*sorted(fixed)[:1], *sorted(fractions))]
        held = [(anchors[0], other) for other in anchors[1:]]  # powers of two already: edges that cannot move
        for a, b in wanted:
            if find(a) == find(b) or (find(a) in anchors and find(b) in anchors):
                continue
            path = _path(find(a), find(b), [(find(x), find(y)) for x, y in tree] + held)
            if path is None:
                tree.append((a, b))
            else:
                merge(path)
                changed = True
                break
    scale: dict[str, float] = {}
    for group in desired:
        head = find(group)
        scale[head] = desired[group] if group in fixed else max(scale.get(head, 0.0), desired[group])
    for group in sorted(fractions):
        unit = desired[min(fixed)]
        scale[find(group)] = unit * 2.0 ** float(np.ceil(np.log2(scale[find(group)] / unit)))
    for group in fixed:
        scale[find(group)] = desired[group]
    roots = [find(group) for group in (*sorted(fixed), *sorted(fractions))]
    _propagate(scale, [(find(a), find(b)) for a, b in tree], roots, multiplier_bits)
    return {group: scale[find(group)] for group in desired}


def _path(start: str, end: str, tree: list[Edge]) -> list[str] | None:
    """Groups on the way from start to end, or None where there is no way."""
    ways = {start: [start]}
    waiting = [start]
    while waiting:
        here = waiting.pop(0)
        if here == end:
            return ways[here]
        for a, b in tree:
            for other in (b,) if a == here else (a,) if b == here else ():
                if other not in ways:
                    ways[other] = [*ways[here], other]
                    waiting.append(other)
    return None


def _propagate(scale: dict[str, float], tree: list[Edge], roots: list[str], multiplier_bits: int) -> None:
    """Walk every tree from its root (a fixed group, else its first edge's source) and snap the scales in place."""
    done: set[str] = set()
    for root in [*roots, *(a for a, _ in tree)]:
        if root in done:
            continue
        waiting = [root]
        done.add(root)
        while waiting:
            here = waiting.pop(0)
            for a, b in tree:
                if a == here and b not in done:
                    multiplier, shift = dyadic(scale[a] / scale[b], multiplier_bits)
                    scale[b] = scale[a] * 2.0**shift / multiplier
                    done.add(b)
                    waiting.append(b)
                elif b == here and a not in done:
                    multiplier, shift = dyadic(scale[a] / scale[b], multiplier_bits)
                    scale[a] = scale[b] * multiplier / 2.0**shift
                    done.add(a)
                    waiting.append(a)
