"""What bands say over the air: pure byte codecs, both ways, without I/O.

Drivers decode with them and virtual bands encode with them. Everything is little-endian where nothing else is said, and
every decoder raises `DeviceError` (`Reason.MALFORMED`) on bytes that cannot be what they should be.
"""
