"""Models of HuggingFace diffusers, read from their folders and written to them, without torch."""
