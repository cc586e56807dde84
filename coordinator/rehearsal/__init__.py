"""Whole federations on one machine, from real processes: the demo and the benchmark.

Broker and devices are started by their command lines, as on a Pi; nothing of them is imported.
"""
