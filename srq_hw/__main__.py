"""`python -m srq_hw` is the `srq-hw` program."""

from srq_hw.cli import main

main()
