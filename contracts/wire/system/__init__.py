"""What every process needs of its machine: files, pipes and child processes. Imports no bus."""
