"""The whole of Scanfleet on one machine: emulated cloud, API and agents as processes."""
