"""Hand-off bundle of a generated Verilog design: sources, constraints, Vivado scripts, test bench, host driver."""

from srq_hw.backends.handoff.rtl.bundle import write_rtl_handoff

__all__ = ["write_rtl_handoff"]
