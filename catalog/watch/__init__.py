"""The watch: compares what is stored with what must be there, makes derived bytes again, and says what is lost."""
