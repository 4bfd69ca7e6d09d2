"""What is compiled of conformance.  Loaded a second time, as plain Python, for small traces
(docs/decisions/0004-one-kernel-loaded-twice.md)."""
