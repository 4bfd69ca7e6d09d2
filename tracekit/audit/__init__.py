"""The nightly audit: many traces judged, compared with the nights before, and told on one page."""
