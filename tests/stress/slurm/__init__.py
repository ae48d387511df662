"""Trainings under a real Slurm, interrupted as clusters do it: `python -m tests.stress.slurm --help`."""
