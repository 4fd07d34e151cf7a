"""The harness of lossboard: plans, runs, records and publishes benchmarks of classification losses."""
