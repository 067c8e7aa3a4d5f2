"""What all parts of Umbel speak of: the interface of a call, and what a call is made for."""
