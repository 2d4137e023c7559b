"""Finding weights, applying the policy, and what the hash of a cell covers."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from srq_hw.compare import cells
from srq_hw.compare.cells import (
    NetworkEntry,
    check_policy,
    check_widths,
    find_methods,
    network_sha256,
    with_policy,
)
from srq_hw.compare.options import CompareOptions, Widths
from srq_hw.compare.run import make_grid
from srq_hw.errors import InputError
from srq_hw.networks.loading import load_network
from srq_hw.quantize.recipe import load_recipe
from srq_hw.target import load_target

from .conftest import RGB, write_recipe

W4, W8 = Widths(4, 4), Widths(8, 8)


def find_networks(options: CompareOptions) -> tuple[NetworkEntry, ...]:
    return cells.find_networks(options, load_target(options.target))


@pytest.mark.parametrize(
    ("files", "name", "wanted"),
    [
        (["edsr8_64_x2.pth", "edsr8_64_x4.pth"], "edsr8_64_x2", "edsr8_64_x2.pth"),
        (["carn_m_x2x3x4.pth"], "carn_m_x3", "carn_m_x2x3x4.pth"),
        (["carn_m_x2x3x4.pth"], "carn_x3", None),
        (["carn_m_x2x4.pth"], "carn_m_x3", None),
        (["carn_m_x2x3x4.pth", "carn_m_x3.safetensors"], "carn_m_x3", "carn_m_x3.safetensors"),
        (["edsr_baseline_x2-1bc95232.pt"], "edsr_baseline_x2", "edsr_baseline_x2-1bc95232.pt"),
        (["edsr_mlperf_f32b5_x2.tflite"], "edsr_mlperf_f32b5_x2", None),
    ],
)
def test_weights_by_name(tmp_path: Path, files: list[str], name: str, wanted: str | None) -> None:
    for file in files:
        (tmp_path / file).write_bytes(b"")
    found = cells._in_folder(name, tmp_path)
    assert (found.name if found else None) == wanted


def test_weights_missing(options: CompareOptions, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"carn_x2: weights missing; no --weights-dir is given"):
        find_networks(replace(options, networks=("carn_x2",)))
    with pytest.raises(InputError, match=r"holds no file of it"):
        find_networks(replace(options, networks=("carn_x2",), weights_dir=tmp_path))
    with pytest.raises(InputError, match="not a folder"):
        find_networks(replace(options, networks=("carn_x2",), weights_dir=tmp_path / "none"))
    with pytest.raises(InputError, match=r"did you mean 'carn_x2'\?"):
        find_networks(replace(options, networks=("carn_x2_",)))
    with pytest.raises(InputError, match="--networks all"):
        find_networks(replace(options, networks=("all",), weights_dir=tmp_path))


def test_all_networks_with_weights(options: CompareOptions, tmp_path: Path) -> None:
    net = load_network()
    torch.save(net.module.state_dict(), tmp_path / "srq_edsr4_24_x2.pth")
    found = find_networks(replace(options, networks=("all", RGB), weights_dir=tmp_path))
    assert [entry.spec for entry in found] == ["srq_edsr4_24_x2", RGB]
    assert found[0].weights == tmp_path / "srq_edsr4_24_x2.pth"


def test_edges(options: CompareOptions) -> None:
    recipe, srq = load_recipe("minmax"), load_recipe("srq")
    assert with_policy(recipe, W4, options).policy.edges == 8
    assert with_policy(recipe, W8, options).policy.edges is None
    assert with_policy(recipe, Widths(4, 8), options).policy.edges == 8
    assert with_policy(recipe, W4, replace(options, edges="none")).policy.edges is None
    assert with_policy(recipe, W4, replace(options, edges=6)).policy.edges == 6
    assert with_policy(recipe, W8, replace(options, edges=6)).policy.edges is None
    own = recipe.model_copy(update={"policy": recipe.policy.model_copy(update={"edges": 5})})
    assert with_policy(recipe, W4, options).policy.tail is None
    assert with_policy(recipe, W4, replace(options, tail=8)).policy.tail == 8
    assert with_policy(recipe, W8, replace(options, tail=8)).policy.tail is None
    assert with_policy(own, W4, options).policy.edges == 5
    assert with_policy(srq, W4, options).policy.sums == "widest"
    assert with_policy(srq, W4, replace(options, sums="none")).policy.sums is None
    assert with_policy(recipe, W4, replace(options, sums=12)).policy.sums == 12


def test_widths_of_the_target() -> None:
    target = load_target("dpu-pow2")
    check_widths((W8,), target)
    with pytest.raises(InputError, match=r"W4A4: 4 bits for weights; target dpu-pow2 allows 8 to 8"):
        check_widths((W8, W4), target)
    with pytest.raises(InputError, match=r"W8A17|17 bits for activations"):
        check_widths((Widths(8, 17),), load_target("int-generic"))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"sums": 16}, "--sums 16: target dpu-pow2 allows 8 to 8 bits in sums"),
        ({"sums": 4}, "--sums 4: target dpu-pow2 allows 8 to 8"),
        ({"edges": 12}, "--edges 12: 12 bits for weights; target dpu-pow2 allows 8 to 8"),
        ({"tail": 12}, "--tail 12: 12 bits for weights; target dpu-pow2 allows 8 to 8"),
    ],
)
def test_policy_of_the_target(options: CompareOptions, change: dict[str, int], words: str) -> None:
    """Refused before any work; a width that would not count is no mistake."""
    aim = replace(options, widths=(W8,), target="dpu-pow2")
    with pytest.raises(InputError, match=re.escape(words)):
        make_grid(replace(aim, **change))  # type: ignore[arg-type]
    check_policy(replace(aim, sums=8, edges=4, tail="none"), load_target("dpu-pow2"))
    check_policy(replace(aim, sums="none"), load_target("dpu-pow2"))
    check_policy(replace(options, sums=16, edges=8), load_target("int-generic"))


def test_methods_need_names_of_their_own(tmp_path: Path) -> None:
    path = write_recipe(tmp_path / "minmax.yaml", "{method: minmax}")
    with pytest.raises(InputError, match="two recipes are called minmax"):
        find_methods(("minmax", path))
    with pytest.raises(InputError, match=r"did you mean 'percentile'\?"):
        find_methods(("percentil",))


def only_key(options: CompareOptions) -> str:
    return make_grid(replace(options, methods=options.methods[:1])).cells[0].program_key


def test_what_the_hash_covers(options: CompareOptions, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = only_key(options)
    assert only_key(options) == first
    recipe = tmp_path / "all.yaml"
    text = recipe.read_text()

    recipe.write_text(text.replace("A test", "Another title"))
    assert only_key(options) == first
    recipe.write_text(text.replace("seed: 1", "seed: 2"))
    seeded = only_key(options)
    recipe.write_text(text)
    others = [
        seeded,
        only_key(replace(options, widths=(Widths(4, 5),))),
        only_key(replace(options, target="zcu104")),
        only_key(replace(options, edges="none")),
        only_key(replace(options, calib_images=options.data / "B")),
        only_key(replace(options, calib_low=True)),
        only_key(replace(options, networks=("tests.compare.nets:luma",))),
    ]
    monkeypatch.setattr(cells, "source_sha256", lambda: "another version")
    others.append(only_key(options))
    assert len({first, *others}) == len(others) + 1


def test_test_images_are_in_the_cell_not_in_the_program(options: CompareOptions) -> None:
    one, other = make_grid(options), make_grid(replace(options, sets=("A", "B")))
    assert one.cells[0].program_key == other.cells[0].program_key
    assert one.cells[0].key(one.sets) != other.cells[0].key(other.sets)
    assert one.cells[0].score_key(one.sets[0]) != one.cells[0].score_key(other.sets[1])


def test_a_changed_weight_is_another_network() -> None:
    net = load_network(RGB)
    before = network_sha256(net)
    with torch.no_grad():
        net.module.get_parameter("first.bias")[0] += 2**-10
    assert network_sha256(net) != before == network_sha256(load_network(RGB))
