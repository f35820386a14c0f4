"""What a slot is worth: a program measured at several concurrencies, and what agents and scaling follow."""
