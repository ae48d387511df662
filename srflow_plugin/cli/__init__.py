"""The commands, one module each: HELP, add_arguments, run. They import torch and BasicSR inside ``run`` only."""
