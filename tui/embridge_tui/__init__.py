"""The terminal interface over what edge and cloud offer."""
