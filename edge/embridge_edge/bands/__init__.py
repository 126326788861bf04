"""EMG bands, one driver a module."""
