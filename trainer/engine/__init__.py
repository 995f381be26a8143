"""The training process: it runs requests and reports updates. It has no job and no bus, and exits with its pipe."""
