"""What clients may send, how long they may take, and how many may come."""
