"""Many simulated edges at once: the load a cloud is measured with."""
