"""Where decisions go: one file an output, behind one small interface."""
