"""Lists, widths and policies as the user writes them."""

from __future__ import annotations

import pytest

from srq_hw.compare.options import Widths, parse_list, parse_policy, parse_widths
from srq_hw.errors import InputError


def test_widths() -> None:
    assert parse_widths("8, w4a8,W6A6,8") == (Widths(8, 8), Widths(4, 8), Widths(6, 6))
    assert [str(item) for item in parse_widths("8,w4a8")] == ["W8A8", "W4A8"]


@pytest.mark.parametrize("text", ["1", "17", "w4a17", "w1a8"])
def test_widths_out_of_range(text: str) -> None:
    with pytest.raises(InputError, match="allowed are 2 to 16"):
        parse_widths(text)


@pytest.mark.parametrize("text", ["eight", "8.5", "-4", "w4", "4a4x"])
def test_not_a_width(text: str) -> None:
    with pytest.raises(InputError, match="not a width"):
        parse_widths(text)


def test_lists() -> None:
    assert parse_list(" a,b ,a,", "--sets") == ("a", "b")
    with pytest.raises(InputError, match="--sets"):
        parse_list(" , ", "--sets")


def test_policy() -> None:
    assert parse_policy(None, "--sums", 24) is None
    assert parse_policy("recipe", "--sums", 24) is None
    assert parse_policy("none", "--sums", 24) == "none"
    assert parse_policy("16", "--sums", 24) == 16
    for text in ("25", "1", "wide", ""):
        with pytest.raises(InputError, match="allowed are 2 to 24"):
            parse_policy(text, "--sums", 24)
