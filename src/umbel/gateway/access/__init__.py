"""Access: which requests a route admits, and who makes them."""
