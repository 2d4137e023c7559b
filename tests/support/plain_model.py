"""graph.json run by plain Python integers and loops, from the words of docs alone: nothing of srq_hw is imported.

Slow and simple on purpose: what a bundle's receiver could write from its documentation to check the golden vectors.
"""

from __future__ import annotations

import base64
import struct
from typing import Any

Image = list[list[list[int]]]  # rows, columns, channels

CODES = {"int8": "b", "int16": "h", "int32": "i", "int64": "q"}


def numbers(item: dict[str, Any]) -> list[int]:
    """The flat values of a stored array: little-endian, last index fastest."""
    raw = base64.b64decode(item["base64"])
    count = len(raw) // struct.calcsize(CODES[item["dtype"]])
    return list(struct.unpack(f"<{count}{CODES[item['dtype']]}", raw))


def run(graph: dict[str, Any], image: Image) -> Image:
    """The output image."""
    zero = {tensor["name"]: tensor["zero_point"] for tensor in graph["tensors"]}
    assert not any(zero.values()), "this model knows symmetric types only"
    values = {graph["input"]: image}
    for node in graph["nodes"]:
        values[node["output"]] = OPS[node["op"]](node, [values[name] for name in node["inputs"]])
    return values[graph["output"]]


def conv(node: dict[str, Any], ins: list[Image]) -> Image:
    """Cross-correlation with zero padding; weight (out, in, rows, columns), one group."""
    assert node["attrs"]["groups"] == 1
    outs, channels, rows, columns = node["params"]["weight"]["shape"]
    weight, bias = numbers(node["params"]["weight"]), numbers(node["params"]["bias"])
    source, result = ins[0], []
    height, width = len(source), len(source[0])
    for y in range(height):
        line = []
        for x in range(width):
            sums = list(bias)
            for dy in range(rows):
                for dx in range(columns):
                    yy, xx = y + dy - rows // 2, x + dx - columns // 2
                    if not (0 <= yy < height and 0 <= xx < width):
                        continue
                    for c, value in enumerate(source[yy][xx]):
                        for o in range(outs):
                            sums[o] += value * weight[((o * channels + c) * rows + dy) * columns + dx]
            line.append(sums)
        result.append(line)
    return result


def rounded(top: int, shift: int, rule: str) -> int:
    """top / 2**shift to an integer; Python's >> rounds down and its % is never negative."""
    if shift <= 0:
        return top << -shift
    down, rest, half = top >> shift, top % (1 << shift), 1 << (shift - 1)
    up = {
        "floor": False,
        "trunc": top < 0 and rest > 0,
        "half_up": rest >= half,
        "half_away": rest > half or (rest == half and top > 0),
        "half_even": rest > half or (rest == half and down % 2 == 1),
    }[rule]
    return down + int(up)


def requant(node: dict[str, Any], ins: list[Image]) -> Image:
    attrs, params = node["attrs"], {key: numbers(item) for key, item in node["params"].items()}

    def one(value: int, channel: int) -> int:
        key = "negative_multiplier" if value < 0 and "negative_multiplier" in params else "multiplier"
        pick = {name: row[channel if len(row) > 1 else 0] for name, row in params.items()}
        return max(attrs["lo"], min(attrs["hi"], rounded(value * pick[key], pick["shift"], attrs["rounding"])))

    return [[[one(value, c) for c, value in enumerate(pixel)] for pixel in line] for line in ins[0]]


def offset(node: dict[str, Any], ins: list[Image]) -> Image:
    added = numbers(node["params"]["offset"])
    return [[[a + b for a, b in zip(pixel, added, strict=True)] for pixel in line] for line in ins[0]]


def add(node: dict[str, Any], ins: list[Image]) -> Image:
    ma, mb = node["attrs"]["multipliers"]
    a, b = ins
    return [
        [[ma * a[y][x][c] + mb * b[y][x][c] for c in range(len(a[y][x]))] for x in range(len(a[y]))]
        for y in range(len(a))
    ]


def concat(node: dict[str, Any], ins: list[Image]) -> Image:
    rows, columns = range(len(ins[0])), range(len(ins[0][0]))
    return [[[value for part in ins for value in part[y][x]] for x in columns] for y in rows]


def depth_to_space(node: dict[str, Any], ins: list[Image]) -> Image:
    """CRD: output (y, x, c) is channel (c * block + y % block) * block + x % block of the pixel (y, x) // block."""
    block, mode, source = node["attrs"]["block"], node["attrs"]["mode"], ins[0]
    outs = len(source[0][0]) // block**2

    def channel(dy: int, dx: int, c: int) -> int:
        return (c * block + dy) * block + dx if mode == "CRD" else (dy * block + dx) * outs + c

    return [
        [
            [source[y // block][x // block][channel(y % block, x % block, c)] for c in range(outs)]
            for x in range(len(source[0]) * block)
        ]
        for y in range(len(source) * block)
    ]


def resize(node: dict[str, Any], ins: list[Image]) -> Image:
    factor, source = node["attrs"]["factor"], ins[0]
    return [
        [list(source[y // factor][x // factor]) for x in range(len(source[0]) * factor)]
        for y in range(len(source) * factor)
    ]


OPS = {
    "Conv": conv,
    "Requant": requant,
    "Offset": offset,
    "Add": add,
    "Concat": concat,
    "DepthToSpace": depth_to_space,
    "ResizeNearest": resize,
}


def beats_to_image(text: str, stream: dict[str, Any]) -> Image:
    """A .hex file by the README of a bundle: row, column, beat; lane 0 in the least significant bits."""
    lines = text.splitlines()
    bits, lanes = stream["element_bits"], stream["lanes"]
    assert len(lines) == stream["beats_per_frame"] and {len(line) for line in lines} == {stream["tdata_bits"] // 4}
    flat = []
    for line in lines:
        word = int(line, 16)
        assert word < 1 << stream["data_bits"], "the bits above the data are 0"
        for lane in range(lanes):
            value = (word >> (bits * lane)) % (1 << bits)
            flat.append(value - (1 << bits) if stream["signed"] and value >= 1 << (bits - 1) else value)
    rows, columns, channels = stream["height"], stream["width"], stream["channels"]
    assert len(flat) == rows * columns * channels
    return [
        [flat[(y * columns + x) * channels : (y * columns + x + 1) * channels] for x in range(columns)]
        for y in range(rows)
    ]
