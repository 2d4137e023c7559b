"""`srq-hw compare`: networks x methods x widths, measured on the integer program and laid side by side."""
