"""One file for each resource. A route reads, asks and answers."""
