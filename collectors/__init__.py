"""Sources that record on the observed host.  (The collectors themselves come with a later
release.)"""
