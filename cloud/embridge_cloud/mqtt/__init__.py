"""paho-mqtt on the event loop, for taking in much and acknowledging it late (decision 0012)."""
