"""What is sent as an answer."""
