"""Bluetooth Low Energy: which radio is used, and how it is reached."""
