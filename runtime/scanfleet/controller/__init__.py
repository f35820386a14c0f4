"""The fleet controller: what the queues, the agents and the machines say together, as metrics that scale."""
