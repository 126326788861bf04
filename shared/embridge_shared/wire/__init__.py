"""The wire: topics, chunk codec and control messages (docs: wire protocol)."""
