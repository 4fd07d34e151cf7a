"""The suites: one folder each, with its pins (suite.toml) and two functions."""
