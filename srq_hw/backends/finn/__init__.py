"""FINN back end: IntGraph -> dataflow graph, folding, estimates, sources; FINN's own execution as oracle."""

from srq_hw.backends.finn.build import FinnResult, build_finn, load_result
from srq_hw.backends.finn.oracle import FinnOracle, finn_oracle

__all__ = ["FinnOracle", "FinnResult", "build_finn", "finn_oracle", "load_result"]
