"""What all services share: the words (pure) and, in `contracts.wire`, the plumbing that carries them."""
