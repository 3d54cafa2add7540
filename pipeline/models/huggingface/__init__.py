"""Models to and from the classes of Hugging Face `transformers`, without importing it."""
