"""Whether the calls of a trace are those that QEMU of one generation would have made."""
