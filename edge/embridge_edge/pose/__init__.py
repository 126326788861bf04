"""Sources of hand pose, one driver a module."""
