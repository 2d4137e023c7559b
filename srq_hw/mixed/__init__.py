"""Mixed precision: which layer gets how many bits under a budget; measured on the integer output."""
