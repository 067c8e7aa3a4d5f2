"""The demo: sample services on loopback, and a gateway before them with the sample configuration."""
