"""The socket engine: what became of every vsock socket that closed."""
