"""Training runs: what one is told, the folder it fills, and how it goes on."""
