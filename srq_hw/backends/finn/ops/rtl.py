"""The operations as RTL nodes: code generation from the RTL library in FINN's port convention."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from finn.custom_op.fpgadataflow.rtl import register_custom_op
from finn.custom_op.fpgadataflow.rtlbackend import RTLBackend
from finn.util.basic import get_dsp_block

from srq_hw.backends.finn.ops.base import CLASSES, SrqOp
from srq_hw.backends.finn.ops.wrapper import hardware, wrapper_text
from srq_hw.backends.rtl.netlist import PORTS
from srq_hw.backends.rtl.verilate import LIBRARY
from srq_hw.files import write_text


class SrqOp_rtl(SrqOp, RTLBackend):
    """An Srq operation on the RTL library."""

    def get_nodeattr_types(self) -> dict[str, Any]:
        """The operation's and those of an RTL node."""
        return SrqOp.get_nodeattr_types(self) | RTLBackend.get_nodeattr_types(self)

    def generate_hdl(self, model: Any, fpgapart: str, clk: float) -> None:
        """Write <node>.v and its memory files into code_gen_dir_ipgen; the wrapper names them by absolute path.

        The library stays where it is installed, like FINN's own: all nodes share its modules.
        """
        folder = Path(self.get_nodeattr("code_gen_dir_ipgen"))
        top = self.get_verilog_top_module_name()
        made = hardware(self.onnx_node, PORTS[get_dsp_block(fpgapart)])
        for name, text in made.memories.items():
            write_text(folder / name, text)
        write_text(folder / f"{top}.v", wrapper_text(top, made, str(folder)))
        # FINN may rename the node later; the module keeps its name.
        self.set_nodeattr("gen_top_module", top)
        self.set_nodeattr("ipgen_path", str(folder))
        self.set_nodeattr("ip_path", str(folder))

    def get_rtl_file_list(self, abspath: bool = False) -> list[str]:
        """The library's files that this node needs, then its wrapper; bare names unless abspath."""
        library = hardware(self.onnx_node, PORTS["DSP48E2"]).library  # the device changes parameters, not modules
        wrapper = f"{self.get_nodeattr('gen_top_module')}.v"
        if not abspath:
            return [*library, wrapper]
        folder = Path(self.get_nodeattr("code_gen_dir_ipgen"))
        return [*(str(LIBRARY / name) for name in library), str(folder / wrapper)]

    def code_generation_ipi(self) -> list[str]:
        """Tcl that adds the sources and an instance of the module to Vivado's block design."""
        files = [f"add_files -norecurse {name}" for name in self.get_rtl_file_list(abspath=True)]
        top = self.get_nodeattr("gen_top_module")
        return [*files, f"create_bd_cell -type module -reference {top} {self.onnx_node.name}"]

    def execute_node(self, context: dict[str, Any], graph: Any) -> None:
        """FINN's simulation of the RTL with exec_mode "rtlsim", which needs Vivado; else the reference."""
        if self.get_nodeattr("exec_mode") == "rtlsim":
            RTLBackend.execute_node(self, context, graph)
        else:
            SrqOp.execute_node(self, context, graph)


def _register() -> dict[str, type]:
    made = {}
    for op_type, base in CLASSES.items():
        members = {"__doc__": base.__doc__, "__module__": __name__}
        made[f"{op_type}_rtl"] = register_custom_op(type(f"{op_type}_rtl", (SrqOp_rtl,), members))
    return made


#: op_type -> class
RTL_CLASSES = _register()
