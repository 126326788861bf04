"""Prompted collection: protocols, the machine that leads a session through one, and the station that records it."""
