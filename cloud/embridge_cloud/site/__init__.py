"""A site: the authority that says who is who, and what its broker, cloud and edges are given (docs: a site)."""
