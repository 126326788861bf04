"""Updates: signed releases in, the running one swapped atomically, the last one kept."""
