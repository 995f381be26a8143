"""What is asked of the catalog: load, decide, append. One file for each family of wishes, on one shared desk."""
