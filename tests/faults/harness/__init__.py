"""Faults on purpose: a cluster of real processes, clients, faults by chance, and a judge of what they saw."""
