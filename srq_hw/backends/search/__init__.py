"""Folding search: lanes for every node of an IntGraph, for a rate at least cost, or the highest rate."""
