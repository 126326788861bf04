"""The edge agent: bands, pose sources, spool, uplink, decoder and updater."""
