"""The REST API: each route checks who may call it, makes one call, and answers."""
