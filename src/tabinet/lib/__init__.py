"""Domain-free pure structures: prefixes, delta tracker, prefix trie, reference counts, backoff."""
