"""Training pipeline for language models: word vectors, BERT, GPT, translation and alignment."""
