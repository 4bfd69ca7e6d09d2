"""Programs for the guest: each is run by its path, and needs the standard library only."""
