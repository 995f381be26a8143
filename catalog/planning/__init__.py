"""Makes the plans of long applications to large data sets in a child process: they are mostly Python."""
