"""One measurement a file. A probe is a function of the evidence so far that returns what it saw."""
