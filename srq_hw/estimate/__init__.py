"""`srq-hw estimate`: does a network fit a board, how fast, and what would make it fit."""
