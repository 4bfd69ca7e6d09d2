"""Sources that record on the observed host (README.md); ``tracekit collect`` runs them."""
