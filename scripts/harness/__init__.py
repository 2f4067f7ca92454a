"""Faults on purpose: killed processes, full disks, flipped bits, commands that run at once."""
