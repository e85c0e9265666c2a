"""Models tended through the API of Ollama: fetched, copied, shown and removed."""
