"""The terminal interface over what edge and cloud offer."""

PORT = 8473
"""On loopback, where an interface is served to a browser."""
