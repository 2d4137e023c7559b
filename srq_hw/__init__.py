"""srq-hw: float super-resolution networks to integer artefacts for FPGAs and NPUs, with proof of equality."""

__version__ = "0.1.0"
