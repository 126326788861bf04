"""Screens: one file a room."""
