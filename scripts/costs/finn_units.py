"""FINN's own RTL units as Yosys reads them: its sources with a few lines changed, and the grid that is synthesised.

Nothing of FINN's sources is kept in this repository: they are read from the installed package, changed in memory where
slang (Yosys' SystemVerilog reader) refuses them, and written below build/. No change touches the logic that is counted.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from srq_hw.backends.rtl.synth import WORKER, Figures, figures_of
from srq_hw.errors import RunError
from srq_hw.graph.ir import Int

Parameters = Mapping[str, int]
HOLDER = "srq_finn_holder"
_GCD = """function automatic int unsigned gcd(input int unsigned a, input int unsigned b);
    int unsigned x, y, rest;
    x = a;
    y = b;
    while (y != 0) begin
        rest = x % y;
        x = y;
        y = rest;
    end
    return x;
endfunction"""


def library() -> Path:
    """FINN's RTL library; RunError where the installed FINN+ comes without it."""
    import finn

    place = Path(str(finn.__file__)).parent / "finn-rtllib"
    if not (place / "mvu" / "mvu.sv").is_file():
        raise RunError(f"FINN's RTL sources are not in {place}")
    return place


# --- changes that slang needs -----------------------------------------------------------------------------------------


def _add_multi(text: str) -> str:
    """A function of a generate block may not be called for a constant: it moves out of the block."""
    start = text.index("\t\ttypedef int unsigned  leaf_load_t")
    end = text.index("\n", text.index("endfunction : init_leaf_loads")) + 1
    block, rest = text[start:end], text[:start] + text[end:]
    place = rest.index("\tuwire [SUM_WIDTH-1:0]  sum0;")
    return rest[:place] + block + rest[place:]


def _no_watchdog(text: str) -> str:
    """A check for simulation with a delay in it."""
    return re.sub(r"\tif\(1\) begin : blkRecoveryWatch.*?end : blkRecoveryWatch", "", text, flags=re.DOTALL)


def _two_states(text: str) -> str:
    """Comparison with a don't-care bit, written with the bit that cares; and `Scope`, which is 1 for 2**bits - 1
    thresholds, without the arm whose range of bits is empty in the first stage."""
    text = re.sub(r",[^,]*\n\t\tCFG = 2.b1x[^\n]*", "\n", text)
    text = re.sub(r"Scope <= \(SCOPE_REDUCE[^;]*;", "Scope <= 1;", text)
    # Yosys minds the case, and calls constants in LUTs logic.
    text = text.replace("RAM_STYLE = RAM_STYLE", "ram_style = RAM_STYLE").replace('"distributed"', '"logic"')
    return text.replace("P.op !=? CFG", "!P.op[1]").replace("==?", "==")


CHANGES: dict[str, Callable[[str], str]] = {
    "add_multi.sv": _add_multi,
    "mvu.sv": _no_watchdog,
    "mvu_vvu_8sx9_dsp58.sv": _no_watchdog,
    "thresholding.sv": _two_states,
    "vpc.sv": lambda text: re.sub(r"function int unsigned gcd.*?endfunction", _GCD, text, flags=re.DOTALL),
}


def changed(path: Path) -> str:
    """A source of FINN as Yosys reads it."""
    text = re.sub(r"^`default_nettype \w+", "", path.read_text(), flags=re.MULTILINE)
    return CHANGES.get(path.name, lambda same: same)(text)


# --- units: files, the module that holds the unit with its parameters, memory files -----------------------------------


def _holder(unit: str, parameters: Mapping[str, int | str], ports: Mapping[str, int], tied: str) -> str:
    """ports: name -> width; a name ending in > is an output. tied: further connections."""
    named = [(name.rstrip(">"), "output" if name.endswith(">") else "input", width) for name, width in ports.items()]
    declared = ", ".join(f"{way} logic [{width - 1}:0] {name}" for name, way, width in named)
    given = ", ".join(f".{key}({value})" for key, value in parameters.items())
    joined = ", ".join(f".{name}({name})" for name, _, _ in named) + (f", {tied}" if tied else "")
    return f"module {HOLDER} ({declared});\n    {unit} #({given}) unit ({joined});\nendmodule\n"


