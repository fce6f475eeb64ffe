"""Folders in Hugging Face's layout of BERT: config.json, weights, the files of a tokenizer; and those of sentence-transformers."""
