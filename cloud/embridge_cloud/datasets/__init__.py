"""Public and own recordings behind one interface: participants, paired streams, labels, splits."""
