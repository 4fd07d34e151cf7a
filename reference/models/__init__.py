"""The small networks that suites train."""
