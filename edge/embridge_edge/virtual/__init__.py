"""Wristbands that are not there, over a Bluetooth stack that is: radio model, controllers, bands, and a server."""
