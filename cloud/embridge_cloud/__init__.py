"""The cloud: ingest, store, pairing, learning, prototypes, registry and rollout."""
