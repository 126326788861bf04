"""Rollouts: a release reaches the fleet in waves, stops by itself where it does harm, and is taken back."""
