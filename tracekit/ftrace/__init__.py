"""ftrace's binary side: ring-buffer pages, event formats, trace.dat files, and what records mean.

Used by the importers and by live capture alike.
"""
