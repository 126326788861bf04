"""The store: a hot DuckDB file while a session is recorded, sealed Parquet afterwards."""
