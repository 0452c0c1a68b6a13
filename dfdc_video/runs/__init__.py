"""Settings -> run folder: the only readers of a whole config."""
