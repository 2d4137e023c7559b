"""Hand-off bundle: everything a machine with Vivado continues a FINN build from, and the vectors to check it with."""

from srq_hw.backends.handoff.bundle import write_handoff
from srq_hw.backends.handoff.manifest import verify_manifest

__all__ = ["verify_manifest", "write_handoff"]
