"""The limits on clients: what they may send, how long they may take, and how many may come."""
