"""Open RTL back end: a library of streaming Verilog modules (lib/) and their simulation with Verilator."""
