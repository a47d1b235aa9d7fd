"""One file a public source. Each reads the files as their publisher made them and gives ``Tables``."""
