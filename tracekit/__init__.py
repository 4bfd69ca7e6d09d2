"""tracekit: did the host keep its promises?  Events in, findings out.

Imports nothing, so that ``tracekit --help`` stays quick and no import circle can form.
"""

__version__ = "0.1.0"