def _bytes(bits: int) -> int:
    return -(-bits // 8) * 8


def _mvu(p: Parameters) -> tuple[list[str], str, dict[str, str]]:
    files = ["mvu_pkg.sv", "add_multi.sv", "mvu.sv", "replay_buffer.sv", "mvu_vvu_axi.sv", "mvu_vvu_8sx9_dsp58.sv"]
    parameters: dict[str, int | str] = {
        "IS_MVU": 1, "VERSION": 2, "MW": p["mw"], "MH": p["mh"], "PE": p["pe"], "SIMD": p["simd"],
        "ACTIVATION_WIDTH": p["act_bits"], "WEIGHT_WIDTH": p["weight_bits"], "ACCU_WIDTH": p["acc_bits"],
        "NARROW_WEIGHTS": p["narrow"], "SIGNED_ACTIVATIONS": p["signed"],
    }  # fmt: skip
    ports = {
        "ap_clk": 1, "ap_rst_n": 1,
        "s_axis_weights_tdata": _bytes(p["pe"] * p["simd"] * p["weight_bits"]), "s_axis_weights_tvalid": 1,
        "s_axis_weights_tready>": 1, "s_axis_input_tdata": _bytes(p["simd"] * p["act_bits"]),
        "s_axis_input_tvalid": 1, "s_axis_input_tready>": 1,
        "m_axis_output_tdata>": _bytes(p["pe"] * p["acc_bits"]), "m_axis_output_tvalid>": 1,
        "m_axis_output_tready": 1,
    }  # fmt: skip
    return [f"mvu/{name}" for name in files], _holder("mvu_vvu_axi", parameters, ports, ".ap_clk2x(1'b0)"), {}


def random_thresholds(p: Parameters) -> Int:
    """Seeded thresholds of a unit of the grid, (channels, 2**bits - 1)."""
    random = np.random.default_rng(p["pe"] * 1000 + p["acc_bits"])
    shape = (p["pe"], p["channels"] // p["pe"], (1 << p["bits"]) - 1)
    lanes = np.sort(random.integers(0, 1 << p["acc_bits"], shape), axis=2)
    return lanes.swapaxes(0, 1).reshape(p["channels"], -1)


def threshold_memories(matrix: Int, pe: int, width: int) -> dict[str, str]:
    """Memory files of a threshold layer: one for each PE and search stage. matrix: (channels, 2**bits - 1)."""
    bits = matrix.shape[1].bit_length()
    return {
        f"t_threshs_{lane}_{stage}.dat": "".join(
            f"{int(v) & (1 << width) - 1:x}\n"
            for v in matrix[lane::pe, (1 << bits - 1 - stage) - 1 :: 1 << bits - stage].reshape(-1)
        )
        for lane in range(pe)
        for stage in range(bits)
    }


def _thresholding(p: Parameters) -> tuple[list[str], str, dict[str, str]]:
    pe, bits, width = p["pe"], p["bits"], p["acc_bits"]
    count = (1 << bits) - 1
    memories = threshold_memories(random_thresholds(p), pe, width)
    parameters: dict[str, int | str] = {
        "K": width, "N": count, "C": p["channels"], "PE": pe, "USE_CONFIG": 0, "THRESHOLDS_PATH": '"t_"',
        "DEPTH_TRIGGER_BRAM": p.get("block_depth", 0),
    }  # fmt: skip
    ports = {
        "clk": 1, "rst": 1, "irdy>": 1, "ivld": 1, "idat": pe * width, "ordy": 1, "ovld>": 1, "odat>": pe * bits,
    }  # fmt: skip
    tied = ".cfg_en(1'b0), .cfg_we(1'b0), .cfg_a('0), .cfg_d('0), .cfg_rack(), .cfg_q(), .iset('0)"
    return ["thresholding/hdl/thresholding.sv"], _holder("thresholding", parameters, ports, tied), memories


def _padding(p: Parameters) -> tuple[list[str], str, dict[str, str]]:
    """pad pixels on each side of height x width."""
    height, width, pad = p["height"], p["width"], p["pad"]
    stream = _bytes(p["simd"] * p["bits"])
    parameters: dict[str, int | str] = {
        "XCOUNTER_BITS": (width + 2 * pad).bit_length(), "YCOUNTER_BITS": (height + 2 * pad).bit_length(),
        "NUM_CHANNELS": p["channels"], "SIMD": p["simd"], "ELEM_BITS": p["bits"], "INIT_XON": pad,
        "INIT_XOFF": pad + width, "INIT_XEND": width + 2 * pad - 1, "INIT_YON": pad, "INIT_YOFF": pad + height,
        "INIT_YEND": height + 2 * pad - 1,
    }  # fmt: skip
    ports = _streams(stream, stream)
    return (
        ["fmpadding/hdl/fmpadding.sv"],
        _holder("fmpadding", parameters, ports, ".we(1'b0), .wa(5'd0), .wd(32'd0)"),
        {},
    )


def _streams(source: int, sink: int) -> dict[str, int]:
    return {
        "ap_clk": 1, "ap_rst_n": 1, "s_axis_tready>": 1, "s_axis_tvalid": 1, "s_axis_tdata": source,
        "m_axis_tready": 1, "m_axis_tvalid>": 1, "m_axis_tdata>": sink,
    }  # fmt: skip


def _converter(p: Parameters) -> tuple[list[str], str, dict[str, str]]:
    parameters: dict[str, int | str] = {"IBITS": p["in_bits"], "OBITS": p["out_bits"]}
    ports = _streams(_bytes(p["in_bits"]), _bytes(p["out_bits"]))
    return ["dwc/hdl/vpc.sv", "dwc/hdl/dwc_axi.sv"], _holder("dwc_axi", parameters, ports, ""), {}


KINDS: dict[str, Callable[[Parameters], tuple[list[str], str, dict[str, str]]]] = {
    "MVAU": _mvu,
    "Thresholding": _thresholding,
    "FMPadding": _padding,
    "StreamingDataWidthConverter": _converter,
}
#: written by FINN's own code generation, not from a source with parameters
WINDOW = "ConvolutionInputGenerator"


def window_sources(p: Parameters, folder: Path) -> list[Path]:
    """FINN's sliding window for a frame of height x width (padding included), as its code generation writes it."""
    from onnx import TensorProto, helper
    from qonnx.core.datatype import DataType
    from qonnx.core.modelwrapper import ModelWrapper
    from qonnx.custom_op.registry import getCustomOp

    k, channels, height, width = p["k"], p["channels"], p["height"], p["width"]
    out = (height - k + 1, width - k + 1)
    shapes = {"inp": [1, height, width, channels], "outp": [1, *out, k * k * channels]}
    infos = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in shapes.items()]
    node = helper.make_node(
        f"{WINDOW}_rtl", ["inp"], ["outp"], domain="finn.custom_op.fpgadataflow.rtl", backend="fpgadataflow",
        ConvKernelDim=[k, k], IFMChannels=channels, IFMDim=[height, width], OFMDim=list(out), SIMD=p["simd"],
        Stride=[1, 1], Dilation=[1, 1], inputDataType=f"UINT{p['bits']}", outputDataType=f"UINT{p['bits']}",
        depthwise=0, parallel_window=0, name="swg",
    )  # fmt: skip
    model = ModelWrapper(helper.make_model(helper.make_graph([node], "one", infos[:1], infos[1:])))
    for name in shapes:
        model.set_tensor_datatype(name, DataType[f"UINT{p['bits']}"])
    op = getCustomOp(model.graph.node[0])
    op.set_nodeattr("code_gen_dir_ipgen", str(folder))
    op.generate_hdl(model, "xczu7ev-ffvc1156-2-e", 5)
    return [Path(path) for path in op.get_rtl_file_list(True)]


def synthesise(kind: str, p: Parameters, seconds: float = 400) -> Figures:
    """Yosys' figures of one unit with constants of no meaning."""
    if kind != WINDOW:
        paths, holder, memories = KINDS[kind](p)
        return synthesised(HOLDER, [library() / path for path in paths], {f"{HOLDER}.sv": holder, **memories}, seconds)
    with tempfile.TemporaryDirectory(prefix="srq-finn-") as made:
        return synthesised("swg", window_sources(p, Path(made)), {}, seconds)


def synthesised(top: str, sources: Sequence[Path], texts: Mapping[str, str], seconds: float = 400) -> Figures:
    """Yosys' figures of a module of FINN.

    sources: FINN's files, changed as Yosys wants them. texts: further files by name, .sv Verilog, others memories.
    """
    with tempfile.TemporaryDirectory(prefix="srq-finn-") as scratch:
        work = Path(scratch)
        held = {path.name: changed(path) for path in sources} | dict(texts)
        for name, text in held.items():
            (work / name).write_text(text)
        verilog = " ".join(name for name in held if Path(name).suffix in (".v", ".sv"))
        script = "\n".join(
            [
                "read_verilog -lib +/xilinx/cells_sim.v",
                "read_verilog -lib +/xilinx/cells_xtra.v",
                "read_slang -j 1 --allow-use-before-declare --ignore-timing --ignore-assertions "
                f"-Wno-undefined-param-override --top {top} {verilog}",
                f"synth_xilinx -family xcup -top {top} -flatten -noiopad -noclkbuf",
                "tee -q -o stat.json stat -json",
            ]
        )
        (work / "script.ys").write_text(script)
        command = [sys.executable, "-P", str(WORKER), "script.ys"]
        done = subprocess.run(command, cwd=work, capture_output=True, text=True, timeout=seconds, check=False)
        if done.returncode:
            raise RunError(f"yosys refuses FINN's {top} of {verilog}:\n" + (done.stdout + done.stderr)[-2000:])
        return figures_of(json.loads((work / "stat.json").read_text()), top, 0.0)


# --- the grid ---------------------------------------------------------------------------------------------------------


def grid() -> list[tuple[str, dict[str, int], bool]]:
    """(kind, parameters, held out); the first of four is, so that the ends of every table are fitted.

    A row that is shorter than its names has no value for the last.
    """
    tables: dict[str, tuple[str, list[tuple[int, ...]]]] = {
        "MVAU": (
            "pe simd mw mh weight_bits act_bits acc_bits narrow signed",
            [
                (4, 9, 144, 16, 8, 8, 24, 0, 0), (4, 9, 144, 16, 4, 4, 16, 0, 0), (2, 3, 27, 16, 8, 8, 21, 1, 0),
                (1, 16, 144, 16, 8, 8, 24, 1, 1), (8, 4, 144, 16, 4, 8, 18, 1, 0), (8, 8, 288, 32, 8, 8, 24, 1, 0),
                (16, 2, 144, 16, 4, 4, 14, 1, 0), (4, 16, 144, 12, 4, 4, 16, 1, 1), (12, 8, 288, 12, 8, 8, 24, 1, 1),
                (2, 12, 108, 12, 8, 4, 18, 1, 0), (14, 1, 25, 56, 8, 8, 21, 1, 0), (1, 4, 144, 16, 4, 4, 14, 1, 0),
                (16, 8, 576, 64, 4, 4, 16, 1, 0), (4, 4, 36, 64, 8, 8, 22, 0, 1), (6, 5, 180, 18, 4, 8, 20, 0, 0),
                (32, 4, 288, 32, 8, 8, 24, 1, 0), (4, 32, 288, 32, 8, 8, 19, 1, 1), (2, 32, 288, 32, 4, 4, 16, 1, 0),
                (1, 64, 576, 64, 8, 8, 26, 1, 0), (8, 32, 288, 32, 4, 4, 16, 1, 1), (16, 16, 576, 64, 8, 8, 26, 1, 0),
                (4, 64, 576, 64, 4, 4, 17, 1, 0),
            ],
        ),
        "Thresholding": (
            "pe channels acc_bits bits block_depth",
            [
                (4, 16, 24, 4), (1, 16, 18, 4), (2, 12, 20, 8), (4, 16, 24, 8), (8, 16, 14, 4), (1, 64, 22, 8),
                (3, 3, 24, 8), (2, 64, 16, 4), (12, 12, 20, 4), (7, 56, 21, 6),
                (8, 32, 18, 4), (16, 64, 14, 4), (2, 16, 20, 4), (4, 32, 20, 6), (4, 4, 16, 6), (1, 32, 19, 6),
                (16, 16, 22, 8), (1, 64, 20, 6, 4096), (4, 64, 14, 4, 4096), (2, 64, 16, 6, 4096),
                (1, 64, 22, 8, 1024), (4, 32, 20, 8, 4096), (8, 64, 18, 8, 512),
            ],
        ),
        "FMPadding": (
            "height width pad channels simd bits",
            [(32, 32, 1, 16, 4, 8), (48, 64, 1, 64, 2, 8), (96, 128, 2, 3, 3, 8), (24, 32, 1, 16, 16, 4),
             (180, 320, 1, 48, 12, 8)],
        ),
        WINDOW: (
            "height width k channels simd bits",
            [(34, 34, 3, 16, 4, 8), (50, 66, 3, 16, 16, 8), (52, 68, 5, 8, 2, 8), (26, 34, 3, 64, 8, 4),
             (98, 130, 3, 32, 4, 8), (50, 66, 3, 32, 8, 8), (74, 98, 3, 12, 12, 4), (50, 66, 3, 3, 3, 8)],
        ),
        "StreamingDataWidthConverter": (
            "in_bits out_bits",
            [
                (96, 32), (32, 96), (24, 64), (8, 128), (128, 16), (72, 48), (192, 24), (16, 32),
                (48, 8), (16, 8), (24, 8), (32, 8), (96, 8), (40, 8), (64, 8), (128, 8),
                (160, 8), (192, 8), (256, 8), (384, 8), (512, 8), (128, 4), (256, 16), (1216, 19),
                (352, 22), (608, 19), (304, 76), (512, 128), (608, 152), (8, 512), (19, 608), (128, 512),
                (96, 64), (48, 72), (64, 96), (160, 64), (64, 160), (64, 88), (88, 64), (192, 128),
            ],
        ),
    }  # fmt: skip
    made = []
    for kind, (names, rows) in tables.items():
        for index, row in enumerate(rows):
            made.append((kind, dict(zip(names.split(), row, strict=False)), index % 4 == 0))
    return made
