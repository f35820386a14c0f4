"""The fault campaign: real agents over an emulated cloud, while everything around them fails.

docs/fault-campaign.md says what is injected and how to read the report.
"""
