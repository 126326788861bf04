"""The demonstration: the whole loop on one machine, every process a real one."""
