"""tracefs: an instance of its own, the events of a plan in it, and its pages as bytes.

Nothing here decodes anything, and nothing needs more than the standard library.
"""
