"""Shows what a replay found; decides nothing.  One module a format."""
