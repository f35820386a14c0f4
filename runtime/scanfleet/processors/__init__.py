"""One file a program: how to call it, its settings, its progress, its failure codes."""
