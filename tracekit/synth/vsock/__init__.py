"""Made recordings of vsock sockets: what a model of lingering does, as a kernel's events."""
