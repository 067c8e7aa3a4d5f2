"""What the server says itself: refusals, fields, and the record of a request."""
