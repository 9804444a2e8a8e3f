"""Notebooks run with nobody watching: cells, parameters, chain, runner, watch."""
