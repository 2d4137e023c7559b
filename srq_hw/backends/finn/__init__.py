"""FINN back end: IntGraph -> dataflow graph, folding, estimates, generated sources, and FINN's own execution as oracle."""
