"""Raw files -> the records of `prepare`."""
