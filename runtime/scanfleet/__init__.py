"""Scanfleet runs heavy programs over folders of scans in S3 and shows what every job is doing.

The package runs anywhere: behind Lambda, on a fleet machine, on a laptop. Client developers want
`scanfleet.client.Scanfleet`; docs/architecture.md has the map of the rest.
"""
