"""The agent: takes leases on jobs, runs their programs, publishes their results."""
