"""perf.data, the file of ``perf record``.

Facts: tools/perf/Documentation/perf.data-file-format.txt, include/uapi/linux/perf_event.h.
"""
