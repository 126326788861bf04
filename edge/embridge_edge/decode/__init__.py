"""Decoding: raw samples to gesture scores with a verified release."""
