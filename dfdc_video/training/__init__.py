"""Module, losses, optimisation and callbacks of a training run."""
