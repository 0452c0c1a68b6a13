"""Many inputs, each in a process of its own, on one machine or on a Ray cluster."""
