"""The demo: sample services on loopback, and a gateway with the sample configuration in front of them."""
