"""Comparisons of methods on recordings: protocols, runs, controls, and the report of them."""
