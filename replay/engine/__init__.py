"""What the machine's state was: three planes of pages, and where a rule was broken.

One engine, run compiled or, below some thousand events, as plain Python (see tracekit/compiled).
The rules it implements are in docs/judging.md.
"""
