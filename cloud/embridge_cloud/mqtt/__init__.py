"""A small MQTT 3.1.1 client for taking in much and acknowledging it late (decision 0012)."""
