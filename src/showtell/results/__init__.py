"""Where captions go: files and their journal, photo metadata, alternative text."""
