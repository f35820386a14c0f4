"""What is deployed together. A stack makes constructs, passes objects between them, and grants."""
