"""What a call sends."""
